"""Where the slots' time went, in sums that grow as it passes. Pure: no I/O, no clock, no actor.

`Utilization` is changed in place: by the router at each of its turns, and by the node clients with what they transfer.
Its `counts` are those of the events that the driver emits. Times are seconds of a clock that never goes backwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from skyward.telemetry.report import LostTime, NodeUse, Report, apportioned
from skyward.telemetry.run_counts import RunCounts


@dataclass(slots=True)
class Transfers:
    """The most slots that a node had, and the bytes of large buffers that it received and of large results from it."""

    slots: int = 0
    shared: int = 0
    fetched: int = 0


@dataclass(slots=True)
class Utilization:
    """The sums of one pool.

    Attributes
    ----------
    counts
        What was done.
    nodes
        The nodes that are up or being replaced, and all that were.
    slots, every
        The slots of those that are not given up, and their sum.
    since
        When calls arrived last; since then there were `empty` slot seconds without a call, and `packing` seconds.
    busy, up, open
        What the router knows: slots that have a call, slots of nodes that are up, and whether any call is unanswered.
    full
        Whether every slot had a call at some moment of this run.
    """

    counts: RunCounts = field(default_factory=RunCounts)
    nodes: dict[int, Transfers] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    every: int = 0
    clock: float = 0.0
    busy: int = 0
    up: int = 0
    open: bool = False
    began: float = 0.0
    since: float = 0.0
    empty: float = 0.0
    packing: float = 0.0
    full: bool = False
    total: float = 0.0
    capacity: float = 0.0
    filled: float = 0.0
    start: float = 0.0
    serialization: float = 0.0
    idle: float = 0.0
    tail: float = 0.0

    # ------------------------------------------------------------ time

    def turn(self, now: float, busy: int, up: int, *, open: bool) -> None:
        """The router has taken a turn, and this is what it knows now."""
        if self.open:
            self._pass(now)
            if not open:
                self.tail += self.empty
                self.empty = 0.0
        self.clock, self.busy, self.up, self.open = now, busy, up, open
        self.full = open and (self.full or busy == up)

    def arrive(self, began: float, now: float, packing: float) -> None:
        """Calls are coming, the first of which the caller began to pack at `began`; all took `packing` seconds."""
        if not self.open:
            self.began = self.since = self.clock = max(self.clock, began)
            self.packing = 0.0
            self.open = True
        self._pass(now)
        self.packing += packing
        if self.empty:
            spent = min(1.0, self.packing / (now - self.since))
            self.serialization += self.empty * spent
            if self.full:
                self.idle += self.empty * (1.0 - spent)
            else:
                self.start += self.empty * (1.0 - spent)
        self.since, self.empty, self.packing = now, 0.0, 0.0

    def _pass(self, now: float) -> None:
        """Account for the time since the last turn, in which nothing changed."""
        seconds = now - self.clock
        self.clock = now
        self.total += seconds
        self.capacity += seconds * self.every
        self.start += seconds * (self.every - self.up)
        self.filled += seconds * self.busy
        self.empty += seconds * (self.up - self.busy)

    # ------------------------------------------------------------ nodes

    def come(self, node: int, slots: int) -> None:
        """A node is up."""
        known = self.nodes.setdefault(node, Transfers())
        known.slots = max(known.slots, slots)
        self.slots[node] = slots
        self.every = sum(self.slots.values())

    def go(self, node: int) -> None:
        """A node will not be replaced."""
        self.slots.pop(node, None)
        self.every = sum(self.slots.values())

    def share(self, node: int, size: int) -> None:
        """The node has a large buffer of so many bytes now, for all its slots."""
        self.nodes[node].shared += size

    def fetch(self, node: int, size: int) -> None:
        """A large result of so many bytes has come from the node."""
        self.nodes[node].fetched += size

    # ------------------------------------------------------------ the report

    def report(self, now: float, at: float, held: Mapping[int, int], deaths: int) -> Report:
        """Return the report.

        Parameters
        ----------
        now, at
            The time by this clock, and by that of events.
        held
            How many batches each node has.
        deaths
            How many attempts died.
        """
        if self.open:
            self._pass(now)
        counts = self.counts
        opening = min(counts.opening, self.filled)
        there = self.filled - opening
        running = min(self._running(now, at, held), there - counts.work) if self.open else 0.0
        work = min(counts.work + max(0.0, running), there)
        lost = LostTime(self.start, self.serialization, opening, self.idle, self.tail + self.empty, there - work)
        return Report(
            tasks=counts.tasks,
            calls=counts.calls,
            lost_calls=counts.lost,
            raised=counts.raised,
            cancelled=counts.cancelled,
            attempts=counts.calls + counts.late + deaths,
            retries=dict(counts.retries),
            retried={cause: tuple(calls) for cause, calls in counts.retried.items()},
            late=counts.late,
            nodes={number: self._use(number) for number in sorted(self.nodes)},
            total=self.total,
            capacity=self.capacity,
            work=work,
            lost=apportioned(lost, self.capacity),
            imports=dict(counts.imports),
        )

    def _use(self, number: int) -> NodeUse:
        node, known = self.counts.nodes[number], self.nodes[number]
        busy = tuple(node.busy.get(slot, 0.0) for slot in range(known.slots))
        received = node.received + known.fetched
        return NodeUse(self.slots.get(number, 0), node.calls, busy, node.sent, received, known.shared)

    def _running(self, now: float, at: float, held: Mapping[int, int]) -> float:
        """Return the seconds that running calls have run, if each began when its slot ended the one before."""
        seconds = 0.0
        for number, count in held.items():
            last, slots = self.counts.nodes[number].last, self.nodes[number].slots
            share = min(1.0, count / slots)
            seconds += share * sum(min(now - self.began, at - last.get(slot, 0.0)) for slot in range(slots))
        return seconds
