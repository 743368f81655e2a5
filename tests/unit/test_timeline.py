"""What can be drawn of a run, from its first event on."""

import json
from dataclasses import replace
from typing import Any

import pytest

from skyward.events import (
    BatchesArrived,
    BatchesEnded,
    BatchesLate,
    BatchesSent,
    BatchLost,
    BatchRetried,
    Event,
    Logged,
    NodeChanged,
    NodeFacts,
    NodeGivenUp,
    NodeHeard,
    NodeNoticed,
    NodeSilent,
    NodeStep,
    Printed,
    Quoted,
    Reported,
    RunEnded,
    RunStarted,
    Spent,
    Stage,
)
from skyward.telemetry.report import LostTime, NodeUse, Report
from skyward.view.timeline import MAX_INCIDENTS, OTHER_FUNCTIONS, Timeline

STARTED = RunStarted(100.0, "run-1", "aws", 2, 2, 2, "process", "train.py", "0.1.0", "3.12.1")
REPORT = Report(8, 4, 0, 0, 4, {}, 0, {0: NodeUse(2, 4, (1.0, 1.0), 10, 10)}, 2.0, 4.0, 2.0, LostTime(start=0.5))


def changed(at: float, stage: Stage, reason: str = "", node: int = 0, generation: int = 0) -> NodeChanged:
    return NodeChanged(at, node, generation, stage, reason, "i-1", "host", 2 if stage == "ready" else 0)


def ended(at: float, status: str = "returned", node: int = 0, many: int = 1) -> BatchesEnded:
    return BatchesEnded(at, node, tuple(range(many)), (0,) * many, (0.5,) * many, (status,) * many, (2,) * many, 10)


def head(*events: Event) -> dict[str, Any]:
    timeline = Timeline()
    timeline.add([STARTED, *events])
    told: dict[str, Any] = json.loads(json.dumps(timeline.head()))
    return told


def test_before_anything_has_happened_there_is_nothing_to_draw() -> None:
    told = Timeline().snapshot()
    assert (told["run"], told["origin"], told["now"], told["nodes"], told["cells"]) == (None, None, 0, [], [])
    assert dict(told["numbers"])["Efficiency"] == "0.0%"
    json.dumps(told)


def test_what_calls_raised_is_told_of_each() -> None:
    statuses = ("returned", "raised", "overdue", "raised")
    said, names, firsts = ("ValueError: a",), ("f", "f", "g", "h"), (0, 17, -1, 3)
    event = BatchesEnded(101.0, 0, (1, 2, 3, 4), (0, 1, 0, 1), (0.5,) * 4, statuses, (1, 1, 1, 2), 10, said)
    assert head(replace(event, functions=names, firsts=firsts))["incidents"] == [
        [10_000, "raised", 0, 1, "f, task 17", "ValueError: a"],
        [10_000, "raised", 0, 0, "g (call 3)", "ran longer than its timeout"],
        [10_000, "raised", 0, 1, "h, tasks 3 to 4", ""],
    ]
    assert [each[4] for each in head(event)["incidents"]] == ["call 2", "call 3", "call 4"]


def test_functions_are_told_with_how_long_they_ran() -> None:
    first = replace(ended(101.0, many=3), functions=("train",))
    second = BatchesEnded(
        102.0, 0, (4, 5), (0, 0), (0.25, 2.0), ("returned", "died"), (1, 4), 1, (), ("score", "train")
    )
    assert head(first, second)["functions"] == [["train", 4, 10, 3.5, 2.0], ["score", 1, 1, 0.25, 0.25]]


def test_of_very_many_functions_all_but_the_first_are_one() -> None:
    told = head(*(replace(ended(101.0 + number), functions=(f"f{number}",)) for number in range(MAX_INCIDENTS + 5)))
    assert [each[:2] for each in told["functions"][MAX_INCIDENTS - 1 :]] == [
        [f"f{MAX_INCIDENTS - 1}", 1],
        [OTHER_FUNCTIONS, 5],
    ]


def test_what_tasks_print_is_told_once() -> None:
    timeline = Timeline()
    timeline.add([STARTED, Printed(101.0, 0, 1, "stdout", "a\nb\n"), Logged(102.0, 0, 1, "train", 30, "slow")])
    lines = [(10_000, "stdout", "a"), (10_000, "stdout", "b"), (20_000, "log", "WARNING train: slow")]
    assert timeline.news()["output"] == {"0:1": (0, lines)}
    assert timeline.news()["output"] == {}
    assert timeline.snapshot()["output"] == {"0:1": (0, lines)}


def test_bar_and_tile_have_one_figure() -> None:
    late = (ended(103.0, many=2), BatchesLate(103.0, 0, 1, 2), BatchLost(104.0, 9, ("x",), 4))
    told = head(changed(101.0, "ready"), BatchesArrived(102.0, 10, 20), *late)
    assert (told["arrived"], told["total"], told["done"], dict(told["numbers"])["Tasks"]) == (16, 16, 2, "2")
    assert dict(told["numbers"])["Lost"] == "1 call"
    timeline = Timeline()
    timeline.add([STARTED, BatchesArrived(102.0, 10, 20), ended(103.0, "raised", many=3)])
    assert dict(timeline.head()["numbers"])["Raised"] == "3 calls"
    told = timeline.head(replace(REPORT, tasks=4))
    assert (told["done"], dict(told["numbers"])["Tasks"]) == (4, "4")


def test_times_are_ticks_since_the_first_event() -> None:
    told = head(changed(101.5, "launching"))
    assert told["run"]["program"] == "train.py"
    assert told["now"] == 15_000
    assert told["nodes"][0]["stages"] == [[15_000, 0, "launching", ""]]


def test_a_run_in_progress_is_told_from_its_events() -> None:
    told = head(
        changed(101.0, "ready"),
        changed(101.0, "ready", node=1),
        BatchesArrived(102.0, 10, 20),
        BatchesSent(102.0, 0, 4, 100),
        NodeFacts(102.5, 0, 2, 1, 0.5, 1 << 30),
        ended(103.0, many=2),
        ended(104.0, node=1),
    )
    assert not told["ended"]
    assert (told["arrived"], told["total"], told["done"], told["lost"], told["notes"]) == (20, 20, 6, [], [])
    assert told["nodes"][0]["running"] == 1
    assert dict(told["numbers"]) == {
        "Tasks": "6",
        "Nodes": "2",
        "Concurrency": "2",
        "Effective workers": "4",
        "Total time": "2.00 s",
        "Throughput": "3.0 tasks/s",
        "Ideal time": "0.38 s",
        "Efficiency": "18.8%",
    }
    assert sum(told["rate"]["amounts"]) == 6
    assert told["calls"] == {"returned": 3}


def test_nodes_tell_how_busy_they_are_and_how_full() -> None:
    first = NodeFacts(102.5, 0, 2, 1, 0.5, 1 << 30, 0.75, 4 << 30)
    node = head(changed(101.0, "ready"), first, replace(first, at=104.5, memory=3 << 30, cpu=0.0))["nodes"][0]
    assert (node["memory"], node["usage"]) == (4 << 30, [[25_000, 75, 75], [45_000, 0, 25]])


def test_slots_of_several_sizes_are_a_range() -> None:
    told = head(changed(101.0, "ready"), replace(changed(101.0, "ready", node=1), slots=8))
    assert dict(told["numbers"])["Concurrency"] == "2-8"


def test_a_run_that_ended_is_told_by_its_report() -> None:
    told = head(RunEnded(110.0, "", (), REPORT.as_dict()))
    assert told["ended"]
    assert dict(told["numbers"])["Total time"] == "2.00 s"
    assert told["lost"][:2] == [["work", 0.5], ["start", 0.5]]
    assert told["notes"][0] == "Calls: 4 answered (0 raised), 0 lost, 0 cancelled"


def test_the_share_of_opening_and_its_hint_are_told() -> None:
    slow = replace(REPORT, lost=LostTime(start=0.25, opening=0.25), imports={"slow": 1.0})
    told = head(RunEnded(103.0, "", (), slow.as_dict()))
    assert dict(told["lost"])["opening"] == 0.25
    assert told["hint"] == 'slots spent 1.0 s importing slow: Image(preload=["slow"])'
    assert told["notes"] == head(RunEnded(103.0, "", (), REPORT.as_dict()))["notes"]
    early = replace(ended(106.0), opening=(5.0,), imports={"slow": 5.0})
    assert head(early)["hint"] == 'slots spent 5.0 s importing slow: Image(preload=["slow"])'


def test_a_call_is_drawn_from_when_it_is_opened() -> None:
    timeline = Timeline()
    timeline.add([STARTED, replace(ended(106.0), opening=(5.0,), imports={"slow": 5.0})])
    assert timeline.snapshot()["cells"] == [[0, 0, 0, [5_000, 55_000, 50_000, 1, 2, 0, 0, -1]]]


def test_a_run_that_has_not_ended_shows_the_shares_of_its_last_report() -> None:
    told = head(Reported(105.0, REPORT.as_dict()), ended(104.0))
    assert not told["ended"]
    assert told["lost"][:2] == [["work", 0.5], ["start", 0.5]]
    assert dict(told["numbers"])["Tasks"] == "2"


def test_the_figures_of_a_run_that_has_not_ended_go_on_from_its_last_report() -> None:
    before = BatchesArrived(102.0, 2, 4), ended(104.0), Reported(105.0, REPORT.as_dict())
    paused, going = dict(head(*before)["numbers"]), dict(head(*before, ended(109.0))["numbers"])
    assert (paused["Total time"], paused["Ideal time"], paused["Efficiency"]) == ("2.00 s", "1.00 s", "50.0%")
    assert (going["Total time"], going["Tasks"], going["Efficiency"]) == ("6.00 s", "4", "50.0%")


def test_the_bytes_of_nodes_are_those_of_the_report() -> None:
    told = head(changed(101.0, "ready"), changed(101.0, "ready", node=1), Reported(105.0, REPORT.as_dict()))
    assert [node.get("received") for node in told["nodes"]] == [10, None]
    assert (told["nodes"][0]["sent"], told["nodes"][0]["shared"]) == (10, 0)


def test_a_run_that_failed_late_keeps_its_last_report() -> None:
    told = head(Reported(105.0, REPORT.as_dict()), RunEnded(110.0, "PoolFailed: no", (), {}))
    assert dict(told["numbers"])["Total time"] == "2.00 s"


def test_a_report_that_is_given_is_the_one_that_counts() -> None:
    timeline = Timeline()
    timeline.add([STARTED])
    assert dict(timeline.head(replace(REPORT, tasks=9))["numbers"])["Tasks"] == "9"
    assert timeline.snapshot(replace(REPORT, capacity=0.0))["lost"] == []


def test_a_run_that_failed_before_it_began_says_why() -> None:
    told = head(RunEnded(110.0, "NoCapacity: none left", ("i-7",), {}))
    assert (told["error"], told["leaked"]) == ("NoCapacity: none left", ["i-7"])


def test_a_node_is_lost_or_does_not_start_or_just_goes() -> None:
    told = head(
        changed(101.0, "launching"),
        changed(102.0, "ending", "no answer"),
        changed(103.0, "launching", generation=1),
        changed(104.0, "ready", generation=1),
        changed(105.0, "ending", "its process ended", generation=1),
        changed(106.0, "launching", generation=2),
        changed(107.0, "ending", "dismissed", generation=2),
    )
    assert [incident[1:] for incident in told["incidents"]] == [
        ["did not start", 0, None, "", "no answer"],
        ["node lost", 0, None, "", "its process ended"],
    ]
    assert told["nodes"][0]["host"] == "host"


def test_steps_of_a_machine_that_boots_are_told_until_it_goes_on() -> None:
    booting = (changed(101.0, "booting"), NodeStep(101.5, 0, "packages"))
    assert head(*booting)["nodes"][0]["step"] == "packages"
    assert head(*booting, changed(102.0, "joining"))["nodes"][0]["step"] == ""


def test_silence_lasts_until_the_node_is_heard_or_gone() -> None:
    silent = (changed(101.0, "ready"), NodeSilent(102.0, 0, 30.0))
    assert head(*silent)["nodes"][0]["silences"] == [[20_000, None]]
    assert head(*silent, NodeHeard(104.0, 0))["nodes"][0]["silences"] == [[20_000, 40_000]]
    assert head(*silent, changed(105.0, "ending", "lost"))["nodes"][0]["silences"] == [[20_000, 50_000]]
    assert head(*silent, NodeHeard(104.0, 0), NodeHeard(106.0, 0))["nodes"][0]["silences"] == [[20_000, 40_000]]
    assert head(*silent)["incidents"] == [[20_000, "silent", 0, None, "", "silent; counts as lost after 30 s"]]


def test_notices_and_nodes_that_are_given_up_are_told() -> None:
    told = head(
        NodeNoticed(101.0, 0, "spot interruption"), NodeGivenUp(102.0, 0, "no capacity"), NodeGivenUp(103.0, 1, "")
    )
    assert told["nodes"][0]["notices"] == [[10_000, "spot interruption"]]
    assert [node["givenUp"] for node in told["nodes"]] == ["no capacity", "it has left the pool"]
    assert [incident[1] for incident in told["incidents"]] == ["reclaim notice", "given up"]


def test_retries_are_told_by_cause_and_one_by_one() -> None:
    told = head(
        BatchRetried(101.0, 7, "killed by signal 9", 2, "train, task 4"),
        BatchRetried(101.0, 8, "killed by signal 9"),
        BatchLost(102.0, 7, ("killed by signal 9", "exit code 1"), 1, "train, task 4"),
    )
    assert told["causes"] == [["killed by signal 9", 2], ["exit code 1", 1]]
    assert told["incidents"] == [
        [10_000, "retried", 2, None, "train, task 4", "killed by signal 9"],
        [10_000, "retried", None, None, "call 8", "killed by signal 9"],
        [20_000, "lost", None, None, "train, task 4", "killed by signal 9; exit code 1"],
    ]


def test_attempts_that_died_alike_on_a_node_are_one_cause_whatever_their_slot() -> None:
    deaths = [f"slot {slot} of node {node}: killed by signal 9" for node, slot in ((0, 3), (0, 1), (1, 0))]
    told = head(*(BatchRetried(101.0, 7, cause) for cause in deaths[:2]), BatchLost(102.0, 7, tuple(deaths), 1))
    assert told["causes"] == [["node 0: killed by signal 9", 2], ["node 1: killed by signal 9", 1]]
    assert told["incidents"][0][-1] == deaths[0]


def test_while_a_run_goes_on_its_shares_have_the_time_at_which_they_were_told() -> None:
    told = Reported(105.0, REPORT.as_dict())
    assert head(ended(104.0))["reported"] is None
    assert head(told, ended(107.0))["reported"] == 50_000
    assert head(told, RunEnded(110.0, "", (), REPORT.as_dict()))["reported"] is None


def test_of_very_many_incidents_only_the_number_is_told() -> None:
    told = head(
        *(ended(101.0 + number, "raised") for number in range(MAX_INCIDENTS + 5)), BatchRetried(300.0, 1, "died")
    )
    assert len(told["incidents"]) == MAX_INCIDENTS + 1
    assert told["untold"] == {"raised": 5}


@pytest.mark.parametrize(
    ("status", "done"), [("returned", 2), ("raised", 2), ("overdue", 2), ("killed", 0), ("died", 0)]
)
def test_a_task_is_done_when_it_was_answered(status: str, done: int) -> None:
    assert head(ended(101.0, status))["done"] == done


def test_money_is_told() -> None:
    told = head(Quoted(100.5, "2 x c7g.large, $0.145 an hour", "c7g.large", 2, 0.145), Spent(101.0, 0.01, 0.145))
    assert told["quotes"] == ["2 x c7g.large, $0.145 an hour"]
    assert told["cost"] == [[10_000, 0.01, 0.145]]
    assert told["spent"] == "$0.01 so far, $0.145 per hour"
    assert head(Spent(101.0, 0.5, 0.1), RunEnded(110.0, "", (), replace(REPORT, cost=0.5).as_dict()))["spent"] == (
        "$0.50 in all"
    )
    assert head()["spent"] == ""


def test_of_very_many_costs_every_other_one_will_do() -> None:
    told = head(*(Spent(101.0 + number, number / 100, 1.0) for number in range(2001)))
    assert len(told["cost"]) == 1001
    assert told["cost"][-1][1] == 20.0


def test_news_are_the_cells_that_changed_and_everything_once_they_were_merged() -> None:
    timeline = Timeline(most=3)
    timeline.add([STARTED, ended(101.0)])
    first = timeline.news()
    assert not first["fresh"]
    assert len(first["cells"]) == 1
    assert timeline.news()["cells"] == []
    timeline.add([ended(105.0 + number) for number in range(10)])
    assert timeline.news()["fresh"]
