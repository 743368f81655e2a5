"""A few lines at the bottom of a terminal that never mix with other output.

The lines are below the cursor, which stays where other output has ended. They are erased before other output is
written, and redrawn only when the cursor is at the beginning of a line: so prints, `logging`, the bars of tqdm and
joblib's `verbose` stay whole.
"""

import atexit
import contextlib
import io
import os
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Self, TextIO

from rich.console import Console
from rich.text import Text

from skyward.view.sink import Sink
from skyward.view.status_text import Painter, StyledLine

SCREEN_REFRESH_INTERVAL_S = 0.25
"""Seconds between two updates."""

REDRAW_DELAY_S = 0.1
"""Seconds after which the lines are redrawn at once when something was written; else at the next update."""

SAVE, RESTORE, DOWN = "\x1b7", "\x1b8", "\x1b[B\r"
ERASE_BELOW = "\x1b[J"
"""Of all from the cursor on: right of it there is nothing but our own lines, where somebody has pressed Return."""

ASCII = str.maketrans("█░·…", "#.-~")
"""Replacements of our own characters on a terminal that has only ASCII."""


class Screen:
    """The terminal that `stream` writes to. All pools of a program share one: see `of`."""

    def __init__(self, stream: TextIO, sink: Sink) -> None:
        self._stream, self._sink = stream, sink
        self._painters: list[Painter] = []
        self._lock = sink.lock
        self._process = os.getpid()
        self._frame = self._shown = ""
        self._back = 0.0
        self._woken = threading.Event()
        self._ended = False
        self._console = Console(file=io.StringIO(), force_terminal=True, highlight=False, markup=False, emoji=False)
        sink.footer = self
        threading.Thread(target=self._run, name="skyward-screen", daemon=True).start()
        atexit.register(self.close)

    @classmethod
    def of(cls, stream: TextIO) -> Self:
        """Return the screen of a stream: the one that it has, or a new one."""
        sink = Sink.of(stream)
        if isinstance(screen := sink.footer, cls):
            sink.release()
            return screen
        return cls(stream, sink)

    def show(self, painter: Painter) -> None:
        """Show what `painter` returns, again and again."""
        with self._lock:
            self._painters.append(painter)
        self._woken.set()

    def leave(self, painter: Painter, last: str = "") -> None:
        """Stop showing it, and leave a last line."""
        with self._lock:
            self._painters = [each for each in self._painters if each != painter]
            self.erase()
            self._frame = ""
        if last:
            with contextlib.suppress(OSError, ValueError), self._sink.whole():
                self._stream.write(last + "\n")
                self._stream.flush()
        with self._lock:
            if not self._painters:
                self.close()
        self._woken.set()

    def close(self) -> None:
        """Remove all lines, and restore the terminal."""
        with self._lock:
            if self._ended or os.getpid() != self._process:
                return
            self.erase()
            self._ended = True
            self._sink.footer = None
            self._woken.set()
        self._sink.release()
        atexit.unregister(self.close)

    def written(self) -> None:
        """Redraw the lines after somebody ended a line, unless that was done just now."""
        if monotonic() - self._back > REDRAW_DELAY_S:
            self._back = monotonic()
            self._draw()

    # ------------------------------------------------------------ its thread

    def _run(self) -> None:
        while not self._ended:
            with self._lock:
                painters = tuple(self._painters)
            lines = [line for painter in painters for line in painter()]
            with self._lock:
                if not self._ended:
                    self._frame = self._rendered(lines)
                    self._draw()
            self._woken.wait(SCREEN_REFRESH_INTERVAL_S)
            if not self._ended:
                self._woken.clear()

    def _rendered(self, lines: Sequence[StyledLine]) -> str:
        """Return the text that a terminal is sent for lines: each within its width, all within its height."""
        if not lines:
            return ""
        try:
            width, height = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):  # ValueError: it is closed
            return ""
        self._console.width = max(1, width - 1)
        rows = max(1, height - 2)
        with self._console.capture() as captured:
            for line in lines[:rows]:
                self._console.print(Text.assemble(*line), no_wrap=True, overflow="ellipsis", crop=True)
        text = "\n".join(captured.get().splitlines()[:rows])  # one line may have been several
        with contextlib.suppress(LookupError):
            try:
                text.encode(self._stream.encoding)
            except UnicodeEncodeError:
                text = text.translate(ASCII).encode(self._stream.encoding, "replace").decode(self._stream.encoding)
        return text

    def _draw(self) -> None:
        """Write the lines below the cursor, and leave it where it is."""
        if self._frame == self._shown or not self._sink.is_free():
            return
        if not self._frame:
            self.erase()
            return
        lines = self._frame.splitlines()
        room = "\x1bD" * len(lines) + f"\x1b[{len(lines)}A"  # scrolls where there is none, and keeps the column
        self._put(ERASE_BELOW + room + SAVE + "".join(f"{DOWN}{line}" for line in lines) + RESTORE)
        self._shown = self._frame

    def erase(self) -> None:
        """Remove the lines."""
        if self._shown:
            self._shown = ""
            self._put(ERASE_BELOW)

    def _put(self, text: str) -> None:
        try:
            self._sink.put(self._stream, text)
        except (OSError, ValueError):  # the terminal is gone
            self._frame = self._shown = ""
