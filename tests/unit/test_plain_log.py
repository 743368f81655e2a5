"""What is said of a run where lines stay."""

from dataclasses import replace

from skyward.events import (
    BatchesArrived,
    DashboardOpened,
    Event,
    NodeChanged,
    NodeStep,
    Quoted,
    RunEnded,
    RunStarted,
    Spent,
)
from skyward.view.plain_log import PROGRESS_INTERVAL_S, PlainLog
from skyward.view.progress import Progress
from tests.unit.test_progress import ended, run

START = RunStarted(0.0, "r", "aws", 2, 2, 2, "process", "p.py", "1", "3.12")
QUOTE = Quoted(0.0, "2 x m in z: $1.00 an hour", "m", 2, 2.0)
READY: list[Event] = [NodeChanged(20.0, node, 0, "ready", "", "i", "h", 2) for node in range(2)]
BOOTING: list[Event] = [
    NodeChanged(1.0, 0, 0, "launching"),
    NodeChanged(1.0, 1, 0, "booting"),
    NodeStep(1.0, 1, "packages"),
]


def begun() -> Progress:
    progress = Progress()
    progress.add([START, QUOTE, *BOOTING])
    return progress


def test_in_short_a_price_is_said_and_a_start_only_if_it_takes_its_time() -> None:
    progress, bulletin = begun(), PlainLog(brief=True)
    assert bulletin.news(progress, 1.0) == ["skyward: 2 x m in z: $1.00 an hour"]
    assert bulletin.news(progress, 4.0) == []
    assert bulletin.news(progress, 6.0) == ["skyward: 0 of 2 nodes ready · aws · $2.00/h · 0:06, node 0 is launching"]
    assert bulletin.news(progress, 60.0) == []
    progress.add(READY)
    assert bulletin.news(progress, 62.0) == ["skyward: 2 nodes with 4 slots ready after 1:02"]
    assert bulletin.news(progress, 63.0) == []


def test_the_link_to_the_live_page_is_said_once() -> None:
    progress, bulletin = run(DashboardOpened(0.0, "http://here")), PlainLog(brief=True)
    assert bulletin.news(progress, 1.0) == ["skyward: watch it at http://here"]
    assert bulletin.news(progress, 2.0) == []


def test_in_short_nothing_is_said_of_a_run_that_costs_nothing_and_starts_at_once() -> None:
    progress, bulletin = run(BatchesArrived(2.0, 1, 1), NodeChanged(2.0, 0, 0, "ending", "lost")), PlainLog(brief=True)
    assert bulletin.news(progress, 30.0) == []
    progress.add([ended(31.0, "returned"), RunEnded(40.0, "", (), {})])
    assert bulletin.news(progress, 41.0) == []
    progress.add([Spent(41.0, 0.5, 0.0)])
    assert bulletin.news(progress, 42.0) == ["skyward: 1 task on 1 node in 0:40, $0.50 spent"]


def test_in_short_the_end_says_what_slots_should_have_imported_before() -> None:
    slow = replace(ended(31.0, "returned"), opening=(2.0,), imports={"slow": 2.0})
    progress, bulletin = run(BatchesArrived(2.0, 1, 1), slow), PlainLog(brief=True)
    assert bulletin.news(progress, 31.0) == []
    progress.add([RunEnded(40.0, "", (), {})])
    assert bulletin.news(progress, 41.0) == ['skyward: slots spent 2.0 s importing slow: Image(preload=["slow"])']


def test_at_length_the_start_is_told_every_ten_seconds() -> None:
    progress, bulletin = Progress(), PlainLog(brief=False)
    progress.add([START])
    assert bulletin.news(progress, 0.0) == ["skyward: 0 of 2 nodes ready · aws · 0:00"]
    progress.add(BOOTING)
    assert bulletin.news(progress, 1.0) == []
    assert bulletin.news(progress, PROGRESS_INTERVAL_S) == [
        "skyward: 0 of 2 nodes ready · aws · 0:10, node 0 is launching"
    ]
    progress.add(READY)
    assert bulletin.news(progress, 12.0) == ["skyward: 2 nodes with 4 slots ready after 0:12"]


def test_at_length_the_work_is_told_every_ten_seconds_if_it_goes_on() -> None:
    progress, bulletin = run(BatchesArrived(2.0, 4, 4)), PlainLog(brief=False)
    assert bulletin.news(progress, 2.0) == ["skyward: 1 node with 2 slots ready after 0:02"]
    assert bulletin.news(progress, 3.0) == []
    assert bulletin.news(progress, 12.0) == ["skyward: 0 tasks done, 4 queued or running · 0/2 slots busy"]
    assert bulletin.news(progress, 22.0) == []
    progress.add([ended(22.0, "returned")])
    assert bulletin.news(progress, 23.0) == ["skyward: 1/4 tasks · 0/2 slots busy · 12.0/min · 0:15 left"]


def test_at_length_each_trouble_is_told_once_and_the_end() -> None:
    progress, bulletin = run(), PlainLog(brief=False)
    bulletin.news(progress, 2.0)
    progress.add([NodeChanged(3.0, 0, 0, "ending", "exit code 9")])
    assert bulletin.news(progress, 4.0) == ["skyward: node 0 was lost: exit code 9"]
    assert bulletin.news(progress, 5.0) == []
    progress.add([RunEnded(9.0, "", (), {})])
    assert bulletin.news(progress, 9.0) == []
