"""One slot of a node: runs the batch it was given, and says how that ended. `slot_state` decides, this acts."""

import asyncio
from dataclasses import dataclass
from typing import assert_never

from casty import Context, Ref, actor

from skyward.remote.node import scheduler, slot_state
from skyward.remote.node.room import Room
from skyward.remote.protocol import FOREVER, Outcome


@dataclass(frozen=True, slots=True)
class Open:
    """Bring up a worker, take batches, and report to `boss`."""

    boss: Ref[scheduler.Event]


type Message = Open | slot_state.Event


@actor(initial=0, idle_after=FOREVER)
async def slot(ctx: Context[int, Message]) -> None:
    """The slot whose number is its key."""
    acting = _Slot(ctx)
    with acting.room.vital():
        async for message in ctx.inbox:
            acting.hear(message)


class _Slot:
    def __init__(self, ctx: Context[int, Message]) -> None:
        self.room = Room.of(ctx.system)
        self.number = int(ctx.key)
        self.me = ctx.self
        self.turn: slot_state.SlotState = slot_state.Starting()
        self.timer: asyncio.TimerHandle | None = None
        self.room.listen(self.number, ctx.self.tell)

    def hear(self, message: Message) -> None:
        if isinstance(message, Open):
            self.boss = message.boss
            self.turn, effects = slot_state.begin()
        else:
            self.turn, effects = slot_state.step(self.turn, message)
        for effect in effects:
            self.perform(effect)

    def perform(self, effect: slot_state.Effect) -> None:
        match effect:
            case slot_state.StartWorker():
                self.room.executor.start(self.number)
            case slot_state.StopWorker():
                self.room.executor.stop(self.number)
            case slot_state.Send(batches):
                self.room.executor.send(self.number, [self.room.batches[batch] for batch in batches])
            case slot_state.TakeBack():
                self.hear(slot_state.Recalled(self.room.executor.take_back(self.number)))
            case slot_state.WakeMe(batch, seconds):
                self.timer = asyncio.get_running_loop().call_later(seconds, self.me.tell, slot_state.Overran(batch))
            case slot_state.ReportUp():
                self.boss.tell(scheduler.SlotOpened(self.number))
            case slot_state.ReportDown():
                self.boss.tell(scheduler.SlotClosed(self.number))
            case slot_state.Refuse(batches):
                self.cancel_timer()
                self.boss.tell(scheduler.Refused(self.number, batches))
            case slot_state.ReportFree():
                self.boss.tell(scheduler.SlotOpened(self.number))
            case slot_state.Report(batches, verdict, cause, free):
                self.report(batches, verdict, cause, free=free)
            case slot_state.ReportUseless(cause):
                self.room.fail(f"slot {self.number} has no worker: {cause}")
            case _:
                assert_never(effect)

    def report(self, batches: tuple[int, ...], verdict: slot_state.Verdict, cause: str, *, free: bool) -> None:
        """Tell the foreman how batches ended. Those that are done left their outcomes with the executor."""
        self.cancel_timer()
        outcomes, seconds = self.room.outcomes, 0.0
        for batch in batches:
            del self.room.batches[batch]
            if verdict != "done":
                outcomes[batch] = Outcome(batch, verdict, cause.encode(), 0.0, self.number)
            seconds += outcomes[batch].seconds
        ran = seconds / len(batches) if verdict == "done" else None
        self.boss.tell(scheduler.Ended(self.number, batches, free, ran))

    def cancel_timer(self) -> None:
        """Do not say that the time of a batch is up."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
