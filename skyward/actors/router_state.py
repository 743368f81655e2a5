"""The state that `routing` decides by: what there is to do, and who has it. It holds numbers only."""

from collections import deque
from dataclasses import dataclass, field

ROUND_TRIPS_AHEAD = 3
"""Round trips that may pass from the end of a batch until the next one that is sent for it is there."""

MAX_QUEUED_PER_SLOT = 16
"""Batches queued on a node for each of its slots beyond which no more are sent ahead."""

SIMILAR_PACE_RATIO = 1.5
"""A node that is so many times as slow as another, or less, counts as equally fast."""

MIN_BATCH_S = 1e-6
"""Seconds that a batch runs at least."""

MAX_BYTES_AHEAD = 64 << 20
"""Bytes on a node beyond which nothing is sent there that its slots are not free for."""

MAX_INTERRUPTIONS = 10
"""How often a batch is tried again, beside its retries, that was lost with a node that was leaving anyway."""


@dataclass(slots=True)
class QueuedBatch:
    """A batch that has not been answered. It brings `size` bytes that the batches before it did not.

    It was lost `interruptions` times with a node that was leaving.

    `at` is the node that has it, or None. `asked` says that it was asked back, `unwanted` that it was cancelled.
    """

    group: int
    node: int | None
    retries: int
    size: int = 0
    at: int | None = None
    deaths: tuple[str, ...] = ()
    asked: bool = False
    unwanted: bool = False
    interruptions: int = 0


@dataclass(slots=True)
class BatchGroup:
    """Batches that share a limit: those that wait, oldest first, and how many are on nodes."""

    limit: int | None
    queue: deque[int] = field(default_factory=deque)
    out: int = 0

    @property
    def open(self) -> bool:
        """Whether a batch of the group may be placed."""
        return bool(self.queue) and (self.limit is None or self.out < self.limit)


@dataclass(slots=True)
class NodeLoad:
    """A node that takes batches: `held`, in the order it got them, which is the order it starts them in.

    `round_trip` is the network round trip in seconds, `pace` the recent run time of its batches, `quiet` the seconds
    since its last outcome, at least. It may hold `most` batches, if that is known; those that it holds have `size`
    bytes. A node that is `leaving` gets no more.
    """

    slots: int
    round_trip: float = 0.0
    pace: float | None = None
    quiet: float = 0.0
    most: int | None = None
    size: int = 0
    leaving: bool = False
    held: dict[int, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """How many batches wait for slots, the most slots that a node has, and the nodes that hold no batch."""

    waiting: int
    slots: int
    empty: tuple[int, ...]


@dataclass(slots=True)
class RouterState:
    """The state of a pool's work: owned by one router, changed by `step` only.

    `prefetch` is how many batches a node holds beyond its slots (None: as many as it has slots). `items` are those that
    have not been answered, `groups` the groups that have such, and `turns` those with something to place, the next one
    first. `pinned` are, for each node number, the batches that may run nowhere else and wait for it; `removed` says of
    a number why it comes no more. `pace` is how many seconds batches ran lately, on average, and `looking` says that a
    `ScheduleRebalance` is on its way.

    `slow` are the nodes that are much slower than the average, `leavers` those that are leaving and hold something yet.
    `queued` counts what nodes hold beyond their slots.

    For the report: `filled` slots have a batch, of the `slots` of all `nodes`; so many `deaths` of batches there were.
    """

    prefetch: int | None = None
    items: dict[int, QueuedBatch] = field(default_factory=dict)
    groups: dict[int, BatchGroup] = field(default_factory=dict)
    turns: deque[int] = field(default_factory=deque)
    pinned: dict[int, deque[int]] = field(default_factory=dict)
    nodes: dict[int, NodeLoad] = field(default_factory=dict)
    removed: dict[int, str] = field(default_factory=dict)
    pace: float | None = None
    looking: bool = False
    slow: set[int] = field(default_factory=set)
    leavers: set[int] = field(default_factory=set)
    filled: int = 0
    queued: int = 0
    slots: int = 0
    deaths: int = 0

    def give(self, batch: int, number: int, node: NodeLoad) -> None:
        """The node has the batch now."""
        item = self.items[batch]
        item.at = number
        node.held[batch] = None
        node.size += item.size
        if len(node.held) <= node.slots:
            self.filled += 1
        else:
            self.queued += 1

    def take(self, batch: int, item: QueuedBatch, node: NodeLoad) -> None:
        """The node does not have the batch any more."""
        del node.held[batch]
        node.size -= item.size
        item.at, item.asked = None, False
        if len(node.held) < node.slots:
            self.filled -= 1
        else:
            self.queued -= 1

    def load(self) -> PoolLoad:
        """What decides how many nodes there should be."""
        slots = max((node.slots for node in self.nodes.values()), default=1)
        return PoolLoad(self.waiting(), slots, tuple(number for number, node in self.nodes.items() if not node.held))

    def waiting(self) -> int:
        """How many batches would run now if there were slots for them."""
        count = self.queued + sum(len(queue) for number, queue in self.pinned.items() if number in self.nodes)
        for group in self.groups.values():
            count += len(group.queue) if group.limit is None else min(len(group.queue), group.limit - group.out)
        return count

    def note_pace(self, number: int, seconds: float) -> None:
        """Batches of the node ran for so long on average."""
        self.pace = _blended(self.pace, seconds)
        if (node := self.nodes.get(number)) is not None:
            node.pace, node.quiet, node.most = _blended(node.pace, seconds), 0.0, None
            (self.slow.add if node.pace > SIMILAR_PACE_RATIO * self.pace else self.slow.discard)(number)

    def note_round_trip(self, number: int, seconds: float) -> None:
        """The way to the node and back takes so long now."""
        if (node := self.nodes.get(number)) is not None:
            node.round_trip, node.most = seconds, None

    def room(self, node: NodeLoad) -> int:
        """How many more batches the node may be given."""
        if node.leaving:
            return 0
        if node.most is None:
            node.most = node.slots + self._ahead(node)
        return (node.most if node.size < MAX_BYTES_AHEAD else node.slots) - len(node.held)

    def depth(self) -> float:
        """How many batches nodes would hold for each of their slots, if there were enough; 2 while there is no node."""
        nodes = [node for node in tuple(self.nodes.values()) if not node.leaving]
        slots = sum(node.slots for node in nodes)
        return sum(node.slots + self._ahead(node) for node in nodes) / slots if slots else 2.0

    def _ahead(self, node: NodeLoad) -> int:
        """How many batches are queued on the node.

        While an answer travels, is answered with another batch and that one travels, the slots must not run out of
        those that are queued: an outcome may just have missed a poll, and a batch an assignment, so `ROUND_TRIPS_AHEAD`
        are covered.
        """
        if self.prefetch is not None:
            return self.prefetch
        if node.pace is None:
            return node.slots
        rounds = min(MAX_QUEUED_PER_SLOT, ROUND_TRIPS_AHEAD * node.round_trip / max(node.pace, MIN_BATCH_S))
        return max(node.slots, int(rounds * node.slots))


def _blended(before: float | None, now: float) -> float:
    return now if before is None else 0.9 * before + 0.1 * now
