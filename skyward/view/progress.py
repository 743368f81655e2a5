"""The progress of a run, computed from its events as they come. Pure: no I/O, no clock, no actor.

`Progress` is changed in place and holds no record of a task, so it stays small. Times are those of the events; the
caller passes the current time.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from skyward.events import (
    BatchesArrived,
    BatchesCancelled,
    BatchesEnded,
    BatchesLate,
    BatchesReturned,
    BatchesSent,
    BatchLost,
    DashboardOpened,
    Event,
    NodeChanged,
    NodeFacts,
    NodeGivenUp,
    NodeHeard,
    NodeNoticed,
    NodeSilent,
    NodeStep,
    Quoted,
    RunEnded,
    RunStarted,
    Spent,
    TasksCounted,
)
from skyward.telemetry.run_counts import RunCounts
from skyward.view.expected_tasks import Expected

PACE_WINDOW_S = (5.0, 120.0)
"""Seconds over which the rate is measured: three times as long as a task takes, within these bounds."""

ARRIVAL_SETTLE_DELAY_S = 0.5
"""Seconds in which tasks ended and none arrived, after which no more are expected."""

SLOW_RATIO = 2.5
"""A node is slow if its tasks take this many times as long as those of the others."""

LOW_MEMORY = 64 << 20, 0.05
"""Memory is low below this many bytes, or below this share of the most that was available."""

LOST_NODE_SHOWN_S = 30.0
"""Seconds for which a lost node is shown after its replacement is ready."""

NODE_PACE_GRAIN_S = 10.0
"""Seconds that are summed up for the pace of a node; coarse, because there may be many nodes."""

type Trouble = Literal["lost", "gone", "silent", "leaving", "full", "slow"]


class Pace:
    """The tasks that ended, and the seconds that they ran, summed up per `grain` seconds."""

    def __init__(self, grain: float = 1.0) -> None:
        self._grain = grain
        self._sums: deque[list[float]] = deque()

    def add(self, at: float, tasks: int, ran: float) -> None:
        """Add tasks that have ended."""
        time = at // self._grain
        if not self._sums or self._sums[-1][0] < time:
            self._sums.append([time, 0, 0.0])
            while self._sums[0][0] < (at - PACE_WINDOW_S[1]) // self._grain:
                self._sums.popleft()
        self._sums[-1][1] += tasks
        self._sums[-1][2] += ran

    def since(self, start: float) -> tuple[float, float]:
        """Return the tasks that have ended since then, and the seconds that they ran."""
        tasks, ran = 0.0, 0.0
        for time, count, seconds in reversed(self._sums):
            if time < start // self._grain:
                break
            tasks, ran = tasks + count, ran + seconds
        return tasks, ran


@dataclass(slots=True)
class NodeProgress:
    """The state of a node. A replacement continues under its number.

    `held` are the batches that were sent to it and not answered, `lost` says when and why the previous node was lost,
    `gone` why it will not be replaced.
    """

    number: int
    stage: str = "launching"
    since: float = 0.0
    step: str = ""
    host: str = ""
    slots: int = 0
    held: int = 0
    lost: tuple[float, str] | None = None
    gone: str | None = None
    noticed: str = ""
    silent: tuple[float, float] | None = None
    memory: int | None = None
    most: int = 0
    pace: Pace = field(default_factory=lambda: Pace(NODE_PACE_GRAIN_S))

    @property
    def busy(self) -> int:
        """The number of its slots that have a batch."""
        return min(self.held, self.slots)

    @property
    def full(self) -> bool:
        """Whether it is running out of memory."""
        return self.memory is not None and self.memory < max(LOW_MEMORY[0], LOW_MEMORY[1] * self.most)


@dataclass(frozen=True, slots=True)
class Concern:
    """A problem of a node. `figures` are seconds: silent since, grace; or per task here, and elsewhere."""

    node: NodeProgress
    trouble: Trouble
    text: str = ""
    figures: tuple[float, float] = (0.0, 0.0)


@dataclass(slots=True)
class Progress:
    """A run, as far as its events are known.

    Attributes
    ----------
    counts
        What was done.
    batches, known
        Batches that have arrived, and the tasks of those that are done or waited for.
    complete
        Whether all nodes that were requested were ready, or given up, at some moment.
    worked
        When there was work again after a pause.
    """

    provider: str = ""
    wanted: int = 0
    began: float = 0.0
    ended: float | None = None
    error: str = ""
    leaked: Sequence[str] = ()
    nodes: dict[int, NodeProgress] = field(default_factory=dict)
    quotes: list[Quoted] = field(default_factory=list)
    link: str = ""
    hourly: float = 0.0
    dollars: float = 0.0
    complete: bool = False
    counts: RunCounts = field(default_factory=RunCounts)
    batches: int = 0
    known: int = 0
    worked: float | None = None
    _expected: Expected = field(default_factory=Expected)
    _arrived: float = float("-inf")
    _pace: Pace = field(default_factory=Pace)

    def add(self, events: Sequence[Event]) -> None:
        """Add what has happened."""
        counts = self.counts
        for event in events:
            calls, tasks, work = counts.calls, counts.tasks, counts.work
            counts.add(event)
            match event:
                case BatchesEnded():
                    self._end(event, counts.calls - calls, counts.tasks - tasks, counts.work - work)
                case BatchesSent():
                    self.node(event.node).held += event.batches
                case NodeFacts(_, number, _, _, _, memory):
                    node = self.node(number)
                    node.memory, node.most = memory, max(node.most, memory)
                case BatchesArrived():
                    self._arrive(event)
                case TasksCounted():
                    self._expect(event)
                case _:
                    self._fold(event)

    def node(self, number: int) -> NodeProgress:
        """Return the node of a number."""
        if number not in self.nodes:
            self.nodes[number] = NodeProgress(number)
        return self.nodes[number]

    # ------------------------------------------------------------ queries

    @property
    def ready(self) -> list[NodeProgress]:
        """The nodes that are ready."""
        return [node for node in self.nodes.values() if node.stage == "ready"]

    @property
    def coming(self) -> list[NodeProgress]:
        """The nodes that are starting or being replaced."""
        return [node for node in self.nodes.values() if node.stage != "ready" and node.gone is None]

    @property
    def slots(self) -> int:
        """The number of slots that are ready."""
        return sum(node.slots for node in self.ready)

    @property
    def busy(self) -> int:
        """The number of slots that have a batch."""
        return sum(node.busy for node in self.ready)

    @property
    def done(self) -> int:
        """The number of tasks that were answered."""
        return self.counts.tasks

    @property
    def closed(self) -> int:
        """The number of batches that nobody waits for any more."""
        return self.counts.calls + self.counts.lost + self.counts.cancelled

    @property
    def open(self) -> bool:
        """Whether anything is queued, running or expected."""
        return self.closed < self.batches or bool(self._expected)

    @property
    def settled(self) -> bool:
        """Whether the total number of tasks is known."""
        return not self.open or (self._expected.known and self.counts.answered - self._arrived > ARRIVAL_SETTLE_DELAY_S)

    @property
    def total(self) -> int:
        """The number of tasks, including expected ones."""
        return self.known + self._expected.tasks

    def rate(self, now: float) -> float | None:
        """Return the tasks per second of the last seconds; None if it is too early to tell."""
        if self.worked is None:
            return None
        tasks, ran = self._pace.since(now - PACE_WINDOW_S[1])
        look = 3 * ran / tasks if tasks else 0.0
        start = max(self.worked, (now - min(max(look, PACE_WINDOW_S[0]), PACE_WINDOW_S[1])) // 1)
        tasks, _ = self._pace.since(start)
        return tasks / (now - start) if tasks and now - start >= 1 else None

    def left(self, now: float) -> float | None:
        """Return the estimated seconds until all tasks are done; None if that is not known."""
        rate = self.rate(now)
        return (self.total - self.done) / rate if rate and self.open and self.settled else None

    def concerns(self, now: float) -> list[Concern]:
        """Return the problems of nodes, the worst first."""
        slow = self._slow(now)
        found: list[Concern] = []
        for node in self.nodes.values():
            if node.gone:
                found.append(Concern(node, "gone", node.gone))
            elif node.lost is not None and (node.stage != "ready" or now - node.since < LOST_NODE_SHOWN_S):
                found.append(Concern(node, "lost", node.lost[1]))
            elif node.silent is not None:
                found.append(Concern(node, "silent", figures=node.silent))
            elif node.noticed:
                found.append(Concern(node, "leaving", node.noticed))
            elif node.stage == "ready" and node.full:
                found.append(Concern(node, "full"))
            elif node.number in slow:
                found.append(Concern(node, "slow", figures=slow[node.number]))
        order = ("gone", "lost", "silent", "leaving", "full", "slow")
        return sorted(found, key=lambda each: (order.index(each.trouble), each.node.number))

    def _slow(self, now: float) -> dict[int, tuple[float, float]]:
        """Return the slow nodes, each with its seconds per task and those of the others."""
        takes: dict[int, float] = {}
        for node in self.ready:
            tasks, ran = node.pace.since(now - PACE_WINDOW_S[1] / 2)
            if tasks >= max(3, node.slots):
                takes[node.number] = ran / tasks
        found = {}
        for number, mine in takes.items():
            others = [each for other, each in takes.items() if other != number]
            if others and mine > 0.1 and mine > SLOW_RATIO * (theirs := median(others)):
                found[number] = (mine, theirs)
        return found

    # ------------------------------------------------------------ events

    def _arrive(self, event: BatchesArrived) -> None:
        if not self.open:
            self.worked = event.at
        self.batches += event.batches
        self.known += event.tasks
        if not self._expected.arrive(event.group, event.tasks):
            self._arrived = event.at

    def _expect(self, event: TasksCounted) -> None:
        if not self.open:
            self.worked = event.at
        self._expected.count(event)

    def _end(self, event: BatchesEnded, calls: int, tasks: int, ran: float) -> None:
        node = self.node(event.node)
        node.held = max(0, node.held - len(event.batches))
        if calls:
            self._pace.add(event.at, tasks, ran)
            node.pace.add(event.at, tasks, ran)
            self._close()

    def _close(self) -> None:
        """Forget tasks that will not come, once nothing is waited for."""
        if not self.open:
            self.known = self.done

    def _drop(self, batches: int) -> None:
        """Forget the tasks of cancelled batches; their number is not known, so they count as the others."""
        waiting = max(1, self.batches - self.closed + batches)
        self.known -= round((self.known - self.done) * min(batches, waiting) / waiting)
        self._close()

    def _fold(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.provider, self.wanted, self.began = event.provider, event.nodes, event.at
            case RunEnded():
                self.ended, self.error, self.leaked = event.at, event.error, event.leaked
            case DashboardOpened():
                self.link = event.url
            case Quoted():
                self.quotes.append(event)
            case Spent():
                self.dollars, self.hourly = event.dollars, event.hourly
            case NodeChanged():
                self._change(self.node(event.node), event)
            case NodeStep():
                self.node(event.node).step = event.step
            case NodeSilent():
                self.node(event.node).silent = (event.at, event.grace)
            case NodeHeard():
                self.node(event.node).silent = None
            case NodeNoticed():
                self.node(event.node).noticed = event.said
            case NodeGivenUp():
                self.node(event.node).gone = event.reason
                self._begin()
            case BatchesReturned():
                node = self.node(event.node)
                node.held = max(0, node.held - event.batches)
            case BatchLost():
                self.known -= event.tasks
                self._close()
            case BatchesCancelled():
                self._drop(event.batches)
            case BatchesLate():
                self._close()
            case _:
                pass

    def _change(self, node: NodeProgress, event: NodeChanged) -> None:
        if event.stage == "ending" and event.reason not in ("", "dismissed"):
            node.lost = (event.at, event.reason)
        elif event.stage == "launching":
            node.gone, node.host = None, ""
        node.stage, node.since, node.step = event.stage, event.at, ""
        node.silent, node.noticed = None, ""
        node.host, node.slots = event.host or node.host, event.slots or node.slots
        node.held, node.memory = 0, None
        node.pace = Pace(NODE_PACE_GRAIN_S)
        self._begin()

    def _begin(self) -> None:
        """Note when all requested nodes are ready or given up."""
        if not self.complete and len(self.nodes) >= self.wanted:
            self.complete = not self.coming
