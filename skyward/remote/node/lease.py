"""When a node must shut itself down. Pure: no I/O, no clock, no actor.

The leash lives in a process of its own, started before anything else on the node. It is told what happened and when, in
seconds of a clock that only goes forward, and answers with the time to look again or the reason to end.
"""

from dataclasses import dataclass, replace
from typing import assert_never

HOST_GONE = "the host process is gone"
"""The reason to end for which nobody outside has asked."""


@dataclass(frozen=True, slots=True)
class Leash:
    """What a node is held by.

    Attributes
    ----------
    lease
        Seconds without contact to the driver after which the node shuts itself down.
    first_contact
        The same, until the driver has been heard for the first time.
    began
        When the node began.
    heard
        When the driver was last heard; None for not yet.
    """

    lease: float
    first_contact: float
    began: float
    heard: float | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """The driver was heard."""

    now: float


@dataclass(frozen=True, slots=True)
class Elapsed:
    """Time has gone by."""

    now: float


@dataclass(frozen=True, slots=True)
class DriverGone:
    """The driver's process has ended."""


@dataclass(frozen=True, slots=True)
class HostGone:
    """The process with the foreman has ended."""


@dataclass(frozen=True, slots=True)
class FolderGone:
    """Somebody has removed the node's folder, or the machine has lost its files."""


@dataclass(frozen=True, slots=True)
class Told:
    """Somebody asked the node to end."""


type Event = Heard | Elapsed | DriverGone | HostGone | FolderGone | Told


@dataclass(frozen=True, slots=True)
class Wait:
    """All is well until this time; say `Elapsed` then."""

    until: float


@dataclass(frozen=True, slots=True)
class End:
    """End the node."""

    reason: str


def step(leash: Leash, event: Event) -> tuple[Leash, Wait | End]:
    """Return the leash after the event, and what follows from it."""
    match event:
        case Heard(now):
            held = replace(leash, heard=now)
            return held, _look(held, now)
        case Elapsed(now):
            return leash, _look(leash, now)
        case DriverGone():
            return leash, End("the driver is gone")
        case HostGone():
            return leash, End(HOST_GONE)
        case FolderGone():
            return leash, End("its folder is gone")
        case Told():
            return leash, End("told to stop")
    assert_never(event)


def _look(leash: Leash, now: float) -> Wait | End:
    if leash.heard is None:
        last, reason = leash.began + leash.first_contact, "the driver never made contact"
    else:
        last, reason = leash.heard + leash.lease, "the driver was not heard from any more"
    return Wait(last) if now < last else End(reason)
