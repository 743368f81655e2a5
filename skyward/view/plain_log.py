"""The log of a run where lines cannot be redrawn. Pure: no I/O, no clock, no actor."""

from skyward.formatting import clock, counted
from skyward.view import status_text
from skyward.view.progress import Progress

PROGRESS_INTERVAL_S = 10.0
"""Seconds between two lines about the progress of the work."""

START_NOTICE_DELAY_S = 5.0
"""Seconds that a start may take before the brief log mentions it."""


class PlainLog:
    """The lines of a run that were logged, so that none is logged twice.

    Parameters
    ----------
    brief
        Whether to log only what machines cost, starts that take long, and the hint which modules to preload.
    """

    def __init__(self, *, brief: bool) -> None:
        self._brief = brief
        self._said: set[tuple[object, ...]] = set()
        self._last: float | None = None
        self._work = ""

    def news(self, progress: Progress, now: float) -> list[str]:
        """Return the lines to log now."""
        if progress.ended is not None:
            return [line for line in [status_text.summary(progress, brief=self._brief)] if line]
        said = [quote.text for number, quote in enumerate(progress.quotes) if self._new("cost", number)]
        if progress.link and self._new("link"):
            said.append(f"watch it at {progress.link}")
        return [f"skyward: {line}" for line in (*said, *self._start(progress, now), *self._go(progress, now))]

    def _start(self, progress: Progress, now: float) -> list[str]:
        took = now - progress.began
        if not progress.complete:
            if took < (START_NOTICE_DELAY_S if self._brief else 0.0) or (self._brief and not self._new("start")):
                return []
            if not self._brief and self._last is not None and now - self._last < PROGRESS_INTERVAL_S:
                return []
            self._last = now
            there = [status_text.where(node) for node in progress.nodes.values() if node.stage != "ready"]
            first = f", node {_first(progress)}" if there else ""
            return [status_text.plain(status_text.starting(progress, now)[2:]) + first]
        if progress.ready and self._new("complete") and (not self._brief or ("start",) in self._said):
            self._last = now
            text = f"{counted(len(progress.ready), 'node')} with {counted(progress.slots, 'slot')}"
            return [f"{text} ready after {clock(took)}"]
        return []

    def _go(self, progress: Progress, now: float) -> list[str]:
        """Return the progress of the work, and new problems."""
        if self._brief:
            return []
        found = [
            f"node {each.node.number} {status_text.trouble(each, now)}"
            for each in progress.concerns(now)
            if self._new(each.trouble, each.node.number, each.text)
        ]
        if progress.complete and progress.open and (self._last is None or now - self._last >= PROGRESS_INTERVAL_S):
            work = status_text.plain(status_text.dotted(status_text.going(progress, now)))
            if work != self._work:
                self._last, self._work = now, work
                found.append(work)
        return found

    def _new(self, *what: object) -> bool:
        if what in self._said:
            return False
        self._said.add(what)
        return True


def _first(progress: Progress) -> str:
    """Return the stage of the node that is furthest behind."""
    behind = min(
        (node for node in progress.nodes.values() if node.stage != "ready"),
        key=lambda node: (status_text.STAGE_ORDER.index(node.stage), node.number),
    )
    return f"{behind.number} is {status_text.where(behind)}"
