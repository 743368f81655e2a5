"""What a run has done, counted from its events: behind report, console and page. Pure: no I/O, no clock, no actor.

`RunCounts` is changed in place. The driver counts the events that it emits, and the views those that they are given, so
all show the same numbers. It holds no record of a call, so it stays small however many there are.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from skyward.events import (
    BatchesCancelled,
    BatchesEnded,
    BatchesLate,
    BatchesSent,
    BatchLost,
    BatchRetried,
    Event,
    ResultsLost,
    RunEnded,
)
from skyward.telemetry.report import Report, without_slot

MAX_CAUSES = 32
"""Causes of retries that are counted each by itself."""

OTHER_CAUSES = "other causes"

MAX_NAMED_CALLS = 5
"""Retried calls that are named for each cause."""


@dataclass(slots=True)
class NodeCounts:
    """What one node did, with those that it replaced.

    Attributes
    ----------
    calls
        Calls that ended on one of its slots.
    tasks
        Tasks that it answered.
    sent, received
        Bytes of calls with their functions, and bytes of outcomes without large results.
    busy, last
        For each slot that ended a call, the seconds that it ran calls, and when the last one ended.
    """

    calls: int = 0
    tasks: int = 0
    sent: int = 0
    received: int = 0
    busy: dict[int, float] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class RunCounts:
    """The counts of one run; those that a `Report` has as well are explained there.

    Attributes
    ----------
    work
        Seconds that answered calls ran.
    opening
        Seconds in which slots unpickled calls or imported modules for them.
    answered
        When a call was answered last.
    """

    tasks: int = 0
    calls: int = 0
    raised: int = 0
    lost: int = 0
    cancelled: int = 0
    late: int = 0
    work: float = 0.0
    opening: float = 0.0
    answered: float = 0.0
    imports: dict[str, float] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)
    retried: dict[str, list[str]] = field(default_factory=dict)
    nodes: defaultdict[int, NodeCounts] = field(default_factory=lambda: defaultdict(NodeCounts))

    def add(self, event: Event) -> None:
        """Count an event."""
        match event:
            case BatchesEnded():
                self._end(event)
            case BatchesSent():
                self.nodes[event.node].sent += event.size
            case BatchesLate():
                self.late += event.batches
                self._take_back(event)
            case ResultsLost():
                self._take_back(event)
            case BatchRetried():
                self._retry(event)
            case BatchLost():
                self.lost += 1
            case BatchesCancelled():
                self.cancelled += event.batches
            case RunEnded() if event.report:
                self._settle(Report.from_dict(event.report))
            case _:
                pass

    def _end(self, event: BatchesEnded) -> None:
        """Count calls that a node answered, or that died there."""
        node = self.nodes[event.node]
        calls, tasks, work = len(event.statuses), sum(event.tasks), sum(event.seconds)
        if event.statuses.count("returned") != calls:
            for status, held, seconds in zip(event.statuses, event.tasks, event.seconds, strict=True):
                if status in ("killed", "died"):  # nobody waits for it, or it is retried
                    calls, tasks, work = calls - 1, tasks - held, work - seconds
                elif status != "returned":
                    self.raised += 1
        if calls:
            self.answered = event.at
        self.calls += calls
        self.tasks += tasks
        self.work += work
        self.opening += sum(event.opening)
        for module, seconds in event.imports.items():
            self.imports[module] = self.imports.get(module, 0.0) + seconds
        node.tasks += tasks
        node.received += event.size
        for slot, seconds in zip(event.slots, event.seconds, strict=True):
            if slot >= 0:
                node.calls += 1
                node.busy[slot] = node.busy.get(slot, 0.0) + seconds
                node.last[slot] = event.at

    def _take_back(self, event: BatchesLate | ResultsLost) -> None:
        """The callers did not get these answers."""
        self.calls -= event.batches
        self.tasks -= event.tasks
        self.raised -= event.raised
        self.work -= event.seconds

    def _retry(self, event: BatchRetried) -> None:
        cause = without_slot(event.cause)
        if cause not in self.retries and len(self.retries) >= MAX_CAUSES:
            cause = OTHER_CAUSES
        elif event.call and len(calls := self.retried.setdefault(cause, [])) < MAX_NAMED_CALLS:
            calls.append(event.call)
        self.retries[cause] = self.retries.get(cause, 0) + 1

    def _settle(self, report: Report) -> None:
        """Take over the final counts: a record may be incomplete."""
        self.tasks, self.calls, self.raised, self.lost = report.tasks, report.calls, report.raised, report.lost_calls
        self.cancelled, self.late, self.retries = report.cancelled, report.late, dict(report.retries)
