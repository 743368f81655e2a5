"""What is queued, running and finished on this node, and what comes next. Pure: no I/O, no clock, no actor.

`Desk` is changed in place by `step`, which is the only one to do so: a copy of the queue for every event would cost
more than everything else a node does. It holds numbers only; payloads lie beside the actor.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import assert_never


@dataclass(frozen=True, slots=True)
class Arrived:
    """Batches to run, oldest first."""

    batches: tuple[int, ...]


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
    """The batch has an outcome; the slot is free for the next one, or about to start anew."""

    slot: int
    batch: int
    free: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The slot closed before the batch reached it: nothing has run."""

    slot: int
    batch: int


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


type Event = Arrived | Withdrawn | SlotOpened | SlotClosed | Ended | Refused | Asked | Rested | Elapsed


@dataclass(frozen=True, slots=True)
class Start:
    """Have the slot run the batch."""

    slot: int
    batch: int


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


type Effect = NoteKilled | Start | Stop | GiveBack | Rest | Answer | Forget


@dataclass(slots=True)
class Desk:
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
    """

    queue: deque[int] = field(default_factory=deque)
    free: list[int] = field(default_factory=list)
    running: dict[int, int] = field(default_factory=dict)
    doomed: set[int] = field(default_factory=set)
    outbox: deque[int] = field(default_factory=deque)
    number: int = 0
    waiting: int | None = None
    resting: bool = False


def step(desk: Desk, event: Event) -> tuple[Effect, ...]:
    """Note the event in `desk` and return what to do."""
    match event:
        case Arrived(batches):
            forget = _forget_sent_again(desk, batches)
            desk.queue.extend(batches)
            return (*forget, *_start(desk))
        case Withdrawn(batches, kill):
            return _withdraw(desk, batches, kill)
        case SlotOpened(slot):
            if slot not in desk.free and slot not in desk.running.values():
                desk.free.append(slot)
            return _start(desk)
        case SlotClosed(slot):
            if slot in desk.free:
                desk.free.remove(slot)
            return ()
        case Ended(slot, batch, free):
            if desk.running.pop(batch, None) is None:
                return ()
            desk.doomed.discard(batch)
            _post(desk, batch)
            if free:
                desk.free.append(slot)
            return (*_start(desk), *_answer_if_due(desk))
        case Refused(slot, batch):
            if desk.running.get(batch) != slot:
                return ()
            del desk.running[batch]
            if batch in desk.doomed:
                desk.doomed.discard(batch)
                _post(desk, batch)
                return (NoteKilled(batch), *_answer_if_due(desk))
            desk.queue.appendleft(batch)
            return _start(desk)
        case Asked(after, ask):
            known = min(after, desk.number)
            gone = tuple(desk.outbox.popleft() for _ in range(len(desk.outbox) - (desk.number - known)))
            desk.waiting = ask
            return (*((Forget(gone),) if gone else ()), *_answer_if_due(desk))
        case Rested():
            desk.resting = False
            return _answer_if_due(desk)
        case Elapsed(ask):
            return _answer(desk) if desk.waiting == ask else ()
    assert_never(event)


def _forget_sent_again(desk: Desk, batches: tuple[int, ...]) -> tuple[Effect, ...]:
    """The driver sends a batch again when it knows that it died: it has that outcome, and all before it."""
    again = set(batches).intersection(desk.outbox)
    gone: list[int] = []
    while again:
        gone.append(desk.outbox.popleft())
        again.discard(gone[-1])
    return (Forget(tuple(gone)),) if gone else ()


def _post(desk: Desk, batch: int) -> None:
    desk.outbox.append(batch)
    desk.number += 1


def _start(desk: Desk) -> tuple[Effect, ...]:
    if not (desk.queue and desk.free):
        return ()
    started: list[Effect] = []
    while desk.queue and desk.free:
        slot, batch = desk.free.pop(), desk.queue.popleft()
        desk.running[batch] = slot
        started.append(Start(slot, batch))
    return tuple(started)


def _answer_if_due(desk: Desk) -> tuple[Effect, ...]:
    """Answer the ask that waits, unless the last answer was just now and the driver cannot miss this one yet.

    Small outcomes travel together that way, which is most of what a trivial task costs. What is still queued here is
    at least as much as what waits in the outbox, so no slot comes to idle for it.
    """
    if desk.waiting is None or not desk.outbox:
        return ()
    if desk.resting and len(desk.outbox) <= len(desk.queue):
        return ()
    answer = _answer(desk)
    if desk.resting:
        return answer
    desk.resting = True
    return (*answer, Rest())


def _answer(desk: Desk) -> tuple[Effect, ...]:
    desk.waiting = None
    return (Answer(desk.number, tuple(desk.outbox)),)


def _withdraw(desk: Desk, batches: tuple[int, ...], kill: bool) -> tuple[Effect, ...]:
    wanted = set(batches)
    back = tuple(batch for batch in desk.queue if batch in wanted)
    if back:
        desk.queue = deque(batch for batch in desk.queue if batch not in wanted)
    stops = tuple(Stop(desk.running[batch], batch) for batch in batches if kill and batch in desk.running)
    desk.doomed.update(stop.batch for stop in stops)
    return (GiveBack(back), *stops)
