"""What the agent answers, and what it has its slots do: actors of casty with an executor that does as it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from casty import ActorSystem

from skyward.remote.blobs import Blob
from skyward.remote.node import agent as agents
from skyward.remote.node import slot_state
from skyward.remote.node.agent import Agent
from skyward.remote.protocol import (
    Assign,
    Assigned,
    Batch,
    Beat,
    Collect,
    Collected,
    Look,
    Opening,
    Outcome,
    Request,
    Revoke,
    Revoked,
    RunningBatch,
    Seen,
)
from tests.kit import SOON


class Executor:
    """Notes what it is given; a test says how that ends."""

    def __init__(self) -> None:
        self.tell: dict[int, Callable[[slot_state.SlotEvent], None]] = {}
        self.sent: asyncio.Queue[tuple[int, tuple[int, ...]]] = asyncio.Queue()
        self.given: Mapping[int, float] = {}

    def start(self, slot: int, tell: Callable[[slot_state.SlotEvent], None]) -> None:
        self.tell[slot] = tell
        tell(slot_state.WorkerStarted())

    def stop(self, slot: int) -> None:
        asyncio.get_running_loop().call_soon(self.tell[slot], slot_state.WorkerExited("it was stopped"))

    def send(self, slot: int, batches: Sequence[Batch]) -> None:
        self.sent.put_nowait((slot, tuple(batch.id for batch in batches)))

    def take_back(self, slot: int) -> int:
        return 0

    async def stacks(self, within: float) -> dict[int, str]:
        return {0: "line 1"}


class Node:
    """An agent, and what it did."""

    def __init__(self) -> None:
        self.renewals = 0
        self.results: dict[int, Blob] = {}
        self.executor = Executor()
        self.agent = Agent(
            renew=self.renew,
            keep_result=self.results.__setitem__,
            drop_result=self.drop,
        )

    def renew(self) -> None:
        self.renewals += 1

    def drop(self, batch: int) -> None:
        self.results.pop(batch, None)

    def send(self, request: Request) -> asyncio.Future[Any]:
        """Send a request; return the answer to come."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        object.__setattr__(request, "reply_to", Reply(answer))
        self.agent.answer(request)
        return answer

    async def ask(self, request: Request) -> Any:
        async with asyncio.timeout(SOON):
            return await self.send(request)

    async def begun(self) -> tuple[int, int]:
        """Return the next slot that was given a batch, and that batch."""
        async with asyncio.timeout(SOON):
            slot, (batch,) = await self.executor.sent.get()
            return slot, batch

    def end(self, slot: int, batch: int, payload: bytes = b"value", **more: Any) -> None:
        """Have a batch complete, as the executor tells it."""
        self.agent.keep(Outcome(batch, "returned", payload, 0.1, slot), **more)
        self.executor.tell[slot](slot_state.Finished((batch,), seconds=0.1))

    async def run(self, *batches: Batch, number: int = 1) -> None:
        await self.ask(assign(number, *batches))
        for _ in batches:
            self.end(*await self.begun())


class Reply:
    def __init__(self, answer: asyncio.Future[Any]) -> None:
        self.answer = answer

    def tell(self, said: Any) -> None:
        self.answer.set_result(said)


@asynccontextmanager
async def node(slots: int = 1) -> AsyncIterator[Node]:
    made = Node()
    async with ActorSystem() as system:
        await made.agent.open(system, made.executor, slots)
        yield made


def assign(number: int, *batches: Batch, functions: Mapping[str, bytes] | None = None, forget: Any = ()) -> Assign:
    return Assign(number, batches, functions or {}, forget)


def batch(number: int, timeout: float | None = None) -> Batch:
    return Batch(number, b"call", timeout=timeout)


def test_an_agent_is_open_when_every_slot_has_a_worker() -> None:
    async def run() -> None:
        async with node(slots=3) as opened:
            facts = await opened.ask(Beat())
            assert (facts.slots, facts.queued, facts.running, facts.notice) == (3, 0, 0, "")
            assert sorted(opened.executor.tell) == [0, 1, 2]

    asyncio.run(run())


def test_each_batch_runs_and_its_outcome_is_kept_until_it_is_acknowledged() -> None:
    async def run() -> None:
        async with node() as opened:
            assert await opened.ask(assign(1, batch(1), batch(2))) == Assigned()
            facts = await opened.ask(Beat())
            assert (facts.queued, facts.running) == (1, 1)
            for _ in range(2):
                opened.end(*await opened.begun())
            first = await opened.ask(Collect(0, SOON))
            again = await opened.ask(Collect(0, SOON))
            assert first.outcomes[0] == again.outcomes[0] == Outcome(1, "returned", b"value", 0.1, 0)
            (second,) = (await opened.ask(Collect(1, SOON))).outcomes
            assert second.batch == 2
            assert await opened.ask(Collect(2, 0.0)) == Collected(2, ())
            assert opened.agent.batches == {}
            assert opened.renewals == 6

    asyncio.run(run())


def test_a_request_for_outcomes_is_answered_empty_after_its_time() -> None:
    async def run() -> None:
        async with node() as opened:
            assert await opened.ask(Collect(0, 0.0)) == Collected(0, ())

    asyncio.run(run())


def test_a_command_that_is_repeated_is_answered_and_not_carried_out_again() -> None:
    async def run() -> None:
        async with node() as opened:
            for _ in range(2):
                assert await opened.ask(assign(1, batch(1), batch(2))) == Assigned()
            for _ in range(2):
                assert await opened.ask(Revoke(2, (1, 2), kill=False)) == Revoked((2,))
            assert not opened.send(Revoke(1, (1,), kill=False)).done()  # it is late: nobody waits for it
            assert await opened.begun() == (0, 1)
            assert opened.executor.sent.empty()

    asyncio.run(run())


def test_functions_are_those_of_the_last_assignments() -> None:
    async def run() -> None:
        async with node() as opened:
            held = opened.agent.functions
            await opened.ask(assign(1, functions={"a": b"1", "b": b"2"}))
            await opened.ask(assign(2, functions={"c": b"3"}, forget=("a", "missing")))
            assert held == {"b": b"2", "c": b"3"}

    asyncio.run(run())


def test_what_takes_long_or_is_large_travels_beside_the_outcome() -> None:
    async def run() -> None:
        async with node() as opened:
            await opened.ask(assign(1, batch(1)))
            opening, result = Opening(1.0, {"numpy": 0.5}), Blob.of([b"large"])
            opened.end(*await opened.begun(), b"", result=result, opening=opening)
            collected = await opened.ask(Collect(0, SOON))
            assert collected.openings == {1: opening}
            assert opened.results == {1: result}
            await opened.ask(Collect(1, 0.0, fetched=(1, 7)))
            assert opened.results == {}

    asyncio.run(run())


def test_an_answer_has_as_many_outcomes_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "MAX_ANSWER_BYTES", 7)

    async def run() -> None:
        async with node() as opened:
            for number in (1, 2, 3):
                await opened.run(batch(number), number=number)
            number, found = 0, []
            while number < 3:
                collected = await opened.ask(Collect(number, SOON))
                number = collected.number
                assert len(collected.outcomes) in (1, 2)
                found += [each.batch for each in collected.outcomes]
            assert found == [1, 2, 3]

    asyncio.run(run())


@pytest.mark.parametrize(("timeout", "kill", "status"), [(0.0, False, "overdue"), (None, True, "killed")])
def test_a_batch_whose_time_is_up_or_that_is_not_wanted_is_stopped(
    timeout: float | None, kill: bool, status: str
) -> None:
    async def run() -> None:
        async with node() as opened:
            await opened.ask(assign(1, batch(1, timeout)))
            if kill:
                assert await opened.ask(Revoke(2, (1,), kill=True)) == Revoked(())
            (outcome,) = (await opened.ask(Collect(0, SOON))).outcomes
            assert replace(outcome, seconds=0.0) == Outcome(1, status, b"it was stopped", 0.0, 0)

    asyncio.run(run())


def test_a_batch_dies_with_its_worker_and_the_next_one_runs_on_a_new_worker() -> None:
    async def run() -> None:
        async with node() as opened:
            await opened.ask(assign(1, batch(1), batch(2)))
            await opened.begun()
            opened.executor.tell[0](slot_state.WorkerExited("a signal"))
            assert await opened.begun() == (0, 2)
            (outcome,) = (await opened.ask(Collect(0, SOON))).outcomes
            assert replace(outcome, seconds=0.0) == Outcome(1, "died", b"a signal", 0.0, 0)

    asyncio.run(run())


def test_the_stacks_of_running_batches_are_reported() -> None:
    async def run() -> None:
        async with node(slots=2) as opened:
            await opened.ask(assign(1, batch(1), batch(2)))
            slots = dict([await opened.begun() for _ in range(2)])
            silent = "its slot did not report its stack within 1 s"
            expected = Seen((RunningBatch(0, slots[0], 0.0, "line 1"), RunningBatch(1, slots[1], 0.0, silent)))
            assert await opened.ask(Look()) == expected

    asyncio.run(run())
