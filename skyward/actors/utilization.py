"""Where the slots' time went, in sums that grow as it passes. Pure: no I/O, no clock, no actor.

`Utilization` is changed in place: by the router at each of its turns, by the links and the office with what they
carry. It holds no record of a call, so it stays small however many there are. Times are seconds of one clock that goes
forward.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from skyward.actors.router_state import CAUSES
from skyward.telemetry.report import Lost, NodeUse, Report, apportioned, without_slot

NAMED = 5
"""Calls of each cause that are named when they were tried again."""


class Ran(Protocol):
    """What a node says of a call that ended there; `slot` is negative for one that never started."""

    @property
    def slot(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def payload(self) -> bytes: ...


class Opened(Protocol):
    """What a slot did for a call beside running it."""

    @property
    def seconds(self) -> float: ...
    @property
    def imports(self) -> Mapping[str, float]: ...


@dataclass(slots=True)
class Use:
    """What one node did: seconds that each slot was `busy`, and when it `last` ended a call."""

    busy: list[float]
    last: list[float]
    calls: int = 0
    sent: int = 0
    received: int = 0
    shared: int = 0


@dataclass(slots=True)
class Utilization:
    """The sums of one pool.

    Attributes
    ----------
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
    retried
        Calls that were tried again, by the cause that they died of.
    """

    nodes: dict[int, Use] = field(default_factory=dict)
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
    work: float = 0.0
    opening: float = 0.0
    imports: dict[str, float] = field(default_factory=dict)
    tasks: int = 0
    calls: int = 0
    lost_calls: int = 0
    raised: int = 0
    cancelled: int = 0
    late: int = 0
    retried: dict[str, list[str]] = field(default_factory=dict)

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

    # ------------------------------------------------------------ nodes and calls

    def come(self, node: int, slots: int) -> None:
        """A node is up."""
        use = self.nodes.setdefault(node, Use([], []))
        missing = slots - len(use.busy)
        use.busy += [0.0] * missing
        use.last += [0.0] * missing
        self.slots[node] = slots
        self.every = sum(self.slots.values())

    def go(self, node: int) -> None:
        """A node will not be replaced."""
        self.slots.pop(node, None)
        self.every = sum(self.slots.values())

    def send(self, node: int, size: int) -> None:
        """So many bytes are sent to the node."""
        self.nodes[node].sent += size

    def share(self, node: int, size: int) -> None:
        """The node has a large buffer of so many bytes now, for all its slots."""
        self.nodes[node].shared += size

    def fetch(self, node: int, size: int) -> None:
        """A large result of so many bytes has come from the node."""
        self.nodes[node].received += size

    def receive(self, node: int, now: float, outcomes: Iterable[Ran], openings: Iterable[Opened] = ()) -> None:
        """The node sent these outcomes, some of which had an opening that took long."""
        use = self.nodes[node]
        for outcome in outcomes:
            use.received += len(outcome.payload)
            if outcome.slot >= 0:
                use.calls += 1
                use.busy[outcome.slot] += outcome.seconds
                use.last[outcome.slot] = now
        for opening in openings:
            self.opening += opening.seconds
            for module, took in opening.imports.items():
                self.imports[module] = self.imports.get(module, 0.0) + took

    def settle(self, tasks: int, seconds: float, *, raised: bool = False) -> None:
        """A call of so many tasks, which ran for so long, is answered: it returned, or it `raised`."""
        self.calls += 1
        self.raised += raised
        self.tasks += tasks
        self.work += seconds

    def retry(self, cause: str, call: str) -> None:
        """A call is tried again, which died of this cause; the first few are named."""
        cause = without_slot(cause)
        if cause in self.retried or len(self.retried) < CAUSES:
            calls = self.retried.setdefault(cause, [])
            if len(calls) < NAMED:
                calls.append(call)

    # ------------------------------------------------------------ the report

    def report(self, now: float, held: Mapping[int, int], deaths: int, retries: Mapping[str, int]) -> Report:
        """Say what has been, with how many batches each node holds and how calls died and were tried again."""
        if self.open:
            self._pass(now)
        opening = min(self.opening, self.filled)
        there = self.filled - opening
        running = min(self._running(now, held), there - self.work) if self.open else 0.0
        work = min(self.work + max(0.0, running), there)
        lost = Lost(self.start, self.serialization, opening, self.idle, self.tail + self.empty, there - work)
        return Report(
            tasks=self.tasks,
            calls=self.calls,
            lost_calls=self.lost_calls,
            raised=self.raised,
            cancelled=self.cancelled,
            attempts=self.calls + self.late + deaths,
            retries=dict(retries),
            retried={cause: tuple(calls) for cause, calls in self.retried.items() if cause in retries},
            late=self.late,
            nodes={
                number: NodeUse(
                    self.slots.get(number, 0), use.calls, tuple(use.busy), use.sent, use.received, use.shared
                )
                for number, use in sorted(self.nodes.items())
            },
            total=self.total,
            capacity=self.capacity,
            work=work,
            lost=apportioned(lost, self.capacity),
            imports=dict(self.imports),
        )

    def _running(self, now: float, held: Mapping[int, int]) -> float:
        """Seconds that the calls which run now have run, if each began when its slot ended the one before."""
        seconds = 0.0
        for node, count in held.items():
            last = self.nodes[node].last
            share = min(1.0, count / len(last))
            seconds += share * sum(now - max(self.began, each) for each in last)
        return seconds
