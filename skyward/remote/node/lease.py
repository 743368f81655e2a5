"""The lease of a node: when it must shut itself down. Pure: no I/O, no clock, no actor.

The parent process of the node, started before anything else there, reports what happened and when, in seconds of a
monotonic clock. The answer is the time of the next check, or the reason to end the node.
"""

from dataclasses import dataclass, replace
from typing import assert_never

ACTORS_GONE = "the actor process is gone"
"""The only reason that is a failure of the node itself."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease of a node.

    Attributes
    ----------
    duration
        Seconds without contact to the driver after which the node shuts itself down.
    first_contact
        The same, until the first contact.
    began
        When the node began.
    renewed
        The time of the last contact; None before the first.
    """

    duration: float
    first_contact: float
    began: float
    renewed: float | None = None


@dataclass(frozen=True, slots=True)
class Renewed:
    """The driver has made contact."""

    now: float


@dataclass(frozen=True, slots=True)
class Elapsed:
    """Time has passed."""

    now: float


@dataclass(frozen=True, slots=True)
class DriverGone:
    """The driver's process has ended."""


@dataclass(frozen=True, slots=True)
class ActorsGone:
    """The process of the actors has ended."""


@dataclass(frozen=True, slots=True)
class FolderGone:
    """The node's folder has been removed."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The node was asked to end."""


type LeaseEvent = Renewed | Elapsed | DriverGone | ActorsGone | FolderGone | StopRequested


@dataclass(frozen=True, slots=True)
class Wait:
    """Send `Elapsed` at this time, unless something happens before."""

    until: float


@dataclass(frozen=True, slots=True)
class EndNode:
    """End the node."""

    reason: str


def step(lease: Lease, event: LeaseEvent) -> tuple[Lease, Wait | EndNode]:
    """Return the lease after the event, and what to do."""
    match event:
        case Renewed(now):
            renewed = replace(lease, renewed=now)
            return renewed, _check(renewed, now)
        case Elapsed(now):
            return lease, _check(lease, now)
        case DriverGone():
            return lease, EndNode("the driver is gone")
        case ActorsGone():
            return lease, EndNode(ACTORS_GONE)
        case FolderGone():
            return lease, EndNode("its folder is gone")
        case StopRequested():
            return lease, EndNode("told to stop")
    assert_never(event)


def _check(lease: Lease, now: float) -> Wait | EndNode:
    if lease.renewed is None:
        last, reason = lease.began + lease.first_contact, "the driver never made contact"
    else:
        last, reason = lease.renewed + lease.duration, "the driver was not heard from any more"
    return Wait(last) if now < last else EndNode(reason)
