"""The queued, running and finished batches of this node, and what comes next. Pure: no I/O, no clock, no actor.

`NodeQueue` is changed in place by `step`, which is the only one to do so: a copy for every event would cost more than
everything else a node does. It holds numbers only; the agent holds the payloads.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import assert_never


@dataclass(frozen=True, slots=True)
class BatchesAssigned:
    """Batches to run, oldest first. Those `alone` are not given to a slot together with others."""

    batches: tuple[int, ...]
    alone: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The driver withdraws these batches, or (`kill`) stops them."""

    batches: tuple[int, ...]
    kill: bool


@dataclass(frozen=True, slots=True)
class SlotOpened:
    """The slot takes batches."""

    slot: int


@dataclass(frozen=True, slots=True)
class SlotClosed:
    """The slot takes none for now."""

    slot: int


@dataclass(frozen=True, slots=True)
class BatchesFinished:
    """The batches have outcomes, if they are done after so many seconds each; with `free` their slot takes others."""

    slot: int
    batches: tuple[int, ...]
    free: bool
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class BatchesRefused:
    """These batches did not begin on the slot, which closed before, or was asked to give them back."""

    slot: int
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """The driver acknowledges the outcomes up to number `after` and waits for more, under its ask number `ask`."""

    after: int
    ask: int


@dataclass(frozen=True, slots=True)
class Rested:
    """The last answer was some milliseconds ago."""


@dataclass(frozen=True, slots=True)
class CollectTimedOut:
    """The ask has waited long enough."""

    ask: int


@dataclass(frozen=True, slots=True)
class RecallTick:
    """The time since `ScheduleRecall` has passed."""


type SchedulerEvent = (
    BatchesAssigned
    | Withdrawn
    | SlotOpened
    | SlotClosed
    | BatchesFinished
    | BatchesRefused
    | Asked
    | Rested
    | CollectTimedOut
    | RecallTick
)


@dataclass(frozen=True, slots=True)
class StartBatches:
    """Have the slot run the batches, one after the other."""

    slot: int
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScheduleRecall:
    """Send `RecallTick` when what was started together should long be over."""


@dataclass(frozen=True, slots=True)
class RecallBatches:
    """Have the slot return the batches that it has not begun."""

    slot: int


@dataclass(frozen=True, slots=True)
class StopBatch:
    """Have the slot stop the batch."""

    slot: int
    batch: int


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Answer the withdrawal: these had not started, and are removed here."""

    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rest:
    """Send `Rested` in a few milliseconds."""


@dataclass(frozen=True, slots=True)
class AnswerCollect:
    """Answer the request that waits with the outcomes of these batches; the last has number `number`."""

    number: int
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """The driver has these outcomes: drop them."""

    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NoteKilled:
    """Make an outcome for a batch that was to be stopped and had not begun."""

    batch: int


type SchedulerEffect = (
    NoteKilled | StartBatches | ScheduleRecall | RecallBatches | StopBatch | GiveBack | Rest | AnswerCollect | Forget
)

MAX_TOGETHER_S = 0.002
"""Seconds that batches given to a slot together may take: less than it takes to wake another slot for each of them."""

MAX_TOGETHER = 8
"""Batches that are given to a slot together."""


@dataclass(slots=True)
class NodeQueue:
    """The state of a node: owned by its agent, changed by `step` only.

    Attributes
    ----------
    queue
        Batches that wait, oldest first.
    free
        Slots that wait. The one that ran last is used first: its memory is still in the caches.
    running
        The slot of each batch that runs.
    stopping
        Those of them that are being stopped.
    outbox
        Batches whose outcome the driver has not acknowledged, oldest first; the last has number `number`.
    waiting
        The number of the request for outcomes that waits, if there is one.
    resting
        Whether the last answer was just now.
    max_together
        How many batches a slot may be given together.
    pace
        Seconds that batches ran lately, on average.
    alone
        Batches here that are not given to a slot together with others.
    together
        Slots that were given several batches, and whether a `RecallTick` has passed since.
    """

    queue: deque[int] = field(default_factory=deque)
    free: list[int] = field(default_factory=list)
    running: dict[int, int] = field(default_factory=dict)
    stopping: set[int] = field(default_factory=set)
    outbox: deque[int] = field(default_factory=deque)
    number: int = 0
    waiting: int | None = None
    resting: bool = False
    max_together: int = MAX_TOGETHER
    pace: float | None = None
    alone: set[int] = field(default_factory=set)
    together: dict[int, bool] = field(default_factory=dict)


def step(state: NodeQueue, event: SchedulerEvent) -> tuple[SchedulerEffect, ...]:
    """Apply the event to `state` and return what to do."""
    match event:
        case BatchesAssigned(batches, alone):
            forget = _forget_sent_again(state, batches)
            state.queue.extend(batches)
            state.alone |= alone
            return (*forget, *_start(state))
        case Withdrawn(batches, kill):
            return _withdraw(state, batches, kill)
        case SlotOpened(slot):
            state.together.pop(slot, None)
            if slot not in state.free and slot not in state.running.values():
                state.free.append(slot)
            return _start(state)
        case SlotClosed(slot):
            if slot in state.free:
                state.free.remove(slot)
            return ()
        case BatchesFinished(slot, batches, free, seconds):
            if {state.running.get(batch) for batch in batches} - {slot}:
                return ()
            if seconds is not None:
                _note_pace(state, seconds, len(batches))
            for batch in batches:
                del state.running[batch]
                state.stopping.discard(batch)
                state.alone.discard(batch)
                _post(state, batch)
            if free:
                state.together.pop(slot, None)
                state.free.append(slot)
            return (*_start(state), *_answer_if_due(state))
        case BatchesRefused(slot, batches):
            back = [batch for batch in batches if state.running.get(batch) == slot]
            killed = [batch for batch in back if batch in state.stopping]
            for batch in back:
                del state.running[batch]
            state.queue.extendleft(batch for batch in reversed(back) if batch not in state.stopping)
            for batch in killed:
                state.stopping.discard(batch)
                state.alone.discard(batch)
                _post(state, batch)
            return (*map(NoteKilled, killed), *_start(state), *_answer_if_due(state))
        case Asked(after, ask):
            known = min(after, state.number)
            gone = tuple([state.outbox.popleft() for _ in range(len(state.outbox) - (state.number - known))])
            state.waiting = ask
            return (*((Forget(gone),) if gone else ()), *_answer_if_due(state))
        case Rested():
            state.resting = False
            return _answer_if_due(state)
        case CollectTimedOut(ask):
            return _answer(state) if state.waiting == ask else ()
        case RecallTick():
            return _recall(state)
    assert_never(event)


def _forget_sent_again(state: NodeQueue, batches: tuple[int, ...]) -> tuple[SchedulerEffect, ...]:
    """The driver sends a batch again when it knows that it died: it has that outcome, and all before it."""
    again = set(batches).intersection(state.outbox)
    gone: list[int] = []
    while again:
        gone.append(state.outbox.popleft())
        again.discard(gone[-1])
    return (Forget(tuple(gone)),) if gone else ()


def _post(state: NodeQueue, batch: int) -> None:
    state.outbox.append(batch)
    state.number += 1


def _start(state: NodeQueue) -> tuple[SchedulerEffect, ...]:
    if not (state.queue and state.free):
        return ()
    started: list[SchedulerEffect] = []
    most = 1
    if state.pace is not None:
        most = min(state.max_together, int(MAX_TOGETHER_S / max(state.pace, MAX_TOGETHER_S / MAX_TOGETHER)))
    while state.queue and state.free:
        slot, batches = state.free.pop(), _take(state, most)
        state.running.update(dict.fromkeys(batches, slot))
        started.append(StartBatches(slot, batches))
        if len(batches) > 1:
            if not state.together:
                started.append(ScheduleRecall())
            state.together[slot] = False
    return tuple(started)


def _take(state: NodeQueue, most: int) -> tuple[int, ...]:
    """Take the first batch of the queue, and others that may run behind it on the same slot."""
    batches = [state.queue.popleft()]
    if batches[0] in state.alone:
        return tuple(batches)
    while state.queue and len(batches) < most and state.queue[0] not in state.alone:
        batches.append(state.queue.popleft())
    return tuple(batches)


def _note_pace(state: NodeQueue, seconds: float, count: int) -> None:
    """Update how long batches run on average. An outlier, as when the processor was busy elsewhere, counts little."""
    if state.pace is None:
        state.pace = seconds
    else:
        old = 0.9**count
        state.pace = old * state.pace + (1 - old) * min(seconds, 16 * max(state.pace, 1e-5))


def _recall(state: NodeQueue) -> tuple[SchedulerEffect, ...]:
    """Recall what waits behind a batch that takes longer than was expected."""
    late = [slot for slot, seen in state.together.items() if seen]
    state.together = {slot: True for slot in state.together if slot not in late}
    recalls = tuple(RecallBatches(slot) for slot in late)
    return (*recalls, ScheduleRecall()) if state.together else recalls


def _answer_if_due(state: NodeQueue) -> tuple[SchedulerEffect, ...]:
    """Answer the request that waits, unless the last answer was just now and no slot can run dry meanwhile.

    Small outcomes travel together that way, which saves most of the cost of a trivial task. At least as many batches
    still wait here, on slots too, as outcomes in the outbox, so no slot becomes idle for it.
    """
    if state.waiting is None or not state.outbox:
        return ()
    if state.resting and len(state.outbox) <= len(state.queue) + _behind(state):
        return ()
    answer = _answer(state)
    if state.resting:
        return answer
    state.resting = True
    return (*answer, Rest())


def _behind(state: NodeQueue) -> int:
    """How many batches wait on slots, behind others."""
    return len(state.running) - len(set(state.running.values())) if state.together else 0


def _answer(state: NodeQueue) -> tuple[SchedulerEffect, ...]:
    state.waiting = None
    return (AnswerCollect(state.number, tuple(state.outbox)),)


def _withdraw(state: NodeQueue, batches: tuple[int, ...], kill: bool) -> tuple[SchedulerEffect, ...]:
    wanted = set(batches)
    back = tuple(batch for batch in state.queue if batch in wanted)
    if back:
        state.queue = deque(batch for batch in state.queue if batch not in wanted)
        state.alone.difference_update(back)
    stops = tuple(StopBatch(state.running[batch], batch) for batch in batches if kill and batch in state.running)
    state.stopping.update(stop.batch for stop in stops)
    return (GiveBack(back), *stops)
