"""The calls of a pool: who may add one, and what its caller is told."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

import skyward as sky
from skyward.actors import routing
from skyward.actors.call_table import CallTable
from skyward.calls.completion import Answer, PendingCall
from skyward.events import BatchesArrived, BatchesCancelled, BatchesLate, BatchLost, BatchRetried
from tests.pending import Answers, outcome, pending


class Table(CallTable):
    """A table, what it has noted, and what callers were told."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.answers = Answers()
        self.sent: list[Sequence[PendingCall]] = []
        super().__init__(None, 2, SimpleNamespace(put=self.events.append))  # type: ignore[arg-type]

    def take(self, *numbers: int, **known: Any) -> list[PendingCall]:
        """Add calls with these numbers."""
        calls = [pending(number, self.answers, **known) for number in numbers]
        self.add(calls, self.sent.append)
        return calls


@pytest.fixture
def table() -> Table:
    return Table()


def test_a_call_is_there_from_when_it_is_sent_until_it_is_answered(table: Table) -> None:
    calls = table.take(1, 2)

    assert table.sent == [calls]
    assert table.used
    assert table.get(1) is calls[0]
    assert table.futures() == [call.future for call in calls]
    table.keep({1: Answer(outcome(1), 0)})
    table.settle([1])
    assert table.get(1) is None
    assert table.answers.by_number() == {1: Answer(outcome(1), 0)}
    assert table.futures() == [calls[1].future]


def test_a_call_whose_sending_is_interrupted_is_not_kept(table: Table) -> None:
    def interrupt(calls: object) -> NoReturn:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table.add([pending(1, table.answers)], interrupt)
    assert table.futures() == []
    assert not table.used


def test_a_pool_that_has_failed_says_so_to_who_waits_and_to_who_comes(table: Table) -> None:
    table.take(1)
    error = sky.NodeError("node 0: broken")
    table.fail(error)

    assert table.answers.by_number() == {1: error}
    with pytest.raises(sky.PoolFailed, match="the pool has failed: node 0: broken"):
        table.take(2)


def test_a_budget_that_is_spent_is_raised_as_itself(table: Table) -> None:
    table.fail(sky.BudgetExceeded("budget=1: it is spent"))

    with pytest.raises(sky.BudgetExceeded, match="budget=1"):
        table.take(1)


def test_a_pool_that_closes_takes_no_calls_and_fails_those_that_are_left(table: Table) -> None:
    table.take(1)
    table.refuse()

    with pytest.raises(sky.NoCompute, match="the pool was closed"):
        table.take(2)
    table.close()
    assert isinstance(table.answers.by_number()[1], sky.NoCompute)


def test_the_router_is_told_numbers_sizes_and_options(table: Table) -> None:
    calls = table.take(1, 2, size=7, tasks=3)

    assert table.arrive(calls) == routing.Submitted((1, 2), 0, None, None, 2, (7, 7))
    (event,) = table.events
    assert isinstance(event, BatchesArrived)
    assert (event.batches, event.tasks) == (2, 6)


def test_only_calls_that_were_not_answered_are_cancelled(table: Table) -> None:
    table.take(1, 2)
    table.keep({1: Answer(outcome(1), 0)})
    table.settle([1])

    assert table.forget([1, 2]) == (2,)


def test_an_answer_to_a_call_that_was_cancelled_is_late(table: Table) -> None:
    table.take(1)
    table.keep({1: Answer(outcome(1, "raised"), 4, tasks=3)})
    table.forget([1])
    table.settle([1])

    assert table.answers.ended == []
    (late,) = table.events
    assert isinstance(late, BatchesLate)
    assert (late.node, late.batches, late.tasks, late.raised) == (4, 1, 3, 1)


def test_of_two_answers_only_that_of_the_late_node_is_discarded(table: Table) -> None:
    table.take(1)
    table.keep({1: Answer(outcome(1), 5)})
    table.discard_late(4, [1])
    table.settle([1])

    assert table.answers.by_number() == {1: Answer(outcome(1), 5)}
    table.keep({2: Answer(outcome(2), 4)})
    table.discard_late(4, [2])
    table.settle([2])
    assert len(table.answers.ended) == 1


def test_a_call_that_is_tried_again_counts_its_attempts(table: Table) -> None:
    (call,) = table.take(1, name="train")
    table.retry(1, "node 0 is gone", 0)

    assert call.attempt == 2
    (event,) = table.events
    assert isinstance(event, BatchRetried)
    assert (event.cause, event.node, event.call) == ("node 0 is gone", 0, call.label)


def test_a_call_that_is_lost_tells_its_caller_each_cause(table: Table) -> None:
    table.take(1)
    table.lose(1, ["node 0 is gone", "node 1 is gone"])

    error = table.answers.by_number()[1]
    assert isinstance(error, sky.BatchLost)
    assert error.causes == ("node 0 is gone", "node 1 is gone")
    assert [type(event) for event in table.events] == [BatchLost]
    table.lose(1, ["again"])
    assert len(table.answers.ended) == 1


def test_what_the_router_was_told_is_accounted_for(table: Table) -> None:
    for event in (
        routing.NodeUp(0, 2),
        table.arrive(table.take(1, 2, began=1.0, packing=0.5)),
        routing.Cancelled((1, 2)),
        routing.NodeRemoved(0, "it is gone"),
    ):
        table.decide(event)
        table.account(event)
    table.stop_accounting()

    report = table.report()
    assert (report.cancelled, report.nodes[0].slots) == (2, 0)
    assert [event.batches for event in table.events if isinstance(event, BatchesCancelled)] == [2]
