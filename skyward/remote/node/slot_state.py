"""The batches that a slot has in hand. Pure: no I/O, no clock, no actor.

A slot is Starting until its worker says it is up, then Idle, Running what it was given, or Stopping a batch that must
not go on. It is given one batch, or several that are expected to be over at once; the worker runs these one after the
other, and what it has not begun can be taken back. Whatever happens, each batch handed to `step` by `Run` is answered
by exactly one `Report` or `Refuse`.
"""

from dataclasses import dataclass, replace
from typing import Literal, assert_never

type Verdict = Literal["done", "died", "killed", "overdue"]


@dataclass(frozen=True, slots=True)
class Starting:
    """No worker yet. `failures` counts the workers that ended before they were up."""

    failures: int = 0


@dataclass(frozen=True, slots=True)
class Idle:
    """The worker waits."""


@dataclass(frozen=True, slots=True)
class Running:
    """The worker runs one of these, and has ended those before it; `doomed` is to be stopped if it is that one.

    With none left, it has yet to say that it has nothing more.
    """

    batches: tuple[int, ...]
    doomed: int | None = None


@dataclass(frozen=True, slots=True)
class Stopping:
    """The worker was told to stop the last of these, and has ended those before it, or (with none left) all."""

    batches: tuple[int, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The worker could not be started; the node is of no use."""


type SlotState = Starting | Idle | Running | Stopping | GivenUp


@dataclass(frozen=True, slots=True)
class Started:
    """The worker is up."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run these batches, one after the other; a single one may have a `timeout` in seconds."""

    batches: tuple[int, ...]
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The worker has completed these batches, in `seconds` together; with `last` it has no other batch."""

    batches: tuple[int, ...]
    last: bool = True
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker is gone. Of what it had in hand, the last `unstarted` batches had not begun."""

    cause: str
    unstarted: int = 0


@dataclass(frozen=True, slots=True)
class Recall:
    """Take back what the worker has not begun."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """The last so many batches will not begin."""

    count: int


@dataclass(frozen=True, slots=True)
class Stop:
    """The batch must not go on: nobody wants it any more."""

    batch: int


@dataclass(frozen=True, slots=True)
class Overran:
    """The time of the batch is up."""

    batch: int


type Event = Started | Run | Finished | Exited | Recall | Recalled | Stop | Overran


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Bring up a worker; `Started` or `Exited` follows."""


@dataclass(frozen=True, slots=True)
class StopWorker:
    """End the worker, whatever it does; `Exited` follows."""


@dataclass(frozen=True, slots=True)
class Send:
    """Hand the batches to the worker."""

    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Keep the worker from beginning another one, and say `Recalled` at once."""


@dataclass(frozen=True, slots=True)
class WakeMe:
    """Say `Overran(batch)` in so many seconds, unless the batch is reported before."""

    batch: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ReportUp:
    """Tell the foreman that the slot takes batches."""


@dataclass(frozen=True, slots=True)
class ReportDown:
    """Tell the foreman that the slot takes none until the next `ReportUp`."""


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the agent how the batches ended. With `free` the slot takes others; else a `ReportUp` may follow.

    If they are done, they took so many `seconds` together.
    """

    batches: tuple[int, ...]
    verdict: Verdict
    cause: str = ""
    free: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ReportFree:
    """Tell the foreman that the slot takes batches again, having reported all it had."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the foreman that these batches, in their order, never started."""

    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReportUseless:
    """Tell the foreman that no worker can be started here, and why."""

    cause: str


type Effect = (
    StartWorker
    | StopWorker
    | Send
    | TakeBack
    | WakeMe
    | ReportUp
    | ReportDown
    | Report
    | ReportFree
    | Refuse
    | ReportUseless
)

FAILURES = 3
"""Workers in a row that may end before they are up."""


def begin() -> tuple[SlotState, tuple[Effect, ...]]:
    """Return the state of a new slot and what to do first."""
    return Starting(), (StartWorker(),)


def step(turn: SlotState, event: Event) -> tuple[SlotState, tuple[Effect, ...]]:
    """Return the next state and what to do. An event that no longer matters changes nothing."""
    match event:
        case Started():
            return (Idle(), (ReportUp(),)) if isinstance(turn, Starting) else (turn, ())
        case Run(batches, timeout):
            if not isinstance(turn, Idle):  # handed over while the worker was ending
                return turn, (Refuse(batches),)
            timer: tuple[Effect, ...] = () if timeout is None else (WakeMe(batches[0], timeout),)
            return Running(batches), (Send(batches), *timer)
        case Finished():
            return _finished(turn, event)
        case Exited(cause, unstarted):
            return _exited(turn, cause, unstarted)
        case Recall():
            more = isinstance(turn, Running) and len(turn.batches) > 1
            return turn, (TakeBack(),) if more else ()
        case Recalled(count):
            return _recalled(turn, count)
        case Stop(batch):
            return _stopped(turn, batch)
        case Overran(batch):
            return _stopping(turn, "overdue") if isinstance(turn, Running) and turn.batches == (batch,) else (turn, ())
    assert_never(event)


def _finished(turn: SlotState, event: Finished) -> tuple[SlotState, tuple[Effect, ...]]:
    done, last = event.batches, event.last
    if not isinstance(turn, Running | Stopping) or not set(done) <= set(turn.batches):
        return turn, ()
    rest = tuple([batch for batch in turn.batches if batch not in done])
    free = last and isinstance(turn, Running)
    report = (Report(done, "done", free=free, seconds=event.seconds),) if done else ()
    if isinstance(turn, Stopping):
        down = () if rest or not done else (ReportDown(),)
        return replace(turn, batches=rest), (*report, *down)
    if last:  # `rest` is empty, unless the worker has lost count
        return Idle(), (*_refuse(rest), *(report or (ReportFree(),)))
    return replace(turn, batches=rest), report


def _stopped(turn: SlotState, batch: int) -> tuple[SlotState, tuple[Effect, ...]]:
    """A batch is to be stopped: if it runs, its worker goes; if it waits there, it is taken back with what waits."""
    if not isinstance(turn, Running) or batch not in turn.batches:
        return turn, ()
    if len(turn.batches) == 1:
        return _stopping(turn, "killed")
    return Running(turn.batches, batch), (TakeBack(),)


def _stopping(turn: Running, verdict: Verdict) -> tuple[SlotState, tuple[Effect, ...]]:
    return Stopping(turn.batches, verdict), (StopWorker(),)


def _recalled(turn: SlotState, count: int) -> tuple[SlotState, tuple[Effect, ...]]:
    """What will not begin is given back. What is to be stopped is stopped if it is the one that runs."""
    if not isinstance(turn, Running):
        return turn, ()
    first = max(0, len(turn.batches) - count)
    left, back = Running(turn.batches[:first]), _refuse(turn.batches[first:])
    if turn.doomed is None or turn.doomed not in left.batches[-1:]:
        return left, back
    stopping, effects = _stopping(left, "killed")
    return stopping, (*back, *effects)


def _refuse(batches: tuple[int, ...]) -> tuple[Effect, ...]:
    return (Refuse(batches),) if batches else ()


def _exited(turn: SlotState, cause: str, unstarted: int) -> tuple[SlotState, tuple[Effect, ...]]:
    turn, effects = _recalled(turn, unstarted)
    refused = [effect for effect in effects if isinstance(effect, Refuse)]  # there is no worker left to stop
    match turn:
        case Starting(failures):
            if failures + 1 >= FAILURES:
                return GivenUp(), (ReportUseless(cause),)
            return Starting(failures + 1), (StartWorker(),)
        case Idle():
            return Starting(), (ReportDown(), StartWorker())
        case Running(batches):
            died = (Report(batches, "died", cause),) if batches else ()
            return Starting(), (*refused, *died, StartWorker())
        case Stopping(batches, verdict):
            ended = (Report(batches, verdict, cause),) if batches else ()
            return Starting(), (*refused, *ended, StartWorker())
        case GivenUp():
            return turn, ()
    assert_never(turn)
