"""The state machine of a node: its state, and what comes next. Pure: no I/O, no clock, no actor.

From every state there is a path to `Ended`, and every path through `Launching` passes `Terminate`, also when the reply
to the launch was lost: whoever may have created something ends it.

    Launching → Reaching → Booting → Joining → Ready ⇄ Unresponsive
        └───────────┴─────────┴─────────┴────────┴───────┴────→ Ending → Ended
"""

from dataclasses import dataclass, replace
from typing import Literal, assert_never

MAX_TERMINATE_ATTEMPTS = 5
"""How often an end that failed is tried again before the machine is reported as leaked."""


@dataclass(frozen=True, slots=True)
class Launching:
    """A machine was asked for. With `unwanted` it is ended as soon as the answer is there."""

    unwanted: str | None = None


@dataclass(frozen=True, slots=True)
class Reaching:
    """There is a machine; it does not take commands yet."""


@dataclass(frozen=True, slots=True)
class Booting:
    """The node's process is starting."""


@dataclass(frozen=True, slots=True)
class Joining:
    """The node is up; the connection to it is being made."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The node takes batches. It was silent so many times before."""

    silences: int = 0


@dataclass(frozen=True, slots=True)
class Unresponsive:
    """The node was ready and is silent, for the `silence`th time. It is given until the grace of that is over."""

    silence: int


@dataclass(frozen=True, slots=True)
class Ending:
    """The machine is being ended, for the `attempt`th time. What is `final` would happen to another one as well."""

    reason: str
    attempt: int = 1
    final: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing of the node is left, or (`leaked`) nothing more can be done about it."""

    reason: str
    leaked: bool = False


type NodeStage = Launching | Reaching | Booting | Joining | Ready | Unresponsive | Ending | Ended


@dataclass(frozen=True, slots=True)
class Launched:
    """There is a machine."""


@dataclass(frozen=True, slots=True)
class Reached:
    """It takes commands."""


@dataclass(frozen=True, slots=True)
class Booted:
    """The node's process is up."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The connection stands."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The step under way (`launch`, `reach`, `boot`, `join`) did not succeed; `final`: nor would it another time."""

    step: Literal["launch", "reach", "boot", "join"]
    reason: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class Silenced:
    """The node was not heard for longer than is usual, or its connection is gone."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The node was heard again."""


@dataclass(frozen=True, slots=True)
class NodeExited:
    """The node's process is gone for certain."""

    reason: str


@dataclass(frozen=True, slots=True)
class GraceOver:
    """The time has passed that the node is given when it is silent, for the `silence`th time."""

    silence: int


@dataclass(frozen=True, slots=True)
class StartOverdue:
    """The time a node may take to start has passed."""


@dataclass(frozen=True, slots=True)
class Dismissed:
    """The node is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Terminated:
    """The machine is gone, or left to its lease as it does not answer."""


@dataclass(frozen=True, slots=True)
class TerminateFailed:
    """The machine could not be ended."""

    reason: str


type LifecycleEvent = (
    Launched
    | Reached
    | Booted
    | Joined
    | Failed
    | Silenced
    | Heard
    | NodeExited
    | GraceOver
    | StartOverdue
    | Dismissed
    | Terminated
    | TerminateFailed
)


@dataclass(frozen=True, slots=True)
class Launch:
    """Ask the provider for the machine."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Wait until the machine takes commands."""


@dataclass(frozen=True, slots=True)
class Boot:
    """Start the node's process and wait until it is up."""


@dataclass(frozen=True, slots=True)
class Join:
    """Connect to the node."""


@dataclass(frozen=True, slots=True)
class AnnounceUp:
    """Tell router and provisioner that the node takes batches."""


@dataclass(frozen=True, slots=True)
class AnnounceDown:
    """Tell the router that the node takes no batches any more, and what it had is lost."""

    reason: str


@dataclass(frozen=True, slots=True)
class WaitGrace:
    """Say `GraceOver(silence)` when the grace has passed."""

    silence: int


@dataclass(frozen=True, slots=True)
class WaitStart:
    """Say `StartOverdue` when a node should long have been ready."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """Close the connection and end the machine; `attempt` says after how many failures."""

    attempt: int


@dataclass(frozen=True, slots=True)
class ReportEnd:
    """Tell the provisioner that the node has ended; `final`: another one would end the same way."""

    reason: str
    leaked: bool
    final: bool = False


type LifecycleEffect = (
    Launch | Reach | Boot | Join | AnnounceUp | AnnounceDown | WaitGrace | WaitStart | Terminate | ReportEnd
)


def begin() -> tuple[NodeStage, tuple[LifecycleEffect, ...]]:
    """Return the state of a new node and what to do first."""
    return Launching(), (Launch(), WaitStart())


def step(stage: NodeStage, event: LifecycleEvent) -> tuple[NodeStage, tuple[LifecycleEffect, ...]]:
    """Return the next state and what to do. An event that no longer matters changes nothing."""
    match stage:
        case Launching(unwanted):
            return _launching(unwanted, event)
        case Reaching() | Booting() | Joining():
            return _starting(stage, event)
        case Ready() | Unresponsive():
            return _serving(stage, event)
        case Ending():
            return _ending(stage, event)
        case Ended():
            return stage, ()
    assert_never(stage)


def _launching(unwanted: str | None, event: LifecycleEvent) -> tuple[NodeStage, tuple[LifecycleEffect, ...]]:
    match event:
        case Launched():
            return (Reaching(), (Reach(),)) if unwanted is None else _end(unwanted)
        case Failed("launch", reason, final):  # perhaps only the reply was lost: end whatever carries the node's tag
            return _end(unwanted or reason, final=final)
        case Dismissed():
            return Launching("dismissed"), ()
        case StartOverdue():
            return Launching("the launch took too long"), ()
        case _:
            return Launching(unwanted), ()


def _starting(
    stage: Reaching | Booting | Joining, event: LifecycleEvent
) -> tuple[NodeStage, tuple[LifecycleEffect, ...]]:
    match stage, event:
        case Reaching(), Reached():
            return Booting(), (Boot(),)
        case Booting(), Booted():
            return Joining(), (Join(),)
        case Joining(), Joined():
            return Ready(), (AnnounceUp(),)
        case _, Failed(_, reason, final):
            return _end(reason, final=final)
        case _, NodeExited(reason):
            return _end(reason)
        case _, Dismissed():
            return _end("dismissed")
        case _, StartOverdue():
            return _end(f"the start took too long, while {type(stage).__name__.lower()}")
        case _:
            return stage, ()


def _serving(stage: Ready | Unresponsive, event: LifecycleEvent) -> tuple[NodeStage, tuple[LifecycleEffect, ...]]:
    match stage, event:
        case Ready(before), Silenced():
            return Unresponsive(before + 1), (WaitGrace(before + 1),)
        case Unresponsive(silence), Heard():
            return Ready(silence), ()
        case Unresponsive(silence), GraceOver(over) if silence == over:
            return _lose("the node was silent for too long")
        case _, NodeExited(reason):
            return _lose(reason)
        case _, Dismissed():
            return _lose("dismissed")
        case _:
            return stage, ()


def _ending(stage: Ending, event: LifecycleEvent) -> tuple[NodeStage, tuple[LifecycleEffect, ...]]:
    reason, attempt, final = stage.reason, stage.attempt, stage.final
    match event:
        case Terminated():
            return Ended(reason), (ReportEnd(reason, leaked=False, final=final),)
        case TerminateFailed(problem) if attempt >= MAX_TERMINATE_ATTEMPTS:
            reported = ReportEnd(f"{reason}; it could not be terminated: {problem}", leaked=True, final=final)
            return Ended(reason, leaked=True), (reported,)
        case TerminateFailed():
            return replace(stage, attempt=attempt + 1), (Terminate(attempt + 1),)
        case _:
            return stage, ()


def _end(reason: str, *, final: bool = False) -> tuple[NodeStage, tuple[LifecycleEffect, ...]]:
    return Ending(reason, final=final), (Terminate(1),)


def _lose(reason: str) -> tuple[NodeStage, tuple[LifecycleEffect, ...]]:
    return Ending(reason), (AnnounceDown(reason), Terminate(1))
