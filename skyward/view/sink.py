"""Hooks on this program's streams, so that the output of tasks never mixes with other lines.

An unfinished line, such as a progress bar, stays whole: in a terminal and in a notebook, lines of tasks are inserted
above it. In a file it is ended first. Output that bypasses `sys.stdout` and `sys.stderr`, such as that of a subprocess,
is not noticed.
"""

import builtins
import contextlib
import io
import os
import stat
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol, TextIO

from skyward.view.terminal_rows import MAX_ROW_LENGTH, UNKNOWN, Rows, cells, moves

type Kind = Literal["terminal", "cell", "file"]


MAX_UNREAD_TEXTS = 64
"""Written texts that are kept until they are parsed; a long one is parsed at once."""


class Footer(Protocol):
    """Lines below the cursor, which are shown only while nobody else writes."""

    def erase(self) -> None:
        """Remove the lines."""

    def written(self) -> None:
        """Somebody has ended a line."""


class _Whole(threading.local):
    """In a thread that writes whole lines: by stream, how to write what has no end yet, and that."""

    held: dict[int, tuple[Callable[[str], int], str]] | None = None


class Sink:
    """The target of one or more streams. All pools of a program share it: see `of`."""

    def __init__(self, stream: TextIO) -> None:
        self.lock = threading.RLock()
        self._rows = Rows()
        self._unread: list[str] = []
        self.footer: Footer | None = None
        self.kind = _kind(stream)
        if self.kind == "file" and _ends_open(stream):
            self._rows.feed(UNKNOWN)
        self._stream = stream
        self._process = os.getpid()
        self._users = 0
        self._hooked: dict[int, tuple[TextIO, Callable[[str], int]]] = {}
        self._whole = _Whole()
        self._asks, self._asked = builtins.input, 0
        if self.kind == "terminal":
            builtins.input = self._input
        self._hook(stream)

    @classmethod
    def of(cls, stream: TextIO) -> "Sink":
        """Return the sink of a stream, for as long as it is used; `release` it then."""
        sink = _followed(stream)
        if sink is None:
            others = (_followed(each) for each in standard() if _is_same(each, stream))
            sink = next((each for each in others if each is not None), None)
            if sink is None:
                sink = cls(stream)
            else:
                sink._hook(stream)
        sink._users += 1
        return sink

    @property
    def rows(self) -> Rows:
        """The rows that may still change. Written texts are parsed only now, as there may be many."""
        self._read()
        return self._rows

    def _read(self) -> None:
        for text in self._unread:
            self._rows.feed(text)
        self._unread.clear()

    @property
    def followed(self) -> bool:
        """Whether the streams are followed, in this process."""
        return bool(self._hooked) and self._process == os.getpid()

    def release(self) -> None:
        """Stop following the streams, unless somebody else uses them."""
        with self.lock:
            self._users -= 1
            if self._users or os.getpid() != self._process:
                return
            for each, _ in self._hooked.values():
                if getattr(each.__dict__.get("write"), "sink", None) is self:
                    del each.__dict__["write"]
            self._hooked.clear()
            if builtins.input == self._input:
                builtins.input = self._asks

    # ------------------------------------------------------------ writes of others

    def _hook(self, stream: TextIO) -> None:
        """Follow all writes to a stream, also those of a handler of `logging` that keeps it."""
        real: Callable[[str], int] = stream.write

        def write(text: str) -> int:
            if not self._hooked or os.getpid() != self._process:
                return real(text)
            if self._whole.held is not None:
                with _still(), self.lock:
                    return self._write_whole(stream, real, text)
            with self.lock:
                return self._write(stream, real, text)

        write.sink = self  # type: ignore[attr-defined]  # by this another pool finds it
        any_stream: Any = stream
        any_stream.write = write
        self._hooked[id(stream)] = stream, real

    def _write(self, stream: TextIO, real: Callable[[str], int], text: str) -> int:
        if self.footer is not None:
            self.footer.erase()
        written = real(text)
        if self.kind == "file" and text[-1:] == "\n":
            self._unread.clear()
            self._rows.close()
        else:
            self._unread.append(text)
        if len(self._unread) >= MAX_UNREAD_TEXTS or len(text) >= MAX_ROW_LENGTH:
            self._read()
        if self.footer is not None and not self.rows.open:
            stream.flush()
            self.footer.written()
        return written

    def _input(self, prompt: object = "", /) -> str:
        """Erase the footer while the user is prompted, also by a debugger; that bypasses the streams."""
        if not self.followed:
            return self._asks(prompt)
        with self.lock:
            self._asked += 1
            if self.footer is not None:
                self.footer.erase()
        try:
            return self._asks(prompt)
        finally:
            with self.lock:
                self._asked -= 1

    # ------------------------------------------------------------ whole lines

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """In this thread, write every line by itself, whatever is on the last line."""
        state = self._whole
        if state.held is not None:
            yield
            return
        state.held = {}
        try:
            yield
        finally:
            held, state.held = state.held, None
            for write, text in held.values():
                with contextlib.suppress(OSError, ValueError):
                    write(text)

    def _write_whole(self, stream: TextIO, real: Callable[[str], int], text: str) -> int:
        """Write whole lines, and hold an unfinished one. Text that moves the cursor is written as it is."""
        held = self._whole.held
        assert held is not None
        _, before = held.pop(id(stream), (stream.write, ""))
        if moves(text):
            self._write(stream, real, before + text)
            return len(text)
        lines, end, rest = (before + text).rpartition("\n")
        if rest:
            held[id(stream)] = (stream.write, rest)
        if end:
            self._write_lines(stream, real, lines + end)
        return len(text)

    def _write_lines(self, stream: TextIO, real: Callable[[str], int], lines: str) -> None:
        if self.footer is not None:
            self.footer.erase()
        if not (self.rows.open or self.is_edited()) or (self.kind == "terminal" and not self.is_in_front()):
            self._write(stream, real, lines)
            self.rows.close()
            return
        match self.kind:
            case "terminal":
                with contextlib.suppress(OSError, ValueError):
                    width, height = os.get_terminal_size(stream.fileno())
                    real(self.rows.above(lines, width or 80, height or 24))
                    return
            case "cell":
                here = self.rows.rows[self.rows.row]
                real(f"\r{' ' * cells(here)}\r{lines}{here}")
                return
            case "file":
                pass
        real(f"\n{lines}")
        self.rows.close()

    # ------------------------------------------------------------ the terminal

    def put(self, stream: TextIO, text: str) -> None:
        """Write what does not count: it leaves the cursor where it was."""
        self._hooked[id(stream)][1](text)
        stream.flush()

    def is_free(self) -> bool:
        """Whether the cursor is on an empty line that nobody else uses."""
        return not self.rows.open and not self.is_edited() and self.is_in_front()

    def is_edited(self) -> bool:
        """Whether somebody edits a line, as with `readline`, a debugger or `less`, or is asked for one."""
        if self.kind != "terminal":
            return False
        if self._asked:
            return True
        try:
            return not termios.tcgetattr(self._stream.fileno())[3] & termios.ICANON
        except (OSError, termios.error, ValueError):
            return False

    def is_in_front(self) -> bool:
        """Whether this program may use the terminal, which may be another one than it was started from."""
        try:
            return os.tcgetpgrp(self._stream.fileno()) == os.getpgrp()
        except OSError:
            return True
        except ValueError:  # it is closed
            return False


def standard() -> list[TextIO]:
    """Return the standard streams without wrappers, and without objects that are not streams of `io`."""
    found: dict[int, TextIO] = {}
    for stream, original in ((sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__)):
        if stream is None:
            continue
        real = stream if _is_cell(stream) or isinstance(stream, io.TextIOWrapper | io.StringIO) else original
        if real is not None and (real is stream or _is_same(real, stream)):
            found[id(real)] = real
    return list(found.values())


@contextlib.contextmanager
def whole_lines(*more: Sink) -> Iterator[None]:
    """In this thread, write every line by itself, whatever is on the last line.

    `more` are sinks that the standard streams, or what replaced them, may lead to.
    """
    streams = [*standard(), *filter(None, (sys.__stdout__, sys.__stderr__))]
    with contextlib.ExitStack() as stack:
        for sink in {*more, *map(_followed, streams)}:
            if sink is not None:
                stack.enter_context(sink.whole())
        yield


def _followed(stream: TextIO) -> Sink | None:
    sink = getattr(getattr(stream, "write", None), "sink", None)
    return sink if isinstance(sink, Sink) and sink.followed else None


def _is_cell(stream: TextIO) -> bool:
    """Whether a stream goes to the output of a notebook's cell."""
    return type(stream).__module__.startswith("ipykernel")


def _kind(stream: TextIO) -> Kind:
    if _is_cell(stream):
        return "cell"
    with contextlib.suppress(OSError, ValueError):
        if stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown"):
            return "terminal"
    return "file"


def _ends_open(stream: TextIO) -> bool:
    """Whether the last line of a text in memory or of a file is unfinished."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # AttributeError: somebody's own stream
        if isinstance(stream, io.StringIO):
            return stream.getvalue()[-1:] not in ("", "\n")
        stream.flush()
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            with open(f"/proc/self/fd/{stream.fileno()}", "rb") as written:
                written.seek(-1, os.SEEK_END)
                return written.read() != b"\n"
    return False


def _is_same(one: TextIO, other: TextIO) -> bool:
    """Whether two streams write to the same file or terminal; those of a notebook are apart."""
    if _is_cell(one) or _is_cell(other):
        return one is other
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except (OSError, ValueError, AttributeError):  # AttributeError: somebody's own stream
        return False


@contextlib.contextmanager
def _still() -> Iterator[None]:
    """Keep tqdm from moving to another of its bars meanwhile, which takes several writes.

    However few bars it counts: one that closes is no longer among them.
    """
    bars: Any = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    with getattr(bars, "_lock", None) or contextlib.nullcontext():  # without a lock there was no bar yet
        yield
