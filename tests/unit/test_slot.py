"""What a slot has the executor do, and what it reports. Which event follows which is in `test_slot_state`."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest

from skyward.remote import failure_line
from skyward.remote.node import scheduler, slot_state
from skyward.remote.node.slot import Slot
from skyward.remote.protocol import Batch, Outcome

BATCHES = {number: Batch(number, b"call") for number in range(1, 5)}


class Executor:
    """Notes what the slot wants; its worker is what `tell` says."""

    def __init__(self, unstarted: int = 0) -> None:
        self.done: list[tuple[object, ...]] = []
        self.tell: Callable[[slot_state.SlotEvent], None]
        self.unstarted = unstarted

    def start(self, slot: int, tell: Callable[[slot_state.SlotEvent], None]) -> None:
        self.done.append(("start", slot))
        self.tell = tell

    def stop(self, slot: int) -> None:
        self.done.append(("stop", slot))

    def send(self, slot: int, batches: Sequence[Batch]) -> None:
        self.done.append(("send", slot, *batches))

    def take_back(self, slot: int) -> int:
        self.done.append(("take back", slot))
        self.tell(slot_state.Finished((1,), last=False, seconds=0.5))  # it had ended, and nobody had been told
        return self.unstarted


class Node:
    """A slot, and what it did."""

    def __init__(self, unstarted: int = 0) -> None:
        self.executor = Executor(unstarted)
        self.kept: list[Outcome] = []
        self.reports: list[scheduler.SchedulerEvent] = []
        self.later: asyncio.Queue[slot_state.SlotEvent] = asyncio.Queue()
        self.now = 100.0
        told = self.kept.append, self.reports.append
        self.slot = Slot(3, self.later.put_nowait, self.executor, BATCHES, *told, clock=lambda: self.now)

    def handle(self, *events: slot_state.SlotEvent) -> None:
        for event in events:
            self.slot.handle(event)

    def taken(self) -> tuple[list[tuple[object, ...]], list[scheduler.SchedulerEvent]]:
        """Take what the executor was told, and what was reported."""
        done, self.executor.done = self.executor.done, []
        reports = list(self.reports)
        self.reports.clear()
        return done, reports


def test_a_slot_starts_its_worker_at_once_and_reports_when_that_is_up() -> None:
    node = Node()
    assert node.taken() == ([("start", 3)], [])
    node.executor.tell(slot_state.WorkerStarted())
    assert node.taken() == ([], [scheduler.SlotOpened(3)])


def test_what_it_is_given_goes_to_the_worker_and_is_reported_with_the_time_it_took() -> None:
    node = Node()
    node.handle(slot_state.WorkerStarted(), slot_state.Run((1, 2)))
    node.taken()
    node.executor.tell(slot_state.Finished((1, 2), seconds=3.0))
    node.handle(slot_state.Run((3,)))

    assert node.taken() == ([("send", 3, BATCHES[3])], [scheduler.BatchesFinished(3, (1, 2), free=True, seconds=1.5)])
    assert node.kept == []


def test_what_did_not_begin_is_taken_back_after_what_has_ended_was_reported() -> None:
    node = Node(unstarted=2)
    node.handle(slot_state.WorkerStarted(), slot_state.Run((1, 2, 3, 4)))
    node.taken()
    node.handle(slot_state.Recall())

    ended = scheduler.BatchesFinished(3, (1,), free=False, seconds=0.5)
    assert node.taken() == ([("take back", 3)], [ended, scheduler.BatchesRefused(3, (3, 4))])


def test_the_batch_that_runs_is_stopped_although_another_one_has_ended_meanwhile() -> None:
    node = Node(unstarted=2)
    node.handle(slot_state.WorkerStarted(), slot_state.Run((1, 2, 3, 4)))
    node.taken()
    node.handle(slot_state.Stop(2))

    ended = scheduler.BatchesFinished(3, (1,), free=False, seconds=0.5)
    assert node.taken() == ([("take back", 3), ("stop", 3)], [ended, scheduler.BatchesRefused(3, (3, 4))])


def test_batches_that_the_worker_takes_down_get_outcomes_and_a_new_worker_starts() -> None:
    node = Node()
    node.handle(slot_state.WorkerStarted(), slot_state.Run((1, 2)))
    node.now = 101.0
    node.executor.tell(slot_state.Finished((1,), last=False, seconds=0.5))
    node.taken()
    node.now = 103.5
    node.executor.tell(slot_state.WorkerExited("a signal"))

    assert node.taken() == ([("start", 3)], [scheduler.BatchesFinished(3, (2,), free=False)])
    assert node.kept == [Outcome(2, "died", b"a signal", 2.5, 3)]


def test_an_idle_worker_that_is_gone_closes_the_slot_until_the_next_is_up() -> None:
    node = Node()
    node.handle(slot_state.WorkerStarted(), slot_state.WorkerExited("a signal"), slot_state.WorkerStarted())

    assert node.taken()[1] == [scheduler.SlotOpened(3), scheduler.SlotClosed(3), scheduler.SlotOpened(3)]


def test_a_batch_whose_time_is_up_is_stopped_and_one_that_ended_before_is_not() -> None:
    async def run() -> None:
        node = Node()
        node.handle(slot_state.WorkerStarted(), slot_state.Run((1,), 0.0), slot_state.Finished((1,)))
        node.handle(slot_state.Run((2,), 0.0))
        overran = await node.later.get()
        assert overran == slot_state.Overran(2)
        node.taken()
        node.now = 100.25
        node.handle(overran)
        assert node.taken() == ([("stop", 3)], [])
        node.executor.tell(slot_state.WorkerExited("it was stopped"))
        assert node.kept == [Outcome(2, "overdue", b"it was stopped", 0.25, 3)]
        assert node.later.empty()

    asyncio.run(run())


def test_a_slot_that_never_gets_a_worker_ends_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(Exception):
        pass

    def end(reason: str) -> NoReturn:
        raise Ended(reason)

    monkeypatch.setattr(failure_line, "end_node", end)
    node = Node()
    for _ in range(slot_state.MAX_START_FAILURES - 1):
        node.executor.tell(slot_state.WorkerExited("no memory"))
    with pytest.raises(Ended, match=r"^slot 3 has no worker: no memory$"):
        node.executor.tell(slot_state.WorkerExited("no memory"))
