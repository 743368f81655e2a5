"""The history of a run, folded from its events into what can be drawn. Pure: no I/O, no clock, no actor.

`Timeline` is fed events as they come and can be asked at any time, so that the page of a run that has ended and the
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
    NodeStep,
    Printed,
    Quoted,
    Reported,
    RunEnded,
    RunStarted,
    Spent,
    label,
)
from skyward.telemetry.report import Report, figures, import_hint, without_slot
from skyward.view.progress import Progress
from skyward.view.recent_output import Output
from skyward.view.timeline_bins import MAX_CELLS, STATUSES, TICKS, Bins, TimelineBins, Usage

TOLD = 100
"""Incidents of each kind that are told one by one, and functions by name; of more incidents there is the number."""

OTHERS = "another function"


class Lives:
    """What a node went through, under its number: a replacement goes on where the lost one ended."""

    def __init__(self) -> None:
        self.host = self.instance = self.step = self.given_up = ""
        self.slots = self.calls = self.tasks = 0
        self.ran = 0.0
        self.memory = 0
        self.usage = Usage()
        self.running: int | None = None
        self.stages: list[tuple[int, int, str, str]] = []
        self.silences: list[list[int | None]] = []
        self.notices: list[tuple[int, str]] = []

    @property
    def stage(self) -> str:
        """Where it is, `""` where it has not begun."""
        return self.stages[-1][2] if self.stages else ""

    def change(self, at: int, event: NodeChanged) -> tuple[str, str] | None:
        """Note a stage; return kind and text of the incident that it is, if it is one."""
        before = self.stage
        self.stages.append((at, event.generation, event.stage, event.reason))
        self.hear(at)
        self.step, self.running = "", None
        self.host, self.instance = event.host or self.host, event.instance or self.instance
        self.slots = event.slots or self.slots
        if event.stage != "ending" or event.reason in ("", "dismissed"):
            return None
        return ("node lost" if before == "ready" else "did not start"), event.reason

    def hear(self, at: int) -> None:
        """End the silence, if there is one."""
        if self.silences and self.silences[-1][1] is None:
            self.silences[-1][1] = at

    def as_dict(self, number: int) -> dict[str, Any]:
        """Return what the page knows of it."""
        return {
            "node": number,
            "host": self.host,
            "instance": self.instance,
            "slots": self.slots,
            "calls": self.calls,
            "tasks": self.tasks,
            "ran": round(self.ran, 3),
            "step": self.step,
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
    """How often a function ran, and for how many seconds; `index` is what cells call it."""

    index: int
    calls: int = 0
    tasks: int = 0
    seconds: float = 0.0
    longest: float = 0.0

    def add(self, tasks: int, seconds: float) -> None:
        """Note a call that has ended."""
        self.calls += 1
        self.tasks += tasks
        self.seconds += seconds
        self.longest = max(self.longest, seconds)

    def figures(self) -> tuple[float, ...]:
        """Return calls, tasks, seconds in all, and those of the longest call."""
        return self.calls, self.tasks, round(self.seconds, 4), round(self.longest, 4)


class Timeline:
    """A run, as far as its events have been told.

    Parameters
    ----------
    most
        How many cells are drawn; see `TimelineBins`.
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
        self._answered = 0.0
        self._progress = Progress()
        self._output = Output()
        self._statuses: Counter[str] = Counter()
        self._lives: dict[int, Lives] = {}
        self._incidents: list[tuple[int, str, int | None, int | None, str, str]] = []
        self._functions: dict[str, Function] = {}
        self._kinds: Counter[str] = Counter()
        self._causes: Counter[str] = Counter()
        self._quotes: list[str] = []
        self._cost: list[tuple[int, float, float]] = []

    def add(self, events: Iterable[Event]) -> None:
        """Fold what has happened."""
        for event in events:
            if self._origin is None:
                self._origin = event.at
            at = max(0, round((event.at - self._origin) * TICKS))
            self._last = max(self._last, at)
            self._progress.add((event,))
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
                self._report, self._reported = Report.from_dict(event.report), at
            case RunEnded():
                self._ended = event
                self._report = Report.from_dict(event.report) if event.report else self._report
            case Quoted():
                self._quotes.append(event.text)
            case Spent():
                self._spend((at, event.dollars, event.hourly))
            case BatchRetried():
                self._causes[without_slot(event.cause)] += 1
                node = event.node if event.node >= 0 else None
                self._happen(at, "retried", node, event.cause, event.call or f"call {event.batch}")
            case BatchLost():
                self._causes.update(map(without_slot, event.causes[-1:]))  # those before were tried again
                self._happen(at, "lost", None, "; ".join(event.causes), event.call or f"call {event.batch}")
            case Printed() | Logged():
                self._output.add(at, event)
            case NodeChanged() | NodeStep() | NodeSilent() | NodeHeard() | NodeFacts() | NodeNoticed() | NodeGivenUp():
                self._note(at, event, self._lives.setdefault(event.node, Lives()))
            case _:
                pass  # what the progress or the report counts

    def _note(
        self,
        at: int,
        event: NodeChanged | NodeStep | NodeSilent | NodeHeard | NodeFacts | NodeNoticed | NodeGivenUp,
        lives: Lives,
    ) -> None:
        match event:
            case NodeChanged():
                if (incident := lives.change(at, event)) is not None:
                    self._happen(at, incident[0], event.node, incident[1])
            case NodeStep():
                lives.step = event.step
            case NodeSilent():
                lives.silences.append([at, None])
                self._happen(at, "silent", event.node, f"silent; counts as lost after {event.grace:g} s")
            case NodeHeard():
                lives.hear(at)
            case NodeFacts():
                lives.running = event.running
                if event.total:
                    lives.memory = event.total
                    lives.usage.add(at, event.cpu, 1 - event.memory / event.total)
            case NodeNoticed():
                lives.notices.append((at, event.said))
                self._happen(at, "notice", event.node, event.said)
            case NodeGivenUp():
                lives.given_up = event.reason or "it has left the pool"
                if event.reason:
                    self._happen(at, "given up", event.node, event.reason)
            case _:
                assert_never(event)

    def _end(self, at: int, event: BatchesEnded) -> None:
        lives = self._lives.setdefault(event.node, Lives())
        lives.calls += len(event.batches)
        lives.ran += sum(event.seconds)
        self._answered = event.at
        self._statuses.update(event.statuses)
        count = len(event.batches)
        names = event.functions if len(event.functions) == count else (event.functions or ("",))[:1] * count
        firsts = event.firsts or (NOT_COUNTED,) * count
        functions = [self._function(name) for name in names]
        indices = [function.index for function in functions]
        batches, slots, statuses = event.batches, event.slots, event.statuses
        called = event.tasks, indices, firsts, event.opening
        self.cells.add(at, event.node, batches, slots, event.seconds, statuses, *called)
        done, errors = 0, iter(event.errors)
        for batch, slot, seconds, status, tasks, function, name, first in zip(
            batches, slots, event.seconds, statuses, event.tasks, functions, names, firsts, strict=True
        ):
            function.add(tasks, seconds)
            if status in ("returned", "raised", "overdue"):
                done += tasks
            if status in ("raised", "overdue"):
                error = next(errors, "") if status == "raised" else "ran longer than its timeout"
                call = label(batch, name, first, tasks)
                self._happen(at, "raised", event.node, error, call, slot)
        lives.tasks += done
        self._rate.add(at, done)

    def _spend(self, spent: tuple[int, float, float]) -> None:
        """Note the cost; of very many figures every other one will do."""
        if len(self._cost) >= 2000:
            self._cost = self._cost[::2]
        self._cost.append(spent)

    def _function(self, name: str) -> Function:
        """Return what is known of a function; of very many functions all but the first share the last one."""
        known = self._functions
        if name not in known and len(known) >= TOLD:
            name = OTHERS
        return known.setdefault(name, Function(len(known)))

    def _happen(self, at: int, kind: str, node: int | None, text: str, call: str = "", slot: int | None = None) -> None:
        self._kinds[kind] += 1
        if self._kinds[kind] <= TOLD:
            self._incidents.append((at, kind, node, slot, call, text))

    # ------------------------------------------------------------ what can be drawn

    def head(self, report: Report | None = None) -> dict[str, Any]:
        """Return all but the cells: a few kilobytes, and so much for each node."""
        started, ended = self._started, self._ended
        final = report or (None if ended is None else self._report)
        report = final or self._report
        progress = self._progress
        done = progress.done if final is None else final.tasks
        imports = (progress.imports, progress.ran) if report is None else (report.imports, report.work)
        hint = import_hint(*imports)
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
            "hint": hint,
            "notes": [] if report is None else report.explain().splitlines()[2 if hint else 1 :],
            "arrived": max(done, progress.known),
            "total": max(done, progress.total) if progress.settled else None,
            "done": done,
            "calls": self._statuses,
            "nodes": [lives.as_dict(number) | _bytes(report, number) for number, lives in sorted(self._lives.items())],
            "incidents": self._incidents,
            "untold": {kind: count - TOLD for kind, count in self._kinds.items() if count > TOLD},
            "causes": self._causes.most_common(TOLD),
            "rate": {"width": self._rate.width, "amounts": self._rate.amounts},
            "cost": self._cost,
            "quotes": self._quotes,
        }

    def snapshot(self, report: Report | None = None) -> dict[str, Any]:
        """Return all of it."""
        return self.head(report) | {"fresh": True, "cells": self.cells.all(), "output": self._output.all()}

    def news(self) -> dict[str, Any]:
        """Return what has changed since this was asked before: the head as a whole, of the cells what is other."""
        cells, output = self.cells.news(), self._output.news()
        if cells is None:
            return self.snapshot()
        return self.head() | {"fresh": False, "cells": cells, "output": output}

    def _numbers(self) -> list[tuple[str, str]]:
        """The guide's block as far as events alone can tell it, for a run that has no report yet."""
        there = [lives for lives in self._lives.values() if lives.slots]
        slots = sum(lives.slots for lives in there)
        total = 0.0 if self._first is None else max(0.0, self._answered - self._first)
        ideal = sum(lives.ran for lives in there) / slots if slots else 0.0
        return figures(
            tasks=self._progress.done,
            nodes=[lives.slots for lives in there],
            workers=slots,
            total=total,
            ideal=ideal,
            efficiency=ideal / total if total else 0.0,
            raised=self._progress.raised,
            lost=self._progress.lost,
        )


def _told(started: RunStarted) -> Mapping[str, Any]:
    return {each.name: getattr(started, each.name) for each in fields(started)}


def _bytes(report: Report | None, number: int) -> dict[str, int]:
    use = None if report is None else report.nodes.get(number)
    return {} if use is None else {"sent": use.sent, "shared": use.shared, "received": use.received}
