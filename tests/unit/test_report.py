"""What a report says, and that it adds up."""

import copy
import html
import json
import pickle
from collections.abc import Callable
from dataclasses import astuple, replace

import pytest

from skyward.errors import NoCompute
from skyward.telemetry.report import LostTime, NodeUse, Report, apportioned, import_hint, without_slot

NODES = {0: NodeUse(2, 30, (4.5, 4.0), 1_500_000, 200), 1: NodeUse(2, 10, (4.0, 3.5), 500_000, 100)}
LOST = apportioned(LostTime(start=0.4, serialization=0.2, opening=0.2, idle=0.8, tail=1.2, link=1.2), 20.0)
REPORT = Report(
    tasks=80,
    calls=40,
    lost_calls=1,
    cancelled=2,
    attempts=45,
    retries={"node 0: exit code 3": 2, "node 1: lost": 1},
    late=1,
    nodes=NODES,
    total=5.0,
    capacity=20.0,
    work=16.0,
    lost=LOST,
    starts={0: (("launching", 0.5), ("booting", 1.25)), 1: (("launching", 0.5), ("booting", 1.0))},
    raised=3,
    retried={"node 0: exit code 3": ("train, task 7",)},
)
NOTHING = replace(REPORT, tasks=0, nodes={}, starts={}, total=0.0, capacity=0.0, work=0.0, lost=LostTime())


def test_what_was_work_and_what_was_lost_add_up_to_everything() -> None:
    assert REPORT.efficiency == pytest.approx(0.8)
    assert REPORT.efficiency + sum(astuple(LOST)) == pytest.approx(1.0)


def test_what_nodes_did_is_added_up() -> None:
    assert (REPORT.slots, REPORT.busy, REPORT.sent, REPORT.received) == (4, 16.0, 2_000_000, 300)


def test_it_reads_as_the_guide_prints_it() -> None:
    assert str(REPORT).splitlines() == [
        "Tasks: 80",
        "Nodes: 2",
        "Concurrency: 2",
        "Effective workers: 4",
        "Total time: 5.00 s",
        "Throughput: 16.0 tasks/s",
        "Ideal time: 4.00 s",
        "Efficiency: 80.0%",
        "Raised: 3 calls",
        "Lost: 1 call",
    ]
    assert str(replace(REPORT, raised=0, lost_calls=0)).splitlines()[-1] == "Efficiency: 80.0%"


def test_it_has_the_cost_where_there_is_one() -> None:
    assert str(replace(REPORT, cost=0.0240, machines=10)).splitlines()[-1] == "Cost: $0.024 for 10 machines"
    assert str(replace(REPORT, cost=12.5, machines=10)).splitlines()[-1] == "Cost: $12.50 for 10 machines"


def test_it_survives_a_way_through_json() -> None:
    assert Report.from_dict(json.loads(json.dumps(REPORT.as_dict()))) == REPORT


def test_it_explains_where_the_rest_went() -> None:
    assert REPORT.explain().splitlines() == [
        "Time not spent on work: start 2.00%, serialization 1.00%, opening 1.00%, idle 4.00%, tail 6.00%, link 6.00%",
        "Calls: 40 answered (3 raised), 1 lost, 2 cancelled",
        "Attempts: 45, retries: 3, late answers: 1",
        "  2 x node 0: exit code 3: train, task 7 and 1 more",
        "  1 x node 1: lost",
        "Sent: 2.0 MB, received: 0.0 MB",
        "Start of node 0, the slowest of 2: 1.75 s: launching 0.50 s, booting 1.25 s",
    ]
    alone = replace(REPORT, starts={3: (("launching", 0.5),)})
    assert alone.explain().splitlines()[-1] == "Start of node 3: 0.50 s: launching 0.50 s"
    assert "Start" not in NOTHING.explain()


def test_a_notebook_shows_figures_and_shares() -> None:
    shown = REPORT._repr_html_()
    assert ">Efficiency</div>80.0%</div>" in shown
    assert "work 80.0%" in shown
    assert "1 x node 1: lost" in shown
    assert dict(REPORT.shares())["start"] == pytest.approx(0.02)
    assert "idle" not in NOTHING._repr_html_().partition("<details>")[0]


def test_it_says_what_nodes_shared() -> None:
    alike = replace(REPORT, nodes={number: replace(node, shared=72_000_000) for number, node in NODES.items()})
    assert "Shared: 72.0 MB per node, 144.0 MB on 2 nodes" in alike.explain().splitlines()
    one = replace(REPORT, nodes=NODES | {0: replace(NODES[0], shared=1_500_000)})
    assert "Shared: 1.5 MB on 1 node" in one.explain().splitlines()
    unlike = replace(alike, nodes={**alike.nodes, 2: replace(NODES[0], shared=5_000_000)})
    assert "Shared: 149.0 MB on 3 nodes" in unlike.explain().splitlines()
    assert "Shared" not in REPORT.explain()


def test_it_says_what_slots_should_have_imported_before() -> None:
    told, hint = (
        replace(REPORT, imports={"slow": 10.0}),
        'Hint: slots spent 10 s importing slow: Image(preload=["slow"])',
    )
    assert str(told).splitlines() == [*str(REPORT).splitlines(), hint]
    assert told.explain() == REPORT.explain()
    assert "<p " not in REPORT._repr_html_()
    assert f">{html.escape(hint)}</p><details>" in told._repr_html_()


@pytest.mark.parametrize(
    ("imports", "work", "hint"),
    [
        ({"slow": 1.25}, 2.0, 'slots spent 1.2 s importing slow: Image(preload=["slow"])'),
        (
            {"sklearn": 4.0, "pandas": 7.0, "sklearn.svm": 5.0, "tiny": 0.1},
            0.0,
            'slots spent 16 s importing pandas, sklearn: Image(preload=["pandas", "sklearn.svm"])',
        ),
        ({"slow": 0.9}, 0.1, ""),
        ({"slow": 4.0}, 100.0, ""),
        ({}, 0.0, ""),
    ],
    ids=["one", "several", "short", "nothing beside the work", "none"],
)
def test_the_modules_are_named_that_took_nearly_all_of_it(imports: dict[str, float], work: float, hint: str) -> None:
    assert import_hint(imports, work) == hint


def test_machines_that_were_left_to_their_lease_are_named() -> None:
    told = replace(REPORT, left={"gpu-box/p-0-0": 299.6, "node-7/p-1-0": 0.0}).explain().splitlines()

    assert told[-2:] == [
        "No answer at shutdown: gpu-box/p-0-0; its lease expires in 300 s",
        "No answer at shutdown: node-7/p-1-0; its lease has expired",
    ]


def test_nodes_of_several_sizes_give_a_range_and_those_given_up_do_not_count() -> None:
    several = {number: NodeUse(slots, 0, (), 0, 0) for number, slots in enumerate((4, 8, 2, 0))}
    lines = str(replace(REPORT, nodes=several)).splitlines()
    assert lines[1:4] == ["Nodes: 3", "Concurrency: 2-8", "Effective workers: 14"]


def test_a_pool_that_did_nothing_has_a_report_of_zeros() -> None:
    assert (NOTHING.throughput, NOTHING.efficiency, NOTHING.ideal) == (0.0, 0.0, 0.0)
    assert "Concurrency: 0" in str(NOTHING)
    assert apportioned(LostTime(start=1.0), 0.0) == LostTime()


def test_it_comes_back_from_a_dict_whatever_a_newer_one_knows() -> None:
    given = json.loads(json.dumps(REPORT.as_dict() | {"moons": 3}))
    assert Report.from_dict(given) == REPORT
    del given["starts"], given["left"], given["retried"], given["imports"]
    assert Report.from_dict(given) == replace(REPORT, starts={}, left={}, retried={})


def test_it_is_saved_by_who_knows_the_events() -> None:
    saved: list[object] = []
    known = replace(REPORT, _saving=lambda report, path: saved.extend((report, path)))
    known.save("run.html")
    assert saved == [REPORT, "run.html"]
    assert known == REPORT
    assert repr(known) == repr(REPORT)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda report: pickle.loads(pickle.dumps(report))])
def test_a_copy_is_equal_but_cannot_be_saved(copied: Callable[[Report], Report]) -> None:
    copy_of_it = copied(replace(REPORT, _saving=lambda report, path: None))
    assert copy_of_it == REPORT
    with pytest.raises(NoCompute, match="without the events of its run"):
        copy_of_it.save("run.html")


def test_equal_deaths_on_a_node_have_one_reason_whatever_their_slot() -> None:
    deaths = [
        "slot 0 of node 1: killed by signal 9",
        "slot 3 of node 1: killed by signal 9",
        "node 1: not heard for 30 s",
    ]
    assert {*map(without_slot, deaths)} == {"node 1: killed by signal 9", "node 1: not heard for 30 s"}
