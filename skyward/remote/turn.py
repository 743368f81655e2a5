"""What happens to the one batch a slot has in hand. Pure: no I/O, no clock, no actor.

A slot is Starting until its worker says it is up, then Idle, Running one batch, or Stopping one that must not go on.
Whatever happens, each batch handed to `step` by `Run` is answered by exactly one `Report` or `Refuse`.
"""

from dataclasses import dataclass
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
    """The worker runs `batch`."""

    batch: int


@dataclass(frozen=True, slots=True)
class Stopping:
    """The worker was told to stop `batch`, or has finished it (None) just before it was told."""

    batch: int | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The worker could not be started; the node is of no use."""


type Turn = Starting | Idle | Running | Stopping | GivenUp


@dataclass(frozen=True, slots=True)
class Started:
    """The worker is up."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run this batch, for `timeout` seconds at most."""

    batch: int
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The worker has the outcome of the batch."""

    batch: int


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker is gone."""

    cause: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The batch must not go on: nobody wants it any more."""

    batch: int


@dataclass(frozen=True, slots=True)
class Overran:
    """The time of the batch is up."""

    batch: int


type Event = Started | Run | Finished | Exited | Stop | Overran


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Bring up a worker; `Started` or `Exited` follows."""


@dataclass(frozen=True, slots=True)
class StopWorker:
    """End the worker, whatever it does; `Exited` follows."""


@dataclass(frozen=True, slots=True)
class Send:
    """Hand the batch to the worker."""

    batch: int


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
    """Tell the foreman how the batch ended. After `done` the slot is free, else a `ReportUp` follows."""

    batch: int
    verdict: Verdict
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the foreman that the batch never started; the slot is down until the next `ReportUp`."""

    batch: int


@dataclass(frozen=True, slots=True)
class ReportUseless:
    """Tell the foreman that no worker can be started here, and why."""

    cause: str


type Effect = StartWorker | StopWorker | Send | WakeMe | ReportUp | ReportDown | Report | Refuse | ReportUseless

FAILURES = 3
"""Workers in a row that may end before they are up."""


def begin() -> tuple[Turn, tuple[Effect, ...]]:
    """Return the state of a new slot and what to do first."""
    return Starting(), (StartWorker(),)


def step(turn: Turn, event: Event) -> tuple[Turn, tuple[Effect, ...]]:
    """Return the next state and what to do. An event that no longer matters changes nothing."""
    match event:
        case Started():
            return (Idle(), (ReportUp(),)) if isinstance(turn, Starting) else (turn, ())
        case Run(batch, timeout):
            if not isinstance(turn, Idle):  # handed over while the worker was ending
                return turn, (Refuse(batch),)
            timer: tuple[Effect, ...] = () if timeout is None else (WakeMe(batch, timeout),)
            return Running(batch), (Send(batch), *timer)
        case Finished(batch):
            if turn == Running(batch):
                return Idle(), (Report(batch, "done"),)
            if isinstance(turn, Stopping) and turn.batch == batch:
                return Stopping(None, turn.verdict), (Report(batch, "done"), ReportDown())
            return turn, ()
        case Exited(cause):
            return _exited(turn, cause)
        case Stop(batch):
            return (Stopping(batch, "killed"), (StopWorker(),)) if turn == Running(batch) else (turn, ())
        case Overran(batch):
            return (Stopping(batch, "overdue"), (StopWorker(),)) if turn == Running(batch) else (turn, ())
    assert_never(event)


def _exited(turn: Turn, cause: str) -> tuple[Turn, tuple[Effect, ...]]:
    match turn:
        case Starting(failures):
            if failures + 1 >= FAILURES:
                return GivenUp(), (ReportUseless(cause),)
            return Starting(failures + 1), (StartWorker(),)
        case Idle():
            return Starting(), (ReportDown(), StartWorker())
        case Running(batch):
            return Starting(), (Report(batch, "died", cause), StartWorker())
        case Stopping(batch, verdict):
            ended = () if batch is None else (Report(batch, verdict, cause),)
            return Starting(), (*ended, StartWorker())
        case GivenUp():
            return turn, ()
    assert_never(turn)
