"""A pseudo terminal, and what a person sees on it."""

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable
from typing import Self

import pyte

from tests import kit


class Terminal:
    """A terminal of this process; `out` writes to it."""

    def __init__(self, columns: int = 60, rows: int = 10) -> None:
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.out = os.fdopen(self._theirs, "w", encoding="utf-8", buffering=1)
        self.screen = pyte.HistoryScreen(columns, rows, history=1000)
        self._stream = pyte.ByteStream(self.screen)

    def seen(self) -> list[str]:
        """The lines that are seen now, but for empty ones at the end."""
        while select.select([self._ours], [], [], 0)[0]:
            self._stream.feed(os.read(self._ours, 1 << 16))
        return rows(self.screen)

    def until(self, true: Callable[[list[str]], object]) -> list[str]:
        """Look until it is true of what is seen."""
        deadline = time.monotonic() + kit.SOON
        while not true(seen := self.seen()):
            left = deadline - time.monotonic()
            assert left > 0, "\n".join(["it never came true:", *seen])
            select.select([self._ours], [], [], left)
        return seen

    def type(self, text: str) -> None:
        """Show what goes by no stream, such as what somebody types."""
        os.write(self._theirs, text.encode())

    def raw(self) -> None:
        """Have the terminal as one who edits a line has it."""
        mode = termios.tcgetattr(self._theirs)
        mode[3] &= ~termios.ICANON
        termios.tcsetattr(self._theirs, termios.TCSANOW, mode)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.out.close()
        os.close(self._ours)


def rows(screen: pyte.HistoryScreen) -> list[str]:
    """What is seen, after what has scrolled away."""
    away = ["".join(line[column].data for column in range(screen.columns)) for line in screen.history.top]
    seen = [line.rstrip() for line in (*away, *screen.display)]
    while seen and not seen[-1]:
        seen.pop()
    return seen
