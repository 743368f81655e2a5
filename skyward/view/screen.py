"""A few lines at the bottom of a terminal that whatever else is written there never meets.

The lines stand below the cursor, which stays where the text of others has ended. Before a text of others is written
they are erased, and they come back only when the cursor is at the beginning of a line: so prints, `logging`, the bars
of tqdm and joblib's `verbose` stay whole. What does not go through `sys.stdout` and `sys.stderr`, such as the output of
a subprocess, is not seen coming.
"""

import atexit
import builtins
import contextlib
import io
import os
import termios
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Self, TextIO

from rich.console import Console
from rich.text import Text

from skyward.view.wording import Line

EVERY = 0.25
"""Seconds between two looks at what is to be shown."""

SOON = 0.1
"""Seconds after which the lines come back at once when something was written; else at the next look."""

SAVE, RESTORE, DOWN = "\x1b7", "\x1b8", "\x1b[B\r"
ERASE = "\x1b[J"
"""Of all from the cursor on: right of it there is nothing but our own lines, where somebody has pressed Return."""

type Painter = Callable[[], Sequence[Line]]


class Screen:
    """The terminal that `stream` writes to, and `others` too. All pools of a program share one: see `of`.

    Parameters
    ----------
    stream
        Where the lines are written.
    others
        Streams that may write to the same terminal.
    """

    def __init__(self, stream: TextIO, others: Sequence[TextIO]) -> None:
        self._stream = stream
        self._painters: list[Painter] = []
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._writes: dict[int, Callable[[str], int]] = {}
        self._hooked: list[TextIO] = []
        self._frame = self._shown = self._tail = ""
        self._back = 0.0
        self._woken = threading.Event()
        self._ended = False
        self._console = Console(file=io.StringIO(), force_terminal=True, highlight=False, markup=False, emoji=False)
        for each in {id(each): each for each in (stream, *others)}.values():
            self._hook(each)
        self._asks, self._asked = builtins.input, 0
        builtins.input = self._input
        threading.Thread(target=self._run, name="skyward-screen", daemon=True).start()
        atexit.register(self.close)

    @classmethod
    def of(cls, stream: TextIO, others: Sequence[TextIO]) -> Self:
        """Return the screen of a stream: the one that it has, or a new one."""
        hook = getattr(stream, "write", None)
        screen = getattr(hook, "screen", None)
        return screen if isinstance(screen, cls) and not screen._ended else cls(stream, others)

    def show(self, painter: Painter) -> None:
        """Show what `painter` returns, time and again."""
        with self._lock:
            self._painters.append(painter)
        self._woken.set()

    def leave(self, painter: Painter, last: str = "") -> None:
        """Show it no more, and leave a last line where the cursor is at the beginning of one."""
        with self._lock:
            self._painters = [each for each in self._painters if each != painter]
            self._erase()
            if last and not self._tail:
                self._put(last + "\n")
            if not self._painters:
                self.close()
            else:
                self._draw()

    def close(self) -> None:
        """Leave the terminal as if nothing had been here."""
        with self._lock:
            if self._ended or os.getpid() != self._process:
                return
            self._erase()
            self._ended = True
            for each in self._hooked:
                if getattr(each.__dict__.get("write"), "screen", None) is self:
                    del each.__dict__["write"]
            if builtins.input == self._input:
                builtins.input = self._asks
            self._woken.set()
        atexit.unregister(self.close)

    # ------------------------------------------------------------ what others write

    def _hook(self, stream: TextIO) -> None:
        """Hear of all that is written to a stream, by whoever holds it: a handler of `logging` as well."""
        real: Callable[[str], int] = stream.write
        self._writes[id(stream)] = real

        def write(text: str) -> int:
            if self._ended or os.getpid() != self._process:
                return real(text)
            with self._lock:
                return self._heard(stream, real, text)

        write.screen = self  # type: ignore[attr-defined]  # by this another pool finds it
        any_stream: Any = stream
        any_stream.write = write
        self._hooked.append(stream)

    def _heard(self, stream: TextIO, real: Callable[[str], int], text: str) -> int:
        self._erase()
        written = real(text)
        self._tail = visible(self._tail + text)
        if not self._tail:
            stream.flush()
            if monotonic() - self._back > SOON:
                self._back = monotonic()
                self._draw()
        return written

    def _input(self, prompt: object = "", /) -> str:
        """Stand back while somebody is asked something, by a debugger as well: that goes by no stream."""
        if self._ended or os.getpid() != self._process:
            return self._asks(prompt)
        with self._lock:
            self._asked += 1
            self._erase()
        try:
            return self._asks(prompt)
        finally:
            with self._lock:
                self._asked -= 1

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
            self._woken.wait(EVERY)
            if not self._ended:
                self._woken.clear()

    def _rendered(self, lines: Sequence[Line]) -> str:
        """Return lines as what a terminal is sent: each within its width, all within its height."""
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
            text = text.encode(self._stream.encoding, "replace").decode(self._stream.encoding)
        return text

    def _draw(self) -> None:
        """Write the lines below the cursor, and leave it where it is."""
        if self._frame == self._shown or self._tail or self._asked or not self._is_ours():
            return
        if not self._frame:
            self._erase()
            return
        lines = self._frame.splitlines()
        room = "\x1bD" * len(lines) + f"\x1b[{len(lines)}A"  # scrolls where there is none, and keeps the column
        self._put(ERASE + room + SAVE + "".join(f"{DOWN}{line}" for line in lines) + RESTORE)
        self._shown = self._frame

    def _erase(self) -> None:
        if self._shown:
            self._shown = ""
            self._put(ERASE)

    def _is_ours(self) -> bool:
        """Whether nobody edits a line, as `readline`, a debugger or `less` does, and this program is in front."""
        try:
            fd = self._stream.fileno()
            if not termios.tcgetattr(fd)[3] & termios.ICANON:
                return False
        except (OSError, termios.error, ValueError):
            return False
        try:
            return os.tcgetpgrp(fd) == os.getpgrp()
        except OSError:  # it is not the terminal that this program was started from
            return True

    def _put(self, text: str) -> None:
        try:
            self._writes[id(self._stream)](text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone: whoever writes next will hear of it
            self._frame = self._shown = ""


def visible(text: str) -> str:
    """Return what is seen of the line that a text ends in; nothing where the cursor is at the beginning of one."""
    seen = ""
    for piece in text.rpartition("\n")[2][-4096:].split("\r"):
        seen = piece + seen[len(piece) :]
    return seen if seen.strip() else ""
