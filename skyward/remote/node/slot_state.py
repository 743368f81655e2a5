"""The state of a slot, its worker and its batches. Pure: no I/O, no clock, no actor.

A slot is Starting until its worker is up, then Idle, Running what it was given, or Stopping a batch. It is given one
batch, or several that are expected to be over at once; the worker runs these one after the other, and what it has not
begun can be taken back. Whatever happens, each batch handed to `step` by `Run` is answered by exactly one
`ReportBatches` or `Refuse`.
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
    """The worker runs the first of these that it has not ended; if that is `stopping`, it is to be stopped.

    With none left, the worker has not yet reported that it has no more.
    """

    batches: tuple[int, ...]
    stopping: int | None = None


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
class WorkerStarted:
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
class WorkerExited:
    """The worker has exited. Of its batches, the last `unstarted` had not begun."""

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
    """Stop the batch: its outcome is no longer wanted."""

    batch: int


@dataclass(frozen=True, slots=True)
class Overran:
    """The time of the batch is up."""

    batch: int


type SlotEvent = WorkerStarted | Run | Finished | WorkerExited | Recall | Recalled | Stop | Overran


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Bring up a worker; `WorkerStarted` or `WorkerExited` follows."""


@dataclass(frozen=True, slots=True)
class StopWorker:
    """End the worker, whatever it does; `WorkerExited` follows."""


@dataclass(frozen=True, slots=True)
class Send:
    """Hand the batches to the worker."""

    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Keep the worker from beginning another one; `Recalled` follows at once."""


@dataclass(frozen=True, slots=True)
class WakeMe:
    """Send `Overran(batch)` in so many seconds, unless the batch is reported before."""

    batch: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ReportUp:
    """Tell the agent that the slot takes batches."""


@dataclass(frozen=True, slots=True)
class ReportDown:
    """Tell the agent that the slot takes none until the next `ReportUp`."""


@dataclass(frozen=True, slots=True)
class ReportBatches:
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
    """Tell the agent that the slot takes batches again, having reported all it had."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the agent that these batches, in their order, never started."""

    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReportUseless:
    """Tell the agent that no worker can be started here, and why."""

    cause: str


type SlotEffect = (
    StartWorker
    | StopWorker
    | Send
    | TakeBack
    | WakeMe
    | ReportUp
    | ReportDown
    | ReportBatches
    | ReportFree
    | Refuse
    | ReportUseless
)

MAX_START_FAILURES = 3
"""Workers in a row that may end before they are up."""


def begin() -> tuple[SlotState, tuple[SlotEffect, ...]]:
    """Return the state of a new slot and what to do first."""
    return Starting(), (StartWorker(),)


def step(state: SlotState, event: SlotEvent) -> tuple[SlotState, tuple[SlotEffect, ...]]:
    """Return the next state and what to do. An event that no longer matters changes nothing."""
    match event:
        case WorkerStarted():
            return (Idle(), (ReportUp(),)) if isinstance(state, Starting) else (state, ())
        case Run(batches, timeout):
            if not isinstance(state, Idle):  # handed over while the worker was ending
                return state, (Refuse(batches),)
            timer: tuple[SlotEffect, ...] = () if timeout is None else (WakeMe(batches[0], timeout),)
            return Running(batches), (Send(batches), *timer)
        case Finished():
            return _finished(state, event)
        case WorkerExited(cause, unstarted):
            return _exited(state, cause, unstarted)
        case Recall():
            more = isinstance(state, Running) and len(state.batches) > 1
            return state, (TakeBack(),) if more else ()
        case Recalled(count):
            return _recalled(state, count)
        case Stop(batch):
            return _stopped(state, batch)
        case Overran(batch) if isinstance(state, Running) and state.batches == (batch,):
            return _stopping(state, "overdue")
        case Overran():
            return state, ()
    assert_never(event)


def _finished(state: SlotState, event: Finished) -> tuple[SlotState, tuple[SlotEffect, ...]]:
    done, last = event.batches, event.last
    if not isinstance(state, Running | Stopping) or not set(done) <= set(state.batches):
        return state, ()
    rest = tuple([batch for batch in state.batches if batch not in done])
    free = last and isinstance(state, Running)
    report = (ReportBatches(done, "done", free=free, seconds=event.seconds),) if done else ()
    if isinstance(state, Stopping):
        down = () if rest or not done else (ReportDown(),)
        return replace(state, batches=rest), (*report, *down)
    if last:  # `rest` is empty, unless the worker has lost count
        return Idle(), (*_refuse(rest), *(report or (ReportFree(),)))
    return replace(state, batches=rest), report


def _stopped(state: SlotState, batch: int) -> tuple[SlotState, tuple[SlotEffect, ...]]:
    """A batch is to be stopped: if it runs, its worker goes; if it waits there, it is taken back with what waits."""
    if not isinstance(state, Running) or batch not in state.batches:
        return state, ()
    if len(state.batches) == 1:
        return _stopping(state, "killed")
    return Running(state.batches, batch), (TakeBack(),)


def _stopping(state: Running, verdict: Verdict) -> tuple[SlotState, tuple[SlotEffect, ...]]:
    return Stopping(state.batches, verdict), (StopWorker(),)


def _recalled(state: SlotState, count: int) -> tuple[SlotState, tuple[SlotEffect, ...]]:
    """What will not begin is given back. What is to be stopped is stopped if it is the one that runs."""
    if not isinstance(state, Running):
        return state, ()
    first = max(0, len(state.batches) - count)
    left, back = Running(state.batches[:first]), _refuse(state.batches[first:])
    if state.stopping is None or state.stopping not in left.batches[-1:]:
        return left, back
    stopped, effects = _stopping(left, "killed")
    return stopped, (*back, *effects)


def _refuse(batches: tuple[int, ...]) -> tuple[SlotEffect, ...]:
    return (Refuse(batches),) if batches else ()


def _exited(state: SlotState, cause: str, unstarted: int) -> tuple[SlotState, tuple[SlotEffect, ...]]:
    state, effects = _recalled(state, unstarted)
    refused = [effect for effect in effects if isinstance(effect, Refuse)]  # there is no worker left to stop
    match state:
        case Starting(failures):
            if failures + 1 >= MAX_START_FAILURES:
                return GivenUp(), (ReportUseless(cause),)
            return Starting(failures + 1), (StartWorker(),)
        case Idle():
            return Starting(), (ReportDown(), StartWorker())
        case Running(batches):
            died = (ReportBatches(batches, "died", cause),) if batches else ()
            return Starting(), (*refused, *died, StartWorker())
        case Stopping(batches, verdict):
            ended = (ReportBatches(batches, verdict, cause),) if batches else ()
            return Starting(), (*refused, *ended, StartWorker())
        case GivenUp():
            return state, ()
    assert_never(state)
