"""The console of a run: lines that are redrawn at the bottom of a terminal or notebook cell, or a log.

It shows the events of the run, in another thread, and writes to standard error.
"""

import contextlib
import importlib.util
import sys
import threading
from collections.abc import Sequence
from typing import Literal, Protocol, TextIO

from skyward.events import Event
from skyward.telemetry.event_log import EventLog, now
from skyward.view import status_text
from skyward.view.escape import escape
from skyward.view.plain_log import PlainLog
from skyward.view.progress import Progress
from skyward.view.sink import standard, whole_lines

type How = Literal["auto", "plain", "off"]

SHOW_DELAY_S = 0.4
"""Seconds for which nothing is shown, because a start that is quicker is not worth a line."""

DELAY_CHECK_INTERVAL_S = 1.0
"""Seconds between two checks of whether something takes long."""


class Place(Protocol):
    """Where lines are redrawn."""

    def show(self, painter: status_text.Painter) -> None:
        """Show what `painter` returns, again and again."""

    def leave(self, painter: status_text.Painter, last: str = "") -> None:
        """Stop showing it, and leave a last line."""


class Live:
    """The run as lines that are redrawn in a place."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._progress = Progress()
        self._lock = threading.Lock()
        place.show(self.paint)

    def hear(self, events: Sequence[Event]) -> None:
        """Add events, and leave when the run ends."""
        with self._lock:
            self._progress.add(events)
        if self._progress.ended is not None:
            self._place.leave(self.paint, escape(status_text.summary(self._progress)))

    def paint(self) -> list[status_text.StyledLine]:
        """Return the lines to show now."""
        with self._lock:
            at = now()
            began = self._progress.began
            lines = status_text.live(self._progress, at) if began and at - began > SHOW_DELAY_S else []
            return [tuple((escape(text), style) for text, style in line) for line in lines]


class Plain:
    """The run as a log, which also mentions what takes long while no events come."""

    def __init__(self, stream: TextIO, *, brief: bool) -> None:
        self._stream = stream
        self._progress = Progress()
        self._bulletin = PlainLog(brief=brief)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="skyward-console", daemon=True).start()

    def hear(self, events: Sequence[Event]) -> None:
        """Add events, and log what is new."""
        with self._lock:
            self._progress.add(events)
            self._say()
            if self._progress.ended is not None:
                self._ended.set()

    def _run(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the stream is gone
            while not self._ended.wait(DELAY_CHECK_INTERVAL_S):
                with self._lock:
                    if self._progress.began and not self._ended.is_set():
                        self._say()

    def _say(self) -> None:
        if said := self._bulletin.news(self._progress, now()):
            with whole_lines():
                self._stream.write("".join(f"{escape(line)}\n" for line in said))
                self._stream.flush()


def show(record: EventLog, how: How) -> None:
    """Show a run from now until it ends."""
    stream: TextIO | None = sys.stderr
    if how == "off" or stream is None:
        return
    live = how == "auto"
    if live and _is_notebook():
        from skyward.view.notebook_display import NotebookDisplay

        record.listen(Live(NotebookDisplay()).hear)
    elif live and stream.isatty() and (drawn := _drawn(stream)) is not None:
        from skyward.view.screen import Screen

        record.listen(Live(Screen.of(drawn)).hear)
    else:
        record.listen(Plain(stream, brief=live and not stream.isatty()).hear)


def _drawn(stream: TextIO) -> TextIO | None:
    """Return the stream to draw on; None without rich, or if the terminal cannot move the cursor."""
    if importlib.util.find_spec("rich") is None:
        return None
    from rich.console import Console

    if Console(file=stream).is_dumb_terminal:
        return None
    return next((each for each in standard() if each in (stream, sys.__stderr__)), None)


def _is_notebook() -> bool:
    """Whether this program is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
