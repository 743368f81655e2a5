"""How a run reads in a terminal."""

from dataclasses import replace

from skyward.events import (
    BatchesArrived,
    BatchesSent,
    BatchLost,
    BatchRetried,
    DashboardOpened,
    NodeChanged,
    NodeFacts,
    NodeGivenUp,
    NodeNoticed,
    NodeSilent,
    NodeStep,
    Quoted,
    RunEnded,
    RunStarted,
    Spent,
    TasksCounted,
)
from skyward.view import status_text
from skyward.view.progress import Progress
from tests.unit.test_progress import ended, run

START = RunStarted(0.0, "r", "aws", 2, 2, 2, "process", "p.py", "1", "3.12")
ENDED = RunEnded(90.0, "", (), {})


def shown(progress: Progress, now: float) -> list[str]:
    return [status_text.plain(line) for line in status_text.live(progress, now)]


def test_each_node_that_starts_has_a_line_with_its_step() -> None:
    progress = Progress()
    progress.add([START, Quoted(0.0, "2 x m", "m", 2, 0.5)])
    assert shown(progress, 1.0) == ["skyward  0 of 2 nodes ready · aws · $0.50/h · 0:01", "  2 x m"]
    progress.add([NodeChanged(1.0, 1, 0, "launching"), NodeChanged(1.0, 0, 0, "booting"), NodeStep(3.0, 0, "packages")])
    assert shown(progress, 9.0)[2:] == ["  node 0  booting: packages  0:08", "  node 1  launching  0:08"]
    progress.add([NodeChanged(9.0, 0, 0, "ready", "", "i", "h1", 2), Spent(9.0, 0.01, 0.5)])
    assert shown(progress, 9.0)[:3] == [
        "skyward  1 of 2 nodes ready · aws · $0.50/h · 0:09",
        "  2 x m",
        "  node 0  ready      2 slots on h1",
    ]


def test_the_link_to_the_live_page_stays() -> None:
    progress = Progress()
    progress.add([replace(START, nodes=1), DashboardOpened(0.0, "http://here")])
    assert shown(progress, 1.0)[-1] == "  watch it at http://here"
    progress.add([NodeChanged(2.0, 0, 0, "ready", slots=1), BatchesArrived(2.0, 1, 1)])
    assert shown(progress, 3.0)[-1] == "  watch it at http://here"


def test_a_node_that_is_started_anew_says_why() -> None:
    progress = Progress()
    progress.add([START, NodeChanged(1.0, 0, 0, "ending", "no key"), NodeChanged(2.0, 0, 1, "launching")])
    assert shown(progress, 3.0)[1:] == ["  node 0  launching  0:01  after the one before: no key"]


def test_of_a_reason_that_is_long_the_first_line_is_shown_and_all_of_it_is_told() -> None:
    reason = "exit code 7\n--- last lines of its log ---\n\x1b[2Jno space left"
    progress = Progress()
    progress.add([START, NodeChanged(1.0, 0, 0, "ending", reason), NodeChanged(2.0, 0, 1, "launching")])
    progress.add([NodeGivenUp(2.0, 1, f"\x1b[31mno\r\n{reason}")])
    assert shown(progress, 3.0)[1:] == [
        "  node 0  launching  0:01  after the one before: exit code 7 ...",
        "  node 1  ended: given up  0:03",
        "  node 1 is given up: \x1b[31mno ...",
    ]
    progress.add([BatchesArrived(3.0, 1, 1)])
    assert shown(progress, 3.0)[-1] == "  node 0 was lost: exit code 7 ...; another is launching"
    assert [status_text.trouble(each, 3.0) for each in progress.concerns(3.0)][1] == (
        f"was lost: {reason}; another is launching"
    )


def test_many_nodes_are_a_summary() -> None:
    progress = Progress()
    progress.add([replace(START, nodes=40), *(NodeChanged(1.0, node, 0, "booting") for node in range(40))])
    progress.add([NodeStep(1.0, 3, "packages"), NodeChanged(2.0, 0, 0, "ready", slots=1), NodeGivenUp(2.0, 1, "no")])
    assert shown(progress, 3.0)[1:] == [
        "     37  booting",
        "      1  booting: packages",
        "      1  ready",
        "      1  ended: given up",
        "  node 1 is given up: no",
    ]


def test_the_work_is_one_line() -> None:
    progress = run(BatchesArrived(2.0, 1200, 1200), BatchesSent(2.0, 0, 4, 1))
    assert shown(progress, 3.0) == ["skyward  0 tasks done, 1,200 queued or running · 2/2 slots busy"]
    progress.add([ended(float(at), *("returned",) * 100) for at in range(2, 8)])
    assert shown(progress, 8.0) == ["skyward  ██████░░░░░░  600/1,200 tasks · 0/2 slots busy · 100/s · 0:06 left"]
    progress.add([ended(8.0, "raised"), BatchRetried(8.0, 1, "x"), Spent(8.0, 1.5, 3.0)])
    assert shown(progress, 8.5)[0].endswith("· 91.1/s · 0:07 left · 1 raised · 1 retry · $1.50")


def test_how_many_there_are_is_said_as_soon_as_it_is_known() -> None:
    progress = run(TasksCounted(2.0, 1, 2000), BatchesArrived(2.0, 200, 200, 1), BatchesSent(2.0, 0, 4, 1))
    assert shown(progress, 3.0) == ["skyward  ░░░░░░░░░░░░  0/2,000 tasks · 2/2 slots busy"]
    progress.add([ended(7.0, *("returned",) * 100)])
    assert shown(progress, 7.0) == ["skyward  ░░░░░░░░░░░░  100/2,000 tasks · 0/2 slots busy · 20.0/s · 1:35 left"]
    progress.add([TasksCounted(7.0, 2, -1), BatchesArrived(7.0, 7, 7, 2)])
    assert shown(progress, 7.0) == ["skyward  100 tasks done, 107 queued or running · 0/2 slots busy · 20.0/s"]


def test_nodes_that_still_start_are_told_beside_the_work() -> None:
    progress = run(BatchesArrived(2.0, 4, 4), NodeChanged(2.0, 1, 0, "booting"))
    assert len(shown(progress, 3.0)) == 1
    begins = Progress()
    begins.add([START, NodeChanged(1.0, 0, 0, "ready", slots=2), NodeChanged(1.0, 1, 0, "booting")])
    begins.add([BatchesArrived(2.0, 4, 4)])
    assert shown(begins, 3.0)[1:] == ["skyward  1 of 2 nodes ready · aws · 0:03"]


def test_nothing_is_shown_where_there_is_nothing_to_wait_for() -> None:
    progress = run()
    assert shown(progress, 3.0) == []
    progress.add([BatchesArrived(3.0, 1, 1), ENDED])
    assert shown(progress, 3.0) == []


def test_what_is_not_right_is_said_with_what_is_done_about_it() -> None:
    progress = run(
        NodeChanged(2.0, 0, 0, "ending", "exit code 9"),
        NodeChanged(2.0, 1, 0, "ending", "exit code 9"),
        NodeChanged(2.0, 1, 1, "booting"),
        NodeSilent(2.0, 2, 30.0),
        NodeFacts(2.0, 3, 0, 0, 0.0, 50_000_000),
        NodeNoticed(2.0, 4, "in two minutes"),
        NodeNoticed(2.0, 5, "in two minutes"),
        nodes=6,
    )
    assert [status_text.plain(line) for line in status_text.troubles(progress, 12.0)] == [
        "  node 0 was lost: exit code 9",
        "  node 1 was lost: exit code 9; another is booting",
        "  node 2 has been silent for 10 s; its calls move to other nodes in 20 s",
        "  node 4 is about to be reclaimed: in two minutes",
        "  and 1 more leaving, 1 more full",
    ]
    progress.add([NodeChanged(13.0, 1, 1, "ready", slots=2)])
    texts = [status_text.trouble(each, 14.0) for each in progress.concerns(14.0)]
    assert texts[1] == "was lost: exit code 9; another is ready in its place"
    assert texts[-1] == "has 50 MB of memory left"


def test_a_slow_node_is_compared_with_the_others() -> None:
    three = ("returned",) * 3
    progress = run(BatchesArrived(2.0, 100, 100), ended(9.0, *three), ended(9.0, *three, node=1, seconds=20), nodes=2)
    assert [status_text.trouble(each, 9.0) for each in progress.concerns(9.0)] == [
        "is slow: 20 s a task, 0.50 s elsewhere"
    ]


def test_the_end_is_one_line_or_none() -> None:
    assert status_text.summary(run(ENDED)) == ""
    progress = run(BatchesArrived(2.0, 3, 3), ended(3.0, "returned", "returned", "raised"), ENDED, nodes=2)
    assert status_text.summary(progress) == "skyward: 3 tasks on 1 node in 1:30, 1 call raised"
    progress.add([*[BatchRetried(3.0, 1, "x")] * 2, BatchLost(3.0, 2, ("x",)), Spent(4.0, 0.25, 0.0)])
    assert status_text.summary(progress) == (
        "skyward: 3 tasks on 1 node in 1:30, 1 call raised, 1 call lost, 2 retries, $0.25 spent"
    )
    assert status_text.summary(run(BatchLost(3.0, 2, ("x",)), ENDED)) == "skyward: 0 tasks in 1:30, 1 call lost"


def test_the_end_says_what_slots_should_have_imported_before() -> None:
    slow = replace(ended(3.0, "returned", "returned"), opening=(2.0, 1.5), imports={"slow": 3.0})
    progress = run(BatchesArrived(2.0, 2, 2), slow, ENDED, nodes=2)
    assert status_text.summary(progress).splitlines() == [
        "skyward: 2 tasks on 1 node in 1:30",
        'skyward: slots spent 3.0 s importing slow: Image(preload=["slow"])',
    ]
