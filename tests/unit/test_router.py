"""What the router does with the decisions of `routing`, which are in `test_routing.py`."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace

from skyward.actors import routing
from skyward.actors.call_table import CallTable
from skyward.actors.router import Router
from skyward.calls.completion import Answer
from tests.pending import Answers, outcome, pending


class Node:
    """Notes what a node is given, and what is asked back from it."""

    def __init__(self) -> None:
        self.assigned: list[int] = []
        self.revoked: list[tuple[int, bool]] = []

    def assign(self, batches: Sequence[int]) -> None:
        self.assigned += batches

    def revoke(self, batches: Sequence[int], *, kill: bool) -> None:
        self.revoked += [(batch, kill) for batch in batches]


class Pool:
    """A router with nodes that are not there."""

    def __init__(self) -> None:
        self.answers, self.drained, self.told = Answers(), list[int](), list[routing.RoutingEvent]()
        self.nodes: dict[int, Node] = {}
        self.calls = CallTable(None, 1, SimpleNamespace(put=lambda _: None))  # type: ignore[arg-type]
        self.router = Router(self.calls, self.nodes.get, self.drained.append, self.told.append)

    def join(self, number: int) -> Node:
        self.nodes[number] = Node()
        self.router.hear(routing.NodeUp(number, 1))
        return self.nodes[number]

    def submit(self, *numbers: int) -> None:
        calls = [pending(number, self.answers) for number in numbers]
        self.calls.add(calls, lambda _: None)
        self.router.hear(self.calls.arrive(calls))


def test_a_call_goes_to_a_node_and_its_answer_to_the_caller() -> None:
    pool = Pool()
    node = pool.join(0)
    pool.submit(1)
    assert node.assigned == [1]

    pool.calls.keep({1: Answer(outcome(1), 0)})
    pool.router.hear(routing.Answered(0, (1,), seconds=2.0))

    assert pool.answers.by_number() == {1: Answer(outcome(1), 0)}


def test_a_call_that_dies_with_its_node_is_tried_elsewhere_and_then_lost() -> None:
    pool = Pool()
    first = pool.join(0)
    pool.submit(1)
    del pool.nodes[0]
    pool.router.hear(routing.NodeDown(0, "node 0: it ended"))
    second = pool.join(1)
    assert (first.assigned, second.assigned) == ([1], [1])
    pool.router.hear(routing.NodeDown(1, "node 1: it ended"))

    assert isinstance(pool.answers.by_number()[1], Exception)
    assert pool.calls.futures() == []


def test_a_call_for_a_node_whose_connection_has_just_been_lost_waits_for_what_is_heard_of_it() -> None:
    pool = Pool()
    pool.join(0)
    del pool.nodes[0]
    pool.submit(1)

    assert pool.answers.ended == []


def test_a_cancelled_call_is_asked_back_and_killed() -> None:
    pool = Pool()
    node = pool.join(0)
    pool.submit(1)
    pool.router.hear(routing.Cancelled(pool.calls.forget([1])))

    assert node.revoked == [(1, True)]


def test_a_node_that_drains_and_holds_nothing_is_told_of() -> None:
    pool = Pool()
    pool.join(0)
    pool.router.hear(routing.Drain(0))

    assert pool.drained == [0]


def test_a_router_that_ends_leaves_no_timer() -> None:
    async def main() -> None:
        pool = Pool()
        pool.router._perform(routing.ScheduleRebalance())
        timer = pool.router._rebalance
        assert timer is not None
        pool.router.close()
        assert timer.cancelled()

    asyncio.run(main())
