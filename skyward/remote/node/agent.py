"""The one foreman of a node: takes batches, keeps outcomes until they are acknowledged. `scheduler` decides, this acts.

It lives with the slots on the node's local system, where a message costs a tenth of what it costs on a clustered one;
`gateway` hands it what came over the wire.

The driver's commands come numbered, one at a time. A number that was carried out before is answered as it was then, so
repeating a command after an unclear failure changes nothing. What comes late, over a connection that the driver has
given up, is not waited for any more: it takes no outcomes, and of two equal asks for outcomes both are answered.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from casty import Askable, Context, Ref, System, actor

from skyward.remote.node import scheduler, slot, slot_state
from skyward.remote.node.process_tree import free_memory, processor_ticks, total_memory
from skyward.remote.node.room import Room
from skyward.remote.protocol import (
    FOREVER,
    Assign,
    Assigned,
    Beat,
    Collect,
    Collected,
    Facts,
    Look,
    Outcome,
    Request,
    Revoke,
    Revoked,
    Running,
    Seen,
)


@dataclass(frozen=True)
class Open(Askable[None]):
    """Open the slots; answered once all of them are up."""


GATHER = 0.01
"""Seconds after an answer in which outcomes gather for the next one, while the node has plenty to do."""


RECALL_DELAY_S = 0.02
"""Seconds until what a slot was given together should be over, if it is as short as what came before."""

WITHIN = 1.0
"""Seconds that a slot has to say where its batch is."""

MAX_ANSWER_BYTES = 8 << 20
"""Bytes of outcomes after which an answer carries no more of them."""


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A request came over the wire; it lies in the room's `requests` under this number."""

    number: int


type Message = Open | RequestReceived | scheduler.Event


@actor(initial=0, idle_after=FOREVER, ask_timeout=FOREVER)
async def agent(ctx: Context[int, Message]) -> None:
    """The one foreman of a node."""
    acting = _Foreman(ctx)
    with acting.room.vital():
        async for message in ctx.inbox:
            acting.hear(message)


def ref(system: System) -> Ref[Message]:
    """Return the foreman of the node."""
    return system.ref(agent, "foreman")


class _Foreman:
    def __init__(self, ctx: Context[int, Message]) -> None:
        self.room = Room.of(ctx.system)
        self.me = ctx.self
        self.desk = scheduler.NodeQueue(most=1 if self.room.threads else scheduler.MAX_TOGETHER)
        self.slots = [ctx.system.ref(slot.slot, str(number)) for number in range(self.room.slots)]
        self.command = 0
        self.reply = Revoked(())
        self.asks = self.known = 0
        self.waiting: list[Collect] = []
        self.timer: asyncio.TimerHandle | None = None
        self.revoke: Revoke | None = None
        self.open: Open | None = None
        self.ticks = processor_ticks()
        self.looks: set[asyncio.Task[None]] = set()

    def hear(self, message: Message) -> None:
        match message:
            case Open():
                self.open = message
                for each in self.slots:
                    each.tell(slot.Open(boss=self.me))
            case RequestReceived(number):
                self.room.renew()
                self.answer(self.room.requests.pop(number))
            case _:
                self.perform(scheduler.step(self.desk, message))
                if self.open is not None and len(self.desk.free) == len(self.slots):
                    self.open.reply_to.tell(None)
                    self.open = None

    def answer(self, message: Request) -> None:
        match message:
            case Assign():
                if message.number > self.command:
                    self.command = message.number
                    for name in message.forget:
                        self.room.functions.pop(name, None)
                    self.room.functions.update(message.functions)
                    self.room.batches.update((batch.id, batch) for batch in message.batches)
                    alone = frozenset(batch.id for batch in message.batches if batch.timeout is not None)
                    arrived = scheduler.Arrived(tuple(batch.id for batch in message.batches), alone)
                    self.perform(scheduler.step(self.desk, arrived))
                message.reply_to.tell(Assigned())
            case Revoke():
                if message.number > self.command:
                    self.command, self.revoke = message.number, message
                    self.perform(scheduler.step(self.desk, scheduler.Withdrawn(message.batches, message.kill)))
                elif message.number == self.command:
                    message.reply_to.tell(self.reply)
            case Collect() if message.after >= self.known:
                for batch in message.fetched:
                    self.room.results.pop(batch, None)
                if message.after > self.known:
                    self.waiting.clear()
                self.asks, self.known = self.asks + 1, message.after
                self.waiting.append(message)
                self.perform(scheduler.step(self.desk, scheduler.Asked(message.after, self.asks)))
                if self.waiting:
                    self.timer = self.later(message.wait, scheduler.Elapsed(self.asks))
            case Collect():
                message.reply_to.tell(Collected(self.known, ()))
            case Beat():
                message.reply_to.tell(self.facts())
            case Look():
                self.looks = {task for task in self.looks if not task.done()}
                self.looks.add(asyncio.create_task(self.look(message)))
            case _:
                assert_never(message)

    def perform(self, effects: Sequence[scheduler.Effect]) -> None:
        for effect in effects:
            match effect:
                case scheduler.Start(number, batches):
                    self.slots[number].tell(slot_state.Run(batches, self.room.batches[batches[0]].timeout))
                case scheduler.Recall(number):
                    self.slots[number].tell(slot_state.Recall())
                case scheduler.ScheduleRecall():
                    self.later(RECALL_DELAY_S, scheduler.RecallTick())
                case scheduler.Stop(number, batch):
                    self.slots[number].tell(slot_state.Stop(batch))
                case scheduler.NoteKilled(batch):
                    del self.room.batches[batch]
                    self.room.outcomes[batch] = Outcome(batch, "killed", b"", 0.0, -1)
                case scheduler.GiveBack(batches):
                    for batch in batches:
                        del self.room.batches[batch]
                    if self.revoke is not None:
                        self.reply = Revoked(batches)
                        self.revoke.reply_to.tell(self.reply)
                        self.revoke = None
                case scheduler.Rest():
                    self.later(GATHER, scheduler.Rested())
                case scheduler.Answer(number, batches):
                    if self.timer is not None:
                        self.timer.cancel()
                    news = self.collected(number, batches)
                    for ask in self.waiting:
                        ask.reply_to.tell(news)
                    self.waiting.clear()
                case scheduler.Forget(batches):
                    for batch in batches:
                        del self.room.outcomes[batch]
                        self.room.openings.pop(batch, None)
                case _:
                    assert_never(effect)

    def collected(self, number: int, batches: Sequence[int]) -> Collected:
        """Make an answer of the oldest outcomes, as many as one message should carry: the rest is asked for next."""
        outcomes: list[Outcome] = []
        size = 0
        for batch in batches:
            outcomes.append(outcome := self.room.outcomes[batch])
            size += len(outcome.payload)
            if size > MAX_ANSWER_BYTES:
                break
        known = self.room.openings
        openings = {each.batch: known[each.batch] for each in outcomes if each.batch in known} if known else {}
        return Collected(number - len(batches) + len(outcomes), tuple(outcomes), openings)

    def later(self, seconds: float, event: scheduler.Event) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self.me.tell, event)

    async def look(self, message: Look) -> None:
        stacks = await self.room.executor.stacks(WITHIN)
        given, now = self.room.executor.given, asyncio.get_running_loop().time()
        first: dict[int, int] = {}
        for batch, number in self.desk.running.items():
            first.setdefault(number, batch)
        silent = f"its slot did not report its stack within {WITHIN:g} s"
        message.reply_to.tell(
            Seen(
                tuple(
                    Running(number, batch, now - given.get(number, now), stacks.get(number, silent))
                    for number, batch in sorted(first.items())
                )
            )
        )

    def facts(self) -> Facts:
        busy = len(set(self.desk.running.values()))
        queued = len(self.desk.queue) + len(self.desk.running) - busy
        (worked_before, before), (worked, now) = self.ticks, processor_ticks()
        self.ticks = worked, now
        return Facts(
            len(self.desk.free) + busy,
            queued,
            busy,
            os.getloadavg()[0],
            free_memory(),
            self.room.notice,
            (worked - worked_before) / max(1, now - before),
            total_memory(),
        )
