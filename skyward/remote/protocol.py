"""The messages that cross the wire, and what both ends must agree on to speak at all.

The driver asks, the node answers. Every ask is short and may be repeated: a command (`Assign`, `Revoke`) carries a
number that grows by one, and the agent answers a number it has already carried out with the answer it gave then.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from casty import Askable, Compression, Limits

from skyward.remote.blobs import Ref

LIMITS = Limits(frame=256 << 10, message=1 << 30, window=16 << 20)
"""Sizes in bytes; equal on both ends or the connection is refused. The window is what a link of 100 ms needs."""

CHUNK_BYTES = 2 << 20
"""Bytes of a blob that travel in one message."""

COMPRESSION = Compression(codecs=())
"""Off: payloads are pickles of arrays more often than text, and compressing those only costs time."""

MAX_CALL_BYTES = LIMITS.message - (64 << 20)
"""The most bytes that a call may add to a message, which carries an envelope and perhaps other calls beside it."""

FOREVER = timedelta(days=36500)
"""For actors that must not end by being idle."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One call to run: its number, its bytes, and the seconds it may run.

    `functions`, `buffers` and `blobs` are names, as in `packer.Packed`. `places` are those of the blobs in the driver's
    memory, where node and driver share a machine; else the node was sent them before.
    """

    id: int
    payload: bytes
    functions: tuple[str, ...] = ()
    timeout: float | None = None
    buffers: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    places: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a batch ended on its slot, in `seconds` of running. `status` is one of `call_codec.Status`.

    A large result lies in the blob `large` on its node, in parts of these sizes; its payload is empty.
    """

    batch: int
    status: str
    payload: bytes
    seconds: float
    slot: int
    large: Ref | None = None
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Opening:
    """What a slot did for a batch beside running it: it unpickled the call, imported modules, or waited for imports.

    Of the `seconds` that all of it took, `imports` has those of each module that took long.
    """

    seconds: float
    imports: Mapping[str, float]

    def __add__(self, other: "Opening") -> "Opening":
        """Return what both took, one after the other."""
        modules = {name: self.imports.get(name, 0.0) + seconds for name, seconds in other.imports.items()}
        return Opening(self.seconds + other.seconds, {**self.imports, **modules})


@dataclass(frozen=True)
class Assigned:
    """The batches of the command are here."""


@dataclass(frozen=True)
class Assign(Askable[Assigned]):
    """Take these batches. `functions` are those the node was not sent before; `forget` names those of no more use."""

    number: int
    batches: tuple[Batch, ...]
    functions: Mapping[str, bytes]
    forget: tuple[str, ...]


@dataclass(frozen=True)
class Revoked:
    """The batches of the command that had not started, and now never will."""

    batches: tuple[int, ...]


@dataclass(frozen=True)
class Revoke(Askable[Revoked]):
    """Give back what has not started; with `kill`, also stop what runs (its outcome says `killed`)."""

    number: int
    batches: tuple[int, ...]
    kill: bool


@dataclass(frozen=True)
class Collected:
    """Outcomes in the order they became ready; `number` is that of the last one.

    `openings` are those of their batches that took long, by number.
    """

    number: int
    outcomes: tuple[Outcome, ...]
    openings: Mapping[int, Opening] = field(default_factory=dict)


@dataclass(frozen=True)
class Collect(Askable[Collected]):
    """Send the outcomes after number `after`, which with all before it is hereby acknowledged.

    Answered at once when there are any, else as soon as there are, else empty after `wait` seconds. `fetched` are
    batches whose large result the driver has, or does not want.
    """

    after: int
    wait: float
    fetched: tuple[int, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What a node says of itself: slots alive, batches queued and running, one-minute load, available bytes.

    A `notice` says that its machine is about to be taken away. `cpu` is the share of its processors that worked since
    it said so before, `total` the bytes of all its memory.
    """

    slots: int
    queued: int
    running: int
    load: float
    memory: int
    notice: str = ""
    cpu: float = 0.0
    total: int = 0


@dataclass(frozen=True)
class Beat(Askable[Facts]):
    """The driver lives: renew the lease."""


@dataclass(frozen=True, slots=True)
class RunningBatch:
    """A batch that a slot has had for so many seconds, and the stack of its thread, the innermost frame first."""

    slot: int
    batch: int
    seconds: float
    text: str


@dataclass(frozen=True)
class Seen:
    """What runs on the node, by slot."""

    running: tuple[RunningBatch, ...]


@dataclass(frozen=True)
class Look(Askable[Seen]):
    """Say where the running batches are; answered within a second or two."""


type Request = Assign | Revoke | Collect | Beat | Look


@dataclass(frozen=True)
class Stored:
    """The bytes are there, unless a `problem` says why the node could not keep them."""

    problem: str = ""


@dataclass(frozen=True)
class Store(Askable[Stored]):
    """Keep these bytes of the blob of that name and size, from an offset on.

    Blobs come one after the other, each in a `round` of its own: a message of an earlier one is late and is ignored.
    """

    name: str
    size: int
    at: int
    data: bytes
    round: int


@dataclass(frozen=True)
class Drop(Askable[Stored]):
    """No batch needs these blobs now, and the driver has, or does not want, the large results of these batches.

    The `round` is that of the blob for which the others make room, as in `Store`.
    """

    names: tuple[str, ...]
    results: tuple[int, ...]
    round: int = 0


@dataclass(frozen=True)
class Chunk:
    """Bytes of a large result."""

    data: bytes


@dataclass(frozen=True)
class Fetch(Askable[Chunk]):
    """Send `CHUNK_BYTES` bytes of the large result of a batch, from an offset on; empty if the node has it no more."""

    batch: int
    at: int


type Freight = Store | Drop | Fetch
"""What goes over the second connection of a link, so that nothing short waits behind it."""
