"""What a run has done is counted from its events, once for the report, the console and the page."""

from dataclasses import replace

import pytest

from skyward.events import (
    BatchesCancelled,
    BatchesEnded,
    BatchesLate,
    BatchesSent,
    BatchLost,
    BatchRetried,
    Event,
    NodeHeard,
    ResultsLost,
    RunEnded,
)
from skyward.telemetry.report import LostTime, Report
from skyward.telemetry.run_counts import MAX_CAUSES, MAX_NAMED_CALLS, OTHER_CAUSES, RunCounts


def counts(*events: Event) -> RunCounts:
    made = RunCounts()
    for event in events:
        made.add(event)
    return made


def ended(at: float, *statuses: str, slots: tuple[int, ...] = (), tasks: int = 1, seconds: float = 0.5) -> BatchesEnded:
    count = len(statuses)
    slots = slots or (0,) * count
    return BatchesEnded(at, 0, (0,) * count, slots, (seconds,) * count, statuses, (tasks,) * count, 10)


def test_what_raised_is_answered_too_and_what_died_is_not() -> None:
    found = counts(ended(3.0, "returned", "raised", "overdue", "died", "killed", tasks=2))
    assert (found.calls, found.tasks, found.raised, found.work, found.answered) == (3, 6, 2, 1.5, 3.0)
    found.add(ended(4.0, "died"))
    assert (found.calls, found.answered) == (3, 3.0)


def test_a_node_s_figures_are_added_up_by_slot() -> None:
    found = counts(
        BatchesSent(1.0, 0, 2, 700),
        ended(2.0, "returned", "died", "returned", slots=(0, 1, 0)),
        ended(3.0, "killed", slots=(-1,), seconds=0.0),
        ended(4.0, "returned", slots=(1,), tasks=3),
    )
    node = found.nodes[0]
    assert (node.calls, node.tasks, node.sent, node.received) == (4, 5, 700, 30)
    assert (node.busy, node.last) == ({0: 1.0, 1: 1.0}, {0: 2.0, 1: 4.0})


def test_openings_and_imports_are_added_up() -> None:
    slow = replace(ended(3.0, "returned", "died"), opening=(2.0, 0.5), imports={"a": 2.0, "b": 0.5})
    found = counts(slow, replace(slow, imports={"a": 1.0}))
    assert (found.opening, found.imports) == (5.0, {"a": 3.0, "b": 0.5})


@pytest.mark.parametrize(("kind", "late"), [(BatchesLate, 1), (ResultsLost, 0)])
def test_an_answer_that_the_caller_did_not_get_does_not_count(kind: type[BatchesLate | ResultsLost], late: int) -> None:
    found = counts(ended(3.0, "returned", "raised", tasks=3), kind(4.0, 0, 1, 3, 1, 0.5))
    assert (found.calls, found.tasks, found.raised, found.work, found.late) == (1, 3, 0, 0.5, late)


def test_lost_and_cancelled_calls_are_counted() -> None:
    found = counts(BatchLost(3.0, 9, ("x", "y"), 4), BatchesCancelled(4.0, 2), NodeHeard(5.0, 0))
    assert (found.lost, found.cancelled, found.calls) == (1, 2, 0)


def test_retries_are_counted_by_cause_and_the_first_calls_named() -> None:
    named = [BatchRetried(1.0, 0, "exit code 1", 0, f"train, task {number}") for number in range(MAX_NAMED_CALLS + 2)]
    found = counts(*named, BatchRetried(1.0, 0, "silent"))
    assert found.retries == {"exit code 1": MAX_NAMED_CALLS + 2, "silent": 1}
    assert found.retried == {"exit code 1": [f"train, task {number}" for number in range(MAX_NAMED_CALLS)]}


def test_of_many_causes_the_last_ones_count_together() -> None:
    causes = [*(f"cause {number}" for number in range(MAX_CAUSES)), "cause 0", "one more", "and another"]
    found = counts(*(BatchRetried(1.0, 0, cause, 0, "train, task 1") for cause in causes))
    assert found.retries == dict.fromkeys(causes[:MAX_CAUSES], 1) | {"cause 0": 2, OTHER_CAUSES: 2}
    assert found.retried.keys() == set(causes[:MAX_CAUSES])


def test_retries_for_the_same_reason_on_a_node_count_together_whatever_their_slot() -> None:
    found = counts(*(BatchRetried(1.0, 0, f"slot {slot} of node 0: exit code 1", 0, "f") for slot in range(2)))
    assert (found.retries, found.retried) == ({"node 0: exit code 1": 2}, {"node 0: exit code 1": ["f", "f"]})


def test_the_final_report_counts_as_a_record_may_be_incomplete() -> None:
    report = Report(8, 6, 2, 1, 9, {"x": 1}, 4, {}, 1.0, 1.0, 1.0, LostTime(), raised=3)
    found = counts(ended(3.0, "raised"), RunEnded(4.0, "", (), report.as_dict()), RunEnded(4.0, "", (), {}))
    assert (found.tasks, found.calls, found.raised, found.lost) == (8, 6, 3, 2)
    assert (found.cancelled, found.late, found.retries) == (1, 4, {"x": 1})
