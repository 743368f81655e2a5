"""One slot of a node: owns the life of a worker, from its start to its end. `slot_state` decides, this acts.

The agent tells a slot what to run or to stop, as messages of casty. The executor calls it back when something happens
to its worker: both live on one event loop, and no handler waits. A slot reports to the agent.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, assert_never

from casty import Context, DefaultedActor, actor

from skyward.remote import failure_line
from skyward.remote.node import scheduler, slot_state
from skyward.remote.protocol import FOREVER, Batch, Outcome


class SlotExecutor(Protocol):
    """What a slot needs of the executor; see `executor.Executor`."""

    def start(self, slot: int, tell: Callable[[slot_state.SlotEvent], None]) -> None: ...
    def stop(self, slot: int) -> None: ...
    def send(self, slot: int, batches: Sequence[Batch]) -> None: ...
    def take_back(self, slot: int) -> int: ...


class Slot:
    """Starts the worker of a slot, hands it batches, stops it, and reports how the batches ended.

    Parameters
    ----------
    number
        The number of the slot.
    later
        Called with the event of a timer once its time is up.
    executor
        Runs the workers.
    batches
        The batches of the node, by number.
    keep
        Called with the outcome of each batch that its worker did not complete.
    report
        Called with what the agent must know.
    clock
        Returns the time in seconds.
    """

    def __init__(
        self,
        number: int,
        later: Callable[[slot_state.SlotEvent], None],
        executor: SlotExecutor,
        batches: Mapping[int, Batch],
        keep: Callable[[Outcome], None],
        report: Callable[[scheduler.SchedulerEvent], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._number, self._later, self._executor, self._batches = number, later, executor, batches
        self._keep, self._report, self._clock = keep, report, clock
        self._began = 0.0  # when the batch that runs was sent, or the one before it was reported
        self._state, effects = slot_state.begin()
        self._timer: asyncio.TimerHandle | None = None
        self._perform(effects)

    def handle(self, event: slot_state.SlotEvent) -> None:
        """Carry out what follows from the event."""
        self._state, effects = slot_state.step(self._state, event)
        self._perform(effects)

    def _perform(self, effects: Sequence[slot_state.SlotEffect]) -> None:
        for effect in effects:
            match effect:
                case slot_state.StartWorker():
                    self._executor.start(self._number, self.handle)
                case slot_state.StopWorker():
                    self._executor.stop(self._number)
                case slot_state.Send(batches):
                    self._began = self._clock()
                    self._executor.send(self._number, [self._batches[batch] for batch in batches])
                case slot_state.TakeBack():
                    self.handle(slot_state.Recalled(self._executor.take_back(self._number)))
                case slot_state.WakeMe(batch, seconds):
                    loop = asyncio.get_running_loop()
                    self._timer = loop.call_later(seconds, self._later, slot_state.Overran(batch))
                case slot_state.ReportUp() | slot_state.ReportFree():
                    self._report(scheduler.SlotOpened(self._number))
                case slot_state.ReportDown():
                    self._report(scheduler.SlotClosed(self._number))
                case slot_state.Refuse(batches):
                    self._cancel_timer()
                    self._report(scheduler.BatchesRefused(self._number, batches))
                case slot_state.ReportBatches(batches, verdict, cause, free, seconds):
                    self._cancel_timer()
                    before, self._began = self._began, self._clock()
                    if verdict != "done":
                        elapsed = (self._began - before) / len(batches)
                        for batch in batches:
                            self._keep(Outcome(batch, verdict, cause.encode(), elapsed, self._number))
                    ran = seconds / len(batches) if verdict == "done" else None
                    self._report(scheduler.BatchesFinished(self._number, batches, free, ran))
                case slot_state.ReportUseless(cause):
                    failure_line.end_node(f"slot {self._number} has no worker: {cause}")
                case _:
                    assert_never(effect)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def define(
    executor: SlotExecutor,
    batches: Mapping[int, Batch],
    keep: Callable[[Outcome], None],
    report: Callable[[scheduler.SchedulerEvent], None],
) -> DefaultedActor[int, slot_state.SlotEvent]:
    """Return the actor of this node's slots."""

    @actor(initial=0, idle_after=FOREVER)
    async def slot(ctx: Context[int, slot_state.SlotEvent]) -> None:
        """The slot whose number is its key."""
        with failure_line.end_node_on_error("an actor of the node failed"):
            this = Slot(int(ctx.key), ctx.self.tell, executor, batches, keep, report)
            async for event in ctx.inbox:
                this.handle(event)

    return slot
