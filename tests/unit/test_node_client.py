"""What a node is sent for its calls, and what becomes of what it answers; over a real wire it is in `tests/pool`."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from skyward.actors import node_client, routing
from skyward.actors.call_table import CallTable
from skyward.actors.node_client import NodeClient
from skyward.actors.routing import Answered, Died, GaveBack
from skyward.calls.completion import Answer
from skyward.events import BatchesEnded, BatchesReturned, BatchesSent, NodeFacts
from skyward.remote.protocol import (
    Assign,
    Assigned,
    Batch,
    Collect,
    Collected,
    Facts,
    Revoke,
    Revoked,
)
from skyward.remote.serialization.packer import Packed
from tests.pending import Answers, outcome, pending

NODE = 3


class Line:
    """A connection to a node that answers commands as it is told, and `Collect` when there is news."""

    def __init__(self, **callbacks: Any) -> None:
        self.callbacks = callbacks
        self.round_trip = 0.01
        self.commands: list[Any] = []
        self.collects: list[Collect] = []
        self.news: asyncio.Queue[Collected] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self.revoked: deque[tuple[int, ...]] = deque()

    async def open(self, timeout: float) -> None: ...

    async def close(self) -> None: ...

    async def watch(self) -> None:
        await asyncio.Event().wait()

    async def ask(self, message: Any, deadline: float) -> Any:
        if isinstance(message, Collect):
            self.collects.append(message)
            return await self.news.get()
        self.commands.append(message)
        await self.gate.wait()
        return Assigned() if isinstance(message, Assign) else Revoked(self.revoked.popleft())


class Client:
    """A client of a node, its line, and what it says to whom."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.told: list[routing.RoutingEvent] = []
        self.notices: list[str] = []
        self.broken: list[str] = []
        record: Any = SimpleNamespace(put=self.events.append)
        self.calls = CallTable(None, 2, record)
        self.calls.account(routing.NodeUp(NODE, 2))
        self.answers = Answers()
        self.client = NodeClient(
            NODE,
            connect=self._connect,
            calls=self.calls,
            bundles={"own": b"module"},
            record=record,
            tell=self.told.append,
            store_size=None,
            heard=lambda _: None,
            noticed=self.notices.append,
            broken=self.broken.append,
        )

    def _connect(self, to: object, **callbacks: Any) -> Any:
        self.line = Line(**callbacks)
        return self.line

    def add(self, number: int, packed: Packed | None = None, **known: Any) -> None:
        """A caller sends a call."""
        self.calls.add([pending(number, self.answers, packed, **known)], lambda _: None)


def run(story: Callable[[Client], Awaitable[None]]) -> Client:
    """The client after the story, which is told while it is open."""

    async def main() -> Client:
        client = Client()
        await client.client.open(1.0)
        await settle()
        await story(client)
        await client.client.close()
        return client

    return asyncio.run(main())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_what_is_assigned_at_once_goes_in_one_message() -> None:
    async def assign(client: Client) -> None:
        for number in (1, 2, 3):
            client.add(number)
        client.client.assign([1, 2])
        client.client.assign([3])
        await settle()

    client = run(assign)

    assert client.line.commands == [Assign(1, tuple(Batch(number, b"call") for number in (1, 2, 3)), {}, ())]
    assert [event.batches for event in client.events if isinstance(event, BatchesSent)] == [3]


def test_a_function_by_value_is_sent_once() -> None:
    async def assign(client: Client) -> None:
        for number in (1, 2):
            client.add(number, Packed(b"call", {"f": b"code"}, modules=("own",)))
            client.client.assign([number])
            await settle()

    first, second = run(assign).line.commands

    assert first.functions == {"f": b"code", "own": b"module"}
    assert second.functions == {}
    assert first.batches[0].functions == second.batches[0].functions == ("f", "own")


def test_a_function_that_no_call_needs_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_client, "MAX_FUNCTION_BYTES", 4)

    async def assign(client: Client) -> None:
        for number, name in ((1, "f"), (2, "g")):
            client.add(number, Packed(b"call", {name: b"code"}))
            client.client.assign([number])
            await settle()
            client.line.news.put_nowait(Collected(number, (outcome(number),)))
            await settle()

    assert [each.forget for each in run(assign).line.commands] == [(), ("f",)]


def test_what_is_large_together_goes_in_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_client, "MAX_ASSIGN_BYTES", 8)

    async def assign(client: Client) -> None:
        for number in range(5):
            client.add(number)
        client.client.assign(range(5))
        await settle()

    commands = run(assign).line.commands

    assert [[batch.id for batch in each.batches] for each in commands] == [[0, 1], [2, 3], [4]]
    assert [each.number for each in commands] == [1, 2, 3]


def test_commands_go_one_at_a_time_and_in_order() -> None:
    async def revoke(client: Client) -> None:
        client.add(1)
        client.add(2)
        client.line.gate.clear()
        client.line.revoked.append((1,))
        client.client.assign([1])
        client.client.revoke([1], kill=True)
        client.client.assign([2])
        await settle()
        assert len(client.line.commands) == 1
        client.line.gate.set()
        await settle()

    client = run(revoke)

    assert client.line.commands[1] == Revoke(2, (1,), True)
    assert [type(each) for each in client.line.commands] == [Assign, Revoke, Assign]
    assert client.told == [GaveBack(NODE, (1,), (1,))]
    assert [event.batches for event in client.events if isinstance(event, BatchesReturned)] == [1]


def test_a_call_that_is_cancelled_before_it_is_sent_is_given_back() -> None:
    async def assign(client: Client) -> None:
        client.add(1)
        client.add(2)
        client.client.assign([1, 2])
        client.calls.forget([1])
        await settle()

    client = run(assign)

    assert [[batch.id for batch in each.batches] for each in client.line.commands] == [[2]]
    assert client.told == [GaveBack(NODE, (1,), (1,), (1,))]


def test_answers_are_kept_until_the_router_settles_them() -> None:
    async def answer(client: Client) -> None:
        client.add(1)
        client.line.news.put_nowait(Collected(1, (outcome(1),)))
        await settle()
        assert client.answers.ended == []
        client.calls.settle([1])

    client = run(answer)

    assert client.told == [Answered(NODE, done=(1,), seconds=2.0)]
    assert client.answers.by_number() == {1: Answer(outcome(1), NODE)}


def test_what_was_killed_or_died_is_told_apart() -> None:
    outcomes = outcome(1, "killed"), outcome(2, "died", b"it was killed by signal 9", slot=1)

    async def answer(client: Client) -> None:
        client.line.news.put_nowait(Collected(2, outcomes))
        await settle()

    client = run(answer)

    died = Died(2, f"slot 1 of node {NODE}: it was killed by signal 9")
    assert client.told == [Answered(NODE, killed=(1,), died=(died,))]
    (ended,) = [event for event in client.events if isinstance(event, BatchesEnded)]
    assert ended.statuses == ("killed", "died")


def test_a_call_that_was_cancelled_meanwhile_has_its_name_and_tasks_when_it_ends() -> None:
    async def cancel(client: Client) -> None:
        client.add(1, name="train", tasks=3, first=6)
        client.client.assign([1])
        await settle()
        client.calls.forget([1])
        client.line.news.put_nowait(Collected(1, (outcome(1, "killed"),)))
        await settle()

    (ended,) = [event for event in run(cancel).events if isinstance(event, BatchesEnded)]

    assert (ended.functions, ended.tasks, ended.firsts) == (("train",), (3,), (6,))


def test_outcomes_that_come_again_are_taken_once_and_acknowledged() -> None:
    async def answer(client: Client) -> None:
        for number in (1, 2):
            client.add(number)
        first = Collected(1, (outcome(1),))
        for news in (first, first, Collected(2, (outcome(1), outcome(2)))):
            client.line.news.put_nowait(news)
        await settle()

    client = run(answer)

    assert [event.done for event in client.told if isinstance(event, Answered)] == [(1,), (2,)]
    assert [collect.after for collect in client.line.collects] == [0, 1, 1, 2]


def test_the_router_is_told_of_a_round_trip_that_has_changed_by_a_tenth() -> None:
    async def measure(client: Client) -> None:
        for seconds in (0.1, 0.105, 0.2):
            client.line.callbacks["measured"](seconds)

    assert run(measure).told == [routing.Measured(NODE, 0.1), routing.Measured(NODE, 0.2)]


def test_a_notice_of_the_node_is_passed_on_and_its_facts_are_noted() -> None:
    async def say(client: Client) -> None:
        client.line.callbacks["said"](Facts(2, 5, 1, 0.5, 1 << 30, "terminate"))

    client = run(say)

    assert client.notices == ["terminate"]
    (facts,) = [event for event in client.events if isinstance(event, NodeFacts)]
    assert (facts.queued, facts.running) == (5, 1)


def test_an_error_in_a_loop_breaks_the_node() -> None:
    async def break_it(client: Client) -> None:
        client.line.news.put_nowait(None)  # type: ignore[arg-type]
        await settle()

    (reason,) = run(break_it).broken

    assert reason.startswith("the link to it failed: AttributeError")
