"""The agent of a node: takes batches, and keeps outcomes until they are acknowledged. `scheduler` decides, this acts.

The driver's commands come numbered, one at a time. A number that was carried out before is answered as it was then, so
repeating a command after an unclear failure changes nothing. A request that arrives late, over a connection that the
driver has given up, is no longer waited for: it takes no outcomes, and of two equal requests for outcomes both are
answered.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, assert_never

from casty import ActorSystem, Context, DefaultedActor, Ref, actor

from skyward.remote import failure_line
from skyward.remote.blobs import Blob
from skyward.remote.node import scheduler, slot, slot_state
from skyward.remote.node.process_tree import free_memory, processor_ticks, total_memory
from skyward.remote.protocol import (
    FOREVER,
    Assign,
    Assigned,
    Batch,
    Beat,
    Collect,
    Collected,
    Facts,
    Look,
    Opening,
    Outcome,
    Request,
    Revoke,
    Revoked,
    RunningBatch,
    Seen,
)

ANSWER_INTERVAL_S = 0.01
"""Seconds after an answer in which outcomes gather for the next one, while the node has plenty to do."""

RECALL_DELAY_S = 0.02
"""Seconds until what a slot was given together should be over, if it is as short as what came before."""

STACK_TIMEOUT_S = 1.0
"""Seconds that a slot has to report its stack."""

MAX_ANSWER_BYTES = 8 << 20
"""Bytes of outcomes after which an answer carries no more of them."""


class AgentExecutor(slot.SlotExecutor, Protocol):
    """What an agent and its slots need of the executor; see `executor.Executor`."""

    @property
    def given(self) -> Mapping[int, float]: ...
    async def stacks(self, within: float) -> dict[int, str]: ...


class Agent:
    """Owns the batches of a node and their outcomes. It runs on one event loop, and no handler of it waits.

    Parameters
    ----------
    renew
        Called for each request: the driver is there.
    keep_result
        Called with the number of a batch and its large result.
    drop_result
        Called with the number of a batch whose large result the driver has, or does not want.
    max_together
        How many batches a slot may be given together.

    Attributes
    ----------
    batches
        The batches that are queued or running, by number.
    functions
        Functions by value, by name.
    notice
        What the provider said about the end of this machine, if it is about to be taken away.
    """

    def __init__(
        self,
        *,
        renew: Callable[[], None],
        keep_result: Callable[[int, Blob], None],
        drop_result: Callable[[int], None],
        max_together: int = scheduler.MAX_TOGETHER,
    ) -> None:
        self.batches: dict[int, Batch] = {}
        self.functions: dict[str, bytes] = {}
        self.notice = ""
        self._renew, self._keep_result, self._drop_result = renew, keep_result, drop_result
        self._queue = scheduler.NodeQueue(max_together=max_together)
        self._outcomes: dict[int, Outcome] = {}  # those that the driver has not acknowledged
        self._openings: dict[int, Opening] = {}  # of those, where opening the batch took long
        self._command = 0
        self._revoked = Revoked(())
        self._asks = self._known = 0
        self._waiting: list[Collect] = []
        self._timer: asyncio.TimerHandle | None = None
        self._revoke: Revoke | None = None
        self._ready = asyncio.Event()
        self._ticks = processor_ticks()
        self._looks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> set[int]:
        """The slots that have batches."""
        return set(self._queue.running.values())

    async def open(self, system: ActorSystem, executor: AgentExecutor, slots: int) -> None:
        """Start the actors of the agent and its slots on the node's local system; return once every slot is up."""
        self._executor = executor
        self._self = system.ref(_actor(self.handle), "agent")
        slot_type = slot.define(executor, self.batches, self.keep, self._self.tell)
        self._slots: Sequence[Ref[slot_state.SlotEvent]] = [system.ref(slot_type, str(each)) for each in range(slots)]
        await self._ready.wait()

    def keep(self, outcome: Outcome, result: Blob | None = None, opening: Opening | None = None) -> None:
        """Keep the outcome of a batch, with its result if that is large, and its opening if that took long."""
        self._outcomes[outcome.batch] = outcome
        if result is not None:
            self._keep_result(outcome.batch, result)
        if opening is not None:
            self._openings[outcome.batch] = opening

    def handle(self, event: scheduler.SchedulerEvent) -> None:
        """Carry out what follows from a report of a slot, or from a timer."""
        if isinstance(event, scheduler.BatchesFinished):
            for batch in event.batches:
                del self.batches[batch]
        self._perform(scheduler.step(self._queue, event))
        if isinstance(event, scheduler.SlotOpened) and len(self._queue.free) == len(self._slots):
            self._ready.set()

    def answer(self, request: Request) -> None:
        """Carry out a request of the driver and answer it, now or later."""
        self._renew()
        match request:
            case Assign():
                if request.number > self._command:
                    self._command = request.number
                    for name in request.forget:
                        self.functions.pop(name, None)
                    self.functions.update(request.functions)
                    self.batches.update({batch.id: batch for batch in request.batches})
                    alone = frozenset([batch.id for batch in request.batches if batch.timeout is not None])
                    self.handle(scheduler.BatchesAssigned(tuple([batch.id for batch in request.batches]), alone))
                request.reply_to.tell(Assigned())
            case Revoke():
                if request.number > self._command:
                    self._command, self._revoke = request.number, request
                    self.handle(scheduler.Withdrawn(request.batches, request.kill))
                elif request.number == self._command:
                    request.reply_to.tell(self._revoked)
            case Collect() if request.after >= self._known:
                for batch in request.fetched:
                    self._drop_result(batch)
                if request.after > self._known:
                    self._waiting.clear()
                self._asks, self._known = self._asks + 1, request.after
                self._waiting.append(request)
                self.handle(scheduler.Asked(request.after, self._asks))
                if self._waiting:
                    self._timer = self._later(request.wait, scheduler.CollectTimedOut(self._asks))
            case Collect():
                request.reply_to.tell(Collected(self._known, ()))
            case Beat():
                request.reply_to.tell(self._facts())
            case Look():
                self._looks = {task for task in self._looks if not task.done()}
                self._looks.add(asyncio.create_task(self._look(request)))
            case _:
                assert_never(request)

    def _perform(self, effects: Sequence[scheduler.SchedulerEffect]) -> None:
        for effect in effects:
            match effect:
                case scheduler.StartBatches(number, batches):
                    self._slots[number].tell(slot_state.Run(batches, self.batches[batches[0]].timeout))
                case scheduler.RecallBatches(number):
                    self._slots[number].tell(slot_state.Recall())
                case scheduler.ScheduleRecall():
                    self._later(RECALL_DELAY_S, scheduler.RecallTick())
                case scheduler.StopBatch(number, batch):
                    self._slots[number].tell(slot_state.Stop(batch))
                case scheduler.NoteKilled(batch):
                    del self.batches[batch]
                    self.keep(Outcome(batch, "killed", b"", 0.0, -1))
                case scheduler.GiveBack(batches):
                    for batch in batches:
                        del self.batches[batch]
                    if self._revoke is not None:
                        self._revoked = Revoked(batches)
                        self._revoke.reply_to.tell(self._revoked)
                        self._revoke = None
                case scheduler.Rest():
                    self._later(ANSWER_INTERVAL_S, scheduler.Rested())
                case scheduler.AnswerCollect(number, batches):
                    if self._timer is not None:
                        self._timer.cancel()
                    collected = self._collected(number, batches)
                    for ask in self._waiting:
                        ask.reply_to.tell(collected)
                    self._waiting.clear()
                case scheduler.Forget(batches):
                    for batch in batches:
                        del self._outcomes[batch]
                        self._openings.pop(batch, None)
                case _:
                    assert_never(effect)

    def _collected(self, number: int, batches: Sequence[int]) -> Collected:
        """Make an answer of the oldest outcomes, as many as one message should carry: the rest is asked for next."""
        outcomes: list[Outcome] = []
        size = 0
        for batch in batches:
            outcomes.append(outcome := self._outcomes[batch])
            size += len(outcome.payload)
            if size > MAX_ANSWER_BYTES:
                break
        known = self._openings
        openings = {each.batch: known[each.batch] for each in outcomes if each.batch in known} if known else {}
        return Collected(number - len(batches) + len(outcomes), tuple(outcomes), openings)

    def _later(self, seconds: float, event: scheduler.SchedulerEvent) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self._self.tell, event)

    async def _look(self, request: Look) -> None:
        stacks = await self._executor.stacks(STACK_TIMEOUT_S)
        given, now = self._executor.given, asyncio.get_running_loop().time()
        first: dict[int, int] = {}
        for batch, number in self._queue.running.items():
            first.setdefault(number, batch)
        silent = f"its slot did not report its stack within {STACK_TIMEOUT_S:g} s"
        running = tuple(
            RunningBatch(number, batch, now - given.get(number, now), stacks.get(number, silent))
            for number, batch in sorted(first.items())
        )
        request.reply_to.tell(Seen(running))

    def _facts(self) -> Facts:
        busy = len(self.busy)
        queued = len(self._queue.queue) + len(self._queue.running) - busy
        (worked_before, before), (worked, now) = self._ticks, processor_ticks()
        self._ticks = worked, now
        return Facts(
            len(self._queue.free) + busy,
            queued,
            busy,
            os.getloadavg()[0],
            free_memory(),
            self.notice,
            (worked - worked_before) / max(1, now - before),
            total_memory(),
        )


def _actor(handle: Callable[[scheduler.SchedulerEvent], None]) -> DefaultedActor[int, scheduler.SchedulerEvent]:
    @actor(initial=0, idle_after=FOREVER)
    async def agent(ctx: Context[int, scheduler.SchedulerEvent]) -> None:
        """The one agent of a node: it hears of the slots and of its timers."""
        with failure_line.end_node_on_error("an actor of the node failed"):
            async for event in ctx.inbox:
                handle(event)

    return agent
