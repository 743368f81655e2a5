"""The queued, running and finished batches of this node, and what comes next. Pure: no I/O, no clock, no actor.

`NodeQueue` is changed in place by `step`, which is the only one to do so: a copy for every event would cost more than
everything else a node does. It holds numbers only; payloads lie beside the actor.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import assert_never


@dataclass(frozen=True, slots=True)
class Arrived:
    """Batches to run, oldest first. Those `alone` are not given to a slot together with others."""

    batches: tuple[int, ...]
    alone: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Batches that the driver wants back, or (`kill`) stopped."""

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
class Ended:
    """The batches have outcomes, if they are done after so many seconds each; with `free` their slot takes others."""

    slot: int
    batches: tuple[int, ...]
    free: bool
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
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
class Elapsed:
    """The ask has waited long enough."""

    ask: int


@dataclass(frozen=True, slots=True)
class RecallTick:
    """The time since `ScheduleRecall` has passed."""


type Event = Arrived | Withdrawn | SlotOpened | SlotClosed | Ended | Refused | Asked | Rested | Elapsed | RecallTick


@dataclass(frozen=True, slots=True)
class Start:
    """Have the slot run the batches, one after the other."""

    slot: int
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScheduleRecall:
    """Say `RecallTick` when what was started together should long be over."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Have the slot give back what it has not begun."""

    slot: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Have the slot stop the batch."""

    slot: int
    batch: int


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Answer the withdrawal: these had not started, and are forgotten here."""

    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rest:
    """Say `Rested` in a few milliseconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the ask that waits with the outcomes of these batches; the last has number `number`."""

    number: int
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """The driver has these outcomes: drop them."""

    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NoteKilled:
    """Make an outcome for a batch that was to be stopped and had not even begun."""

    batch: int


type Effect = NoteKilled | Start | ScheduleRecall | Recall | Stop | GiveBack | Rest | Answer | Forget

MAX_TOGETHER_S = 0.002
"""Seconds that batches given to a slot together may take: less than it takes to wake another slot for each of them."""

MAX_TOGETHER = 8
"""Batches that are given to a slot together."""


@dataclass(slots=True)
class NodeQueue:
    """The state of a node: owned by one foreman, changed by `step` only.

    Attributes
    ----------
    queue
        Batches that wait, oldest first.
    free
        Slots that wait. The one that ran last is used first: its memory is still in the caches.
    running
        The slot of each batch that runs.
    doomed
        Those of them that were told to stop.
    outbox
        Batches whose outcome the driver has not acknowledged, oldest first; the last has number `number`.
    waiting
        The number of the ask to be answered, if there is one.
    resting
        Whether the last answer was just now.
    most
        How many batches a slot may be given together.
    pace
        Seconds that batches ran lately, on average.
    alone
        Batches here that are not given to a slot together with others.
    together
        Slots that were given several batches: false until the next look, then true.
    """

    queue: deque[int] = field(default_factory=deque)
    free: list[int] = field(default_factory=list)
    running: dict[int, int] = field(default_factory=dict)
    doomed: set[int] = field(default_factory=set)
    outbox: deque[int] = field(default_factory=deque)
    number: int = 0
    waiting: int | None = None
    resting: bool = False
    most: int = MAX_TOGETHER
    pace: float | None = None
    alone: set[int] = field(default_factory=set)
    together: dict[int, bool] = field(default_factory=dict)


def step(desk: NodeQueue, event: Event) -> tuple[Effect, ...]:
    """Note the event in `desk` and return what to do."""
    match event:
        case Arrived(batches, alone):
            forget = _forget_sent_again(desk, batches)
            desk.queue.extend(batches)
            desk.alone |= alone
            return (*forget, *_start(desk))
        case Withdrawn(batches, kill):
            return _withdraw(desk, batches, kill)
        case SlotOpened(slot):
            desk.together.pop(slot, None)
            if slot not in desk.free and slot not in desk.running.values():
                desk.free.append(slot)
            return _start(desk)
        case SlotClosed(slot):
            if slot in desk.free:
                desk.free.remove(slot)
            return ()
        case Ended(slot, batches, free, seconds):
            if {desk.running.get(batch) for batch in batches} - {slot}:
                return ()
            if seconds is not None:
                _note_pace(desk, seconds, len(batches))
            for batch in batches:
                del desk.running[batch]
                desk.doomed.discard(batch)
                desk.alone.discard(batch)
                _post(desk, batch)
            if free:
                desk.together.pop(slot, None)
                desk.free.append(slot)
            return (*_start(desk), *_answer_if_due(desk))
        case Refused(slot, batches):
            back = [batch for batch in batches if desk.running.get(batch) == slot]
            killed = [batch for batch in back if batch in desk.doomed]
            for batch in back:
                del desk.running[batch]
            desk.queue.extendleft(batch for batch in reversed(back) if batch not in desk.doomed)
            for batch in killed:
                desk.doomed.discard(batch)
                desk.alone.discard(batch)
                _post(desk, batch)
            return (*map(NoteKilled, killed), *_start(desk), *_answer_if_due(desk))
        case Asked(after, ask):
            known = min(after, desk.number)
            gone = tuple([desk.outbox.popleft() for _ in range(len(desk.outbox) - (desk.number - known))])
            desk.waiting = ask
            return (*((Forget(gone),) if gone else ()), *_answer_if_due(desk))
        case Rested():
            desk.resting = False
            return _answer_if_due(desk)
        case Elapsed(ask):
            return _answer(desk) if desk.waiting == ask else ()
        case RecallTick():
            return _recall(desk)
    assert_never(event)


def _forget_sent_again(desk: NodeQueue, batches: tuple[int, ...]) -> tuple[Effect, ...]:
    """The driver sends a batch again when it knows that it died: it has that outcome, and all before it."""
    again = set(batches).intersection(desk.outbox)
    gone: list[int] = []
    while again:
        gone.append(desk.outbox.popleft())
        again.discard(gone[-1])
    return (Forget(tuple(gone)),) if gone else ()


def _post(desk: NodeQueue, batch: int) -> None:
    desk.outbox.append(batch)
    desk.number += 1


def _start(desk: NodeQueue) -> tuple[Effect, ...]:
    if not (desk.queue and desk.free):
        return ()
    started: list[Effect] = []
    most = (
        1 if desk.pace is None else min(desk.most, int(MAX_TOGETHER_S / max(desk.pace, MAX_TOGETHER_S / MAX_TOGETHER)))
    )
    while desk.queue and desk.free:
        slot, batches = desk.free.pop(), _take(desk, most)
        desk.running.update(dict.fromkeys(batches, slot))
        started.append(Start(slot, batches))
        if len(batches) > 1:
            if not desk.together:
                started.append(ScheduleRecall())
            desk.together[slot] = False
    return tuple(started)


def _take(desk: NodeQueue, most: int) -> tuple[int, ...]:
    """Take the first batch of the queue, and others that may run behind it on the same slot."""
    batches = [desk.queue.popleft()]
    if batches[0] in desk.alone:
        return tuple(batches)
    while desk.queue and len(batches) < most and desk.queue[0] not in desk.alone:
        batches.append(desk.queue.popleft())
    return tuple(batches)


def _note_pace(desk: NodeQueue, seconds: float, count: int) -> None:
    """Follow how long batches run; what was only kept from its processor does not count for much."""
    if desk.pace is None:
        desk.pace = seconds
    else:
        old = 0.9**count
        desk.pace = old * desk.pace + (1 - old) * min(seconds, 16 * max(desk.pace, 1e-5))


def _recall(desk: NodeQueue) -> tuple[Effect, ...]:
    """One of those that were to be over at once is not: what waits behind it must not wait for it."""
    late = [slot for slot, seen in desk.together.items() if seen]
    desk.together = {slot: True for slot in desk.together if slot not in late}
    recalls = tuple(Recall(slot) for slot in late)
    return (*recalls, ScheduleRecall()) if desk.together else recalls


def _answer_if_due(desk: NodeQueue) -> tuple[Effect, ...]:
    """Answer the ask that waits, unless the last answer was just now and the driver cannot miss this one yet.

    Small outcomes travel together that way, which is most of what a trivial task costs. What still waits here, on slots
    too, is at least as much as what waits in the outbox, so no slot comes to idle for it.
    """
    if desk.waiting is None or not desk.outbox:
        return ()
    if desk.resting and len(desk.outbox) <= len(desk.queue) + _behind(desk):
        return ()
    answer = _answer(desk)
    if desk.resting:
        return answer
    desk.resting = True
    return (*answer, Rest())


def _behind(desk: NodeQueue) -> int:
    """How many batches wait on slots, behind others."""
    return len(desk.running) - len(set(desk.running.values())) if desk.together else 0


def _answer(desk: NodeQueue) -> tuple[Effect, ...]:
    desk.waiting = None
    return (Answer(desk.number, tuple(desk.outbox)),)


def _withdraw(desk: NodeQueue, batches: tuple[int, ...], kill: bool) -> tuple[Effect, ...]:
    wanted = set(batches)
    back = tuple(batch for batch in desk.queue if batch in wanted)
    if back:
        desk.queue = deque(batch for batch in desk.queue if batch not in wanted)
        desk.alone.difference_update(back)
    stops = tuple(Stop(desk.running[batch], batch) for batch in batches if kill and batch in desk.running)
    desk.doomed.update(stop.batch for stop in stops)
    return (GiveBack(back), *stops)
