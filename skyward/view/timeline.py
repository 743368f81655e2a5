"""The history of a run, computed from its events for the page. Pure: no I/O, no clock, no actor.

`Timeline` is given events as they come and can be asked at any time, so that the page of a run that has ended and the
live one are the same drawing. Its size does not grow with the number of tasks.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, assert_never

from skyward.events import (
    NOT_COUNTED,
    BatchesArrived,
    BatchesEnded,
    BatchLost,
    BatchRetried,
    Event,
    Logged,
    NodeChanged,
    NodeFacts,
    NodeGivenUp,
    NodeHeard,
    NodeNoticed,
    NodeSilent,
    Printed,
    Quoted,
    Reported,
    RunEnded,
    RunStarted,
    Spent,
    label,
)
from skyward.formatting import dollars
from skyward.telemetry.report import Report, figures, import_hint, without_slot
from skyward.telemetry.run_counts import NodeCounts
from skyward.view.progress import NodeProgress, Progress
from skyward.view.recent_output import Output
from skyward.view.timeline_bins import MAX_CELLS, STATUSES, TICKS, Bins, TimelineBins, Usage

MAX_INCIDENTS = 100
"""Incidents of each kind that are listed, and functions that are named; further incidents are only counted."""

OTHER_FUNCTIONS = "another function"


class NodeHistory:
    """The stages and incidents of a node, and of those that replaced it under its number."""

    def __init__(self) -> None:
        self.host = self.instance = self.given_up = ""
        self.memory = 0
        self.usage = Usage()
        self.running: int | None = None
        self.stages: list[tuple[int, int, str, str]] = []
        self.silences: list[list[int | None]] = []
        self.notices: list[tuple[int, str]] = []

    @property
    def stage(self) -> str:
        """Its stage; empty if it has not begun."""
        return self.stages[-1][2] if self.stages else ""

    def change(self, at: int, event: NodeChanged) -> tuple[str, str] | None:
        """Note a stage; return the kind and text of the incident, if it is one."""
        before = self.stage
        self.stages.append((at, event.generation, event.stage, event.reason))
        self.hear(at)
        self.running = None
        self.host, self.instance = event.host or self.host, event.instance or self.instance
        if event.stage != "ending" or event.reason in ("", "dismissed"):
            return None
        return ("node lost" if before == "ready" else "did not start"), event.reason

    def hear(self, at: int) -> None:
        """End the silence, if there is one."""
        if self.silences and self.silences[-1][1] is None:
            self.silences[-1][1] = at

    def as_dict(self, node: NodeProgress, counts: NodeCounts) -> dict[str, Any]:
        """Return what the page shows of it."""
        return {
            "node": node.number,
            "host": self.host,
            "instance": self.instance,
            "slots": node.slots,
            "calls": counts.calls,
            "tasks": counts.tasks,
            "ran": round(sum(counts.busy.values()), 3),
            "step": node.step,
            "running": self.running,
            "memory": self.memory,
            "usage": self.usage.samples,
            "givenUp": self.given_up,
            "stages": self.stages,
            "silences": self.silences,
            "notices": self.notices,
        }


@dataclass(slots=True)
class Function:
    """How often a function ran, and for how many seconds; `index` is its number in cells."""

    index: int
    calls: int = 0
    tasks: int = 0
    seconds: float = 0.0
    longest: float = 0.0

    def add(self, tasks: int, seconds: float) -> None:
        """Add a call that has ended."""
        self.calls += 1
        self.tasks += tasks
        self.seconds += seconds
        self.longest = max(self.longest, seconds)

    def figures(self) -> tuple[float, ...]:
        """Return calls, tasks, total seconds, and those of the longest call."""
        return self.calls, self.tasks, round(self.seconds, 4), round(self.longest, 4)


class Timeline:
    """The history of a run, as far as its events are known.

    Parameters
    ----------
    most
        Maximum number of cells; see `TimelineBins`.
    """

    def __init__(self, most: int = MAX_CELLS) -> None:
        self.cells = TimelineBins(most)
        self._rate = Bins()
        self._started: RunStarted | None = None
        self._ended: RunEnded | None = None
        self._report: Report | None = None
        self._origin: float | None = None
        self._last = 0
        self._first: float | None = None
        self._reported: int | None = None
        self._reported_at = 0.0
        self._progress = Progress()
        self._output = Output()
        self._statuses: Counter[str] = Counter()
        self._nodes: dict[int, NodeHistory] = {}
        self._incidents: list[tuple[int, str, int | None, int | None, str, str]] = []
        self._functions: dict[str, Function] = {}
        self._kinds: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._quotes: list[str] = []
        self._cost: list[tuple[int, float, float]] = []

    def add(self, events: Iterable[Event]) -> None:
        """Add what has happened."""
        for event in events:
            if self._origin is None:
                self._origin = event.at
            at = max(0, round((event.at - self._origin) * TICKS))
            self._last = max(self._last, at)
            done = self._progress.done
            self._progress.add((event,))
            if isinstance(event, BatchesEnded):
                self._rate.add(at, self._progress.done - done)
            self._fold(at, event)

    def _fold(self, at: int, event: Event) -> None:
        match event:
            case BatchesEnded():
                self._end(at, event)
            case BatchesArrived():
                self._first = event.at if self._first is None else self._first
            case RunStarted():
                self._started = event
            case Reported():
                self._report, self._reported, self._reported_at = Report.from_dict(event.report), at, event.at
            case RunEnded():
                self._ended = event
                self._report = Report.from_dict(event.report) if event.report else self._report
            case Quoted():
                self._quotes.append(event.text)
            case Spent():
                self._spend((at, event.dollars, event.hourly))
            case BatchRetried():
                node = event.node if event.node >= 0 else None
                self._happen(at, "retried", node, event.cause, event.call or f"call {event.batch}")
            case BatchLost():
                self._lost.update(map(without_slot, event.causes[-1:]))  # those before were retried
                self._happen(at, "lost", None, "; ".join(event.causes), event.call or f"call {event.batch}")
            case Printed() | Logged():
                self._output.add(at, event)
            case NodeChanged() | NodeSilent() | NodeHeard() | NodeFacts() | NodeNoticed() | NodeGivenUp():
                self._note(at, event, self._nodes.setdefault(event.node, NodeHistory()))
            case _:
                pass  # what the progress or the report counts

    def _note(
        self,
        at: int,
        event: NodeChanged | NodeSilent | NodeHeard | NodeFacts | NodeNoticed | NodeGivenUp,
        node: NodeHistory,
    ) -> None:
        match event:
            case NodeChanged():
                if (incident := node.change(at, event)) is not None:
                    self._happen(at, incident[0], event.node, incident[1])
            case NodeSilent():
                node.silences.append([at, None])
                self._happen(at, "silent", event.node, f"silent; counts as lost after {event.grace:g} s")
            case NodeHeard():
                node.hear(at)
            case NodeFacts():
                node.running = event.running
                if event.total:
                    node.memory = event.total
                    node.usage.add(at, event.cpu, 1 - event.memory / event.total)
            case NodeNoticed():
                node.notices.append((at, event.said))
                self._happen(at, "reclaim notice", event.node, event.said)
            case NodeGivenUp():
                node.given_up = event.reason or "it has left the pool"
                if event.reason:
                    self._happen(at, "given up", event.node, event.reason)
            case _:
                assert_never(event)

    def _end(self, at: int, event: BatchesEnded) -> None:
        self._nodes.setdefault(event.node, NodeHistory())
        self._statuses.update(event.statuses)
        count = len(event.batches)
        names = event.functions if len(event.functions) == count else (event.functions or ("",))[:1] * count
        firsts = event.firsts or (NOT_COUNTED,) * count
        functions = [self._function(name) for name in names]
        indices = [function.index for function in functions]
        batches, slots, statuses = event.batches, event.slots, event.statuses
        called = event.tasks, indices, firsts, event.opening
        self.cells.add(at, event.node, batches, slots, event.seconds, statuses, *called)
        errors = iter(event.errors)
        for batch, slot, seconds, status, tasks, function, name, first in zip(
            batches, slots, event.seconds, statuses, event.tasks, functions, names, firsts, strict=True
        ):
            function.add(tasks, seconds)
            if status in ("raised", "overdue"):
                error = next(errors, "") if status == "raised" else "ran longer than its timeout"
                call = label(batch, name, first, tasks)
                self._happen(at, "raised", event.node, error, call, slot)

    def _spend(self, spent: tuple[int, float, float]) -> None:
        """Add a cost; if there are very many, every other one is dropped."""
        if len(self._cost) >= 2000:
            self._cost = self._cost[::2]
        self._cost.append(spent)

    def _function(self, name: str) -> Function:
        """Return the figures of a function; beyond the first `MAX_INCIDENTS`, functions share one."""
        known = self._functions
        if name not in known and len(known) >= MAX_INCIDENTS:
            name = OTHER_FUNCTIONS
        return known.setdefault(name, Function(len(known)))

    def _happen(self, at: int, kind: str, node: int | None, text: str, call: str = "", slot: int | None = None) -> None:
        self._kinds[kind] += 1
        if self._kinds[kind] <= MAX_INCIDENTS:
            self._incidents.append((at, kind, node, slot, call, text))

    # ------------------------------------------------------------ data of the page

    def head(self, report: Report | None = None) -> dict[str, Any]:
        """Return everything except cells and output: a few kilobytes, and more for each node."""
        started, ended = self._started, self._ended
        final = report or (None if ended is None else self._report)
        report = final or self._report
        progress, counts = self._progress, self._progress.counts
        done = progress.done if final is None else final.tasks
        return {
            "run": None if started is None else _told(started),
            "origin": self._origin,
            "now": self._last,
            "ticks": TICKS,
            "statuses": STATUSES,
            "grain": self.cells.grain,
            "functions": [[name, *function.figures()] for name, function in self._functions.items()],
            "ended": ended is not None,
            "error": "" if ended is None else ended.error,
            "leaked": [] if ended is None else ended.leaked,
            "numbers": self._numbers() if final is None else final.figures(),
            "lost": [] if report is None else report.shares(),
            "reported": None if final is not None else self._reported,
            "hint": import_hint(counts.imports, counts.work) if report is None else report.hint,
            "notes": [] if report is None else report.explain().splitlines()[1:],
            "arrived": max(done, progress.known),
            "total": max(done, progress.total) if progress.settled else None,
            "done": done,
            "calls": self._statuses,
            "nodes": [
                node.as_dict(progress.node(number), counts.nodes[number]) | _bytes(report, number)
                for number, node in sorted(self._nodes.items())
            ],
            "incidents": self._incidents,
            "untold": {kind: count - MAX_INCIDENTS for kind, count in self._kinds.items() if count > MAX_INCIDENTS},
            "causes": (self._lost + Counter(counts.retries)).most_common(MAX_INCIDENTS),
            "rate": {"width": self._rate.width, "amounts": self._rate.amounts},
            "cost": self._cost,
            "spent": self._spent(final),
            "quotes": self._quotes,
        }

    def snapshot(self, report: Report | None = None) -> dict[str, Any]:
        """Return everything."""
        return self.head(report) | {"fresh": True, "cells": self.cells.all(), "output": self._output.all()}

    def news(self) -> dict[str, Any]:
        """Return the head, and the cells and output that changed since the last call."""
        cells, output = self.cells.news(), self._output.news()
        if cells is None:
            return self.snapshot()
        return self.head() | {"fresh": False, "cells": cells, "output": output}

    def _spent(self, final: Report | None) -> str:
        """Return what machines have cost; empty if that is not known."""
        if not self._cost:
            return ""
        _, spent, hourly = self._cost[-1]
        if self._ended is not None and final is not None:
            return f"{dollars(max(spent, final.cost))} in all"
        return f"{dollars(spent)} so far, {dollars(hourly)} per hour"

    def _numbers(self) -> list[tuple[str, str]]:
        """Return the figures of a run without a final report: those of its last one, if any, and of the time since."""
        counts = self._progress.counts
        nodes = [node.slots for node in self._progress.nodes.values() if node.gone is None]
        slots = sum(nodes)
        if self._report is not None:
            total = self._report.total + max(0.0, counts.answered - self._reported_at)
            efficiency = self._report.efficiency
        else:
            total = 0.0 if self._first is None else max(0.0, counts.answered - self._first)
            ran = sum(sum(node.busy.values()) for node in counts.nodes.values())
            efficiency = ran / (slots * total) if slots and total else 0.0
        return figures(
            tasks=counts.tasks,
            nodes=nodes,
            workers=slots,
            total=total,
            ideal=efficiency * total,
            efficiency=efficiency,
            raised=counts.raised,
            lost=counts.lost,
        )


def _told(started: RunStarted) -> Mapping[str, Any]:
    return {each.name: getattr(started, each.name) for each in fields(started)}


def _bytes(report: Report | None, number: int) -> dict[str, int]:
    use = None if report is None else report.nodes.get(number)
    return {} if use is None else {"sent": use.sent, "shared": use.shared, "received": use.received}
