"""The report of a run, as `Compute.report()` returns it. Pure: no I/O, no clock, no actor."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Protocol

from skyward.errors import NoCompute
from skyward.formatting import counted, dollars, in_seconds, megabytes
from skyward.telemetry import notebook_html

HINT_S = 1.0
"""Seconds that slots must have spent on imports before a hint is shown."""

HINT_SHARE = 0.05
"""Share of imports in the time that slots ran calls or imported, before a hint is shown."""

HINT_COVERS = 0.95
"""Share of the import time that the named modules make up, the slowest first."""


def without_slot(cause: str) -> str:
    """Return why an attempt died without the slot that it was on, so that equal causes on a node count together."""
    return re.sub(r"^slot \d+ of (?=node)", "", cause)


class PathLike(Protocol):
    """What names a file, as `os.PathLike` does."""

    def __fspath__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class NodeUse:
    """What one node did. A node that replaces a lost one continues its figures.

    Attributes
    ----------
    slots
        Number of its slots; 0 if the pool gave it up.
    calls
        Times that a call ended on one of its slots, including calls that died or were killed there.
    busy
        Seconds that each of its slots ran calls, including those.
    sent, received
        Bytes of calls with their functions sent to it, and bytes of outcomes received from it.
    shared
        Bytes of large arrays and `bytes` that it received, each for all its slots together. A node on this machine maps
        the copy that each `Parallel`, `map` or group makes of them; others are sent them and keep them for later calls.
    """

    slots: int
    calls: int
    busy: tuple[float, ...]
    sent: int
    received: int
    shared: int = 0


@dataclass(frozen=True, slots=True)
class LostTime:
    """Where the slots' time went that was not work, as shares. With `Report.efficiency` they add up to 1.

    Attributes
    ----------
    start
        Slots without a call at the beginning, until their first one, and slots of a node that is being replaced.
    serialization
        Slots without a call while the caller pickled calls or unpickled results, as far as it did so between two calls.
    opening
        Slots that unpickled their call or imported modules for it, before or while it ran, or waited until their node
        had imported them.
    idle
        Slots without a call in between: there were too few calls, or a limit kept them back.
    tail
        Slots without a call at the end, when no more calls came.
    link
        Slots whose call was in transit, waited for its turn, or ran in vain because its slot or node died.
    """

    start: float = 0.0
    serialization: float = 0.0
    opening: float = 0.0
    idle: float = 0.0
    tail: float = 0.0
    link: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a pool has done so far. Only time in which it had calls counts: pauses are left out.

    Attributes
    ----------
    tasks
        Tasks that were answered: a batch of joblib or a chunk of `map` holds several, any other call is one.
    calls, lost_calls, cancelled
        Calls that were answered, those that were lost because every attempt died, and those that were cancelled.
    attempts
        Number of times that a call was started, as far as known.
    retries
        Number of retries by the cause of death of the attempt, with its node. Includes calls that were queued on a lost
        node, which may have begun them.
    late
        Answers that were dropped because nobody waited for them: from a lost node, or of a cancelled call.
    nodes
        What each node did, by its number.
    total
        Seconds from the first call until the last answer, without the pauses.
    capacity
        Seconds of all slots together in that time.
    work
        Of these, the seconds in which they ran calls that were answered, or (during a run) are likely to be, without
        the time for unpickling calls and importing modules.
    lost
        Where the rest went, as shares of the capacity.
    imports
        Seconds that slots spent importing modules while they had a call, by module, each with all that it imports.
    starts
        Seconds of each step of the last start of each node, by its number and in order. What was prepared here for all
        nodes meanwhile is not counted.
    cost, machines
        Dollars that machines have cost, and the number of machines that cost something.
    left
        Machines that did not answer at shutdown, and the seconds until their lease expires, after which everything
        there has stopped.
    raised
        Of the calls that were answered, those whose function raised, or ran longer than its timeout.
    retried
        The first calls that were retried, by the same causes as `retries`: `train, task 17`.
    """

    tasks: int
    calls: int
    lost_calls: int
    cancelled: int
    attempts: int
    retries: Mapping[str, int]
    late: int
    nodes: Mapping[int, NodeUse]
    total: float
    capacity: float
    work: float
    lost: LostTime
    imports: Mapping[str, float] = field(default_factory=dict)
    left: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[int, Sequence[tuple[str, float]]] = field(default_factory=dict)
    cost: float = 0.0
    machines: int = 0
    raised: int = 0
    retried: Mapping[str, Sequence[str]] = field(default_factory=dict)
    _saving: "Callable[[Report, str | PathLike], None] | None" = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary that can be written as JSON."""
        given = asdict(replace(self, _saving=None))
        del given["_saving"]
        return given | {name: {str(number): of for number, of in given[name].items()} for name in ("nodes", "starts")}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "Report":
        """Return the report of what `as_dict` returned, also read from JSON. Fields of newer versions are left out."""
        nodes = {
            int(number): NodeUse(**{**node, "busy": tuple(node["busy"])}) for number, node in given["nodes"].items()
        }
        starts = {
            int(number): tuple((name, time) for name, time in steps)
            for number, steps in given.get("starts", {}).items()
        }
        retried = {reason: tuple(calls) for reason, calls in given.get("retried", {}).items()}
        known = {each.name: given[each.name] for each in fields(cls) if each.name in given}
        return cls(**{**known, "nodes": nodes, "starts": starts, "retried": retried, "lost": LostTime(**given["lost"])})

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], "Report"], tuple[dict[str, Any]]]:
        """What a copy is made of, here or elsewhere: all but the way to the run's events."""
        return Report.from_dict, (self.as_dict(),)

    def save(self, path: str | PathLike) -> None:
        """Write a page that shows the run so far, for any browser: a single file that needs no network.

        Raises
        ------
        NoCompute
            This report is a copy from another process, and does not have the events of the run.
        """
        if self._saving is None:
            raise NoCompute(
                "this report is a copy without the events of its run: save the one that compute.report() returns, or "
                "have `skyward report RUN` read the run's record"
            )
        self._saving(self, path)

    @property
    def slots(self) -> int:
        """The slots of all nodes."""
        return sum(node.slots for node in self.nodes.values())

    @property
    def busy(self) -> float:
        """Seconds in which slots ran calls, including calls that died, were killed, or whose answer was late."""
        return sum(sum(node.busy) for node in self.nodes.values())

    @property
    def sent(self) -> int:
        """Bytes of calls and their functions sent to all nodes."""
        return sum(node.sent for node in self.nodes.values())

    @property
    def shared(self) -> int:
        """Bytes of large arrays and `bytes` that all nodes received; see `NodeUse`."""
        return sum(node.shared for node in self.nodes.values())

    @property
    def received(self) -> int:
        """Bytes of outcomes received from all nodes."""
        return sum(node.received for node in self.nodes.values())

    @property
    def throughput(self) -> float:
        """Tasks per second."""
        return self.tasks / self.total if self.total else 0.0

    @property
    def efficiency(self) -> float:
        """The share of the slots' time that was work."""
        return self.work / self.capacity if self.capacity else 0.0

    @property
    def ideal(self) -> float:
        """Seconds that the work would take if every slot worked all the time."""
        return self.efficiency * self.total

    @property
    def hint(self) -> str:
        """Which modules to preload, if slots spent much of their time on imports; else empty."""
        return import_hint(self.imports, self.work)

    def __str__(self) -> str:
        hint = [("Hint", self.hint)] if self.hint else []
        return "\n".join(f"{label}: {value}" for label, value in self.figures() + hint)

    def explain(self) -> str:
        """Return, as text, where the time went that was not work, and what else happened."""
        shares = ", ".join(f"{each.name} {getattr(self.lost, each.name):.2%}" for each in fields(self.lost))
        answered = f"{self.calls} answered ({self.raised} raised)"
        retries = [f"  {count} x {reason}{self._named(reason, count)}" for reason, count in self.retries.items()]
        left = [
            f"No answer at shutdown: {name}; its lease {f'expires in {seconds:.0f} s' if seconds else 'has expired'}"
            for name, seconds in self.left.items()
        ]
        return "\n".join(
            (
                f"Time not spent on work: {shares}",
                f"Calls: {answered}, {self.lost_calls} lost, {self.cancelled} cancelled",
                f"Attempts: {self.attempts}, retries: {sum(self.retries.values())}, late answers: {self.late}",
                *retries,
                f"Sent: {megabytes(self.sent)}, received: {megabytes(self.received)}",
                *self._shared(),
                *self._slowest_start(),
                *left,
            )
        )

    def figures(self) -> list[tuple[str, str]]:
        """Return what `print` shows before the hint, as pairs of label and value."""
        known = figures(
            tasks=self.tasks,
            nodes=[node.slots for node in self.nodes.values()],
            workers=self.slots,
            total=self.total,
            ideal=self.ideal,
            efficiency=self.efficiency,
            raised=self.raised,
            lost=self.lost_calls,
        )
        return known + (
            [("Cost", f"{dollars(self.cost)} for {counted(self.machines, 'machine')}")] if self.cost else []
        )

    def shares(self) -> list[tuple[str, float]]:
        """Return the shares of the slots' time: work, and where the rest went. They add up to 1, if there was any."""
        lost = [(each.name, float(getattr(self.lost, each.name))) for each in fields(self.lost)]
        return [("work", self.efficiency), *lost] if self.capacity else []

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return "".join(
            (
                notebook_html.tiles(self.figures()),
                notebook_html.shares(self.shares()) if self.capacity else "",
                notebook_html.paragraph(f"Hint: {self.hint}") if self.hint else "",
                notebook_html.folded("More counters", self.explain()),
            )
        )

    def _named(self, reason: str, count: int) -> str:
        calls = self.retried.get(reason, ())
        more = f" and {count - len(calls)} more" if count > len(calls) else ""
        return f": {'; '.join(calls)}{more}" if calls else ""

    def _shared(self) -> list[str]:
        given = [node.shared for node in self.nodes.values() if node.shared]
        if not given:
            return []
        each = f"{megabytes(given[0])} per node, " if len(given) > 1 == len(set(given)) else ""
        return [f"Shared: {each}{megabytes(self.shared)} on {counted(len(given), 'node')}"]

    def _slowest_start(self) -> list[str]:
        times = {number: sum(seconds for _, seconds in steps) for number, steps in self.starts.items()}
        if not times:
            return []
        slowest = max(times, key=lambda number: times[number])
        steps = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.starts[slowest])
        which = "" if len(times) == 1 else f", the slowest of {len(times)}"
        return [f"Start of node {slowest}{which}: {times[slowest]:.2f} s: {steps}"]


def figures(
    *,
    tasks: int,
    nodes: Sequence[int],
    workers: int,
    total: float,
    ideal: float,
    efficiency: float,
    raised: int,
    lost: int,
) -> list[tuple[str, str]]:
    """Return the figures that every summary of a run begins with, as pairs of label and value.

    Parameters
    ----------
    nodes
        The slots of each node; those without any are not counted.
    total, ideal
        Seconds that it took, and that the work takes when every slot works all the time.
    """
    there = [slots for slots in nodes if slots]
    sizes = sorted(set(there)) or [0]
    return [
        ("Tasks", str(tasks)),
        ("Nodes", str(len(there))),
        ("Concurrency", "-".join(map(str, sizes[:1] + sizes[1:][-1:]))),
        ("Effective workers", str(workers)),
        ("Total time", f"{total:.2f} s"),
        ("Throughput", f"{tasks / total if total else 0.0:.1f} tasks/s"),
        ("Ideal time", f"{ideal:.2f} s"),
        ("Efficiency", f"{efficiency:.1%}"),
        *([("Raised", counted(raised, "call"))] if raised else []),
        *([("Lost", counted(lost, "call"))] if lost else []),
    ]


def import_hint(imports: Mapping[str, float], work: float) -> str:
    """Return a hint which modules to preload; empty if that would gain little.

    Parameters
    ----------
    imports
        Seconds that slots spent importing each module.
    work
        Seconds that they ran calls.
    """
    spent = sum(imports.values())
    if spent < max(HINT_S, HINT_SHARE * (spent + work)):
        return ""
    longest: list[str] = []
    for module in sorted(imports, key=lambda module: -imports[module]):
        if sum(imports[each] for each in longest) < HINT_COVERS * spent:
            longest.append(module)
    packages = dict.fromkeys(module.partition(".")[0] for module in longest)
    modules = [each for each in longest if not any(other.startswith(f"{each}.") for other in longest)]
    named = ", ".join(f'"{each}"' for each in modules)
    return f"slots spent {in_seconds(spent)} importing {', '.join(packages)}: Image(preload=[{named}])"


def apportioned(lost: LostTime, capacity: float) -> LostTime:
    """Convert seconds of slots into shares of the capacity."""
    if not capacity:
        return LostTime()
    return LostTime(*(getattr(lost, each.name) / capacity for each in fields(lost)))
