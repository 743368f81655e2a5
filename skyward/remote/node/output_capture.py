"""The output of a slot: `sys.stdout`, `sys.stderr` and the root logger of a worker process.

All three write into one pipe, the page, so that the output of a task arrives in order, marked with its slot. Nothing is
buffered here: what was written before a crash is in the pipe. The output of other programs and C libraries goes into
pipes of its own.
"""

import contextlib
import ctypes
import io
import json
import logging
import os
import select
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from skyward.remote import context
from skyward.remote.output_protocol import ERR, LOG, OUT, STREAMS, strokes

MAX_TEXT_LENGTH, MAX_NAME_LENGTH = 30_000, 1_000
"""Characters of JSON that the message and the trace of a record have at most, and its names: all fit in a line."""


@dataclass(frozen=True, slots=True)
class OutputPipes:
    """The ends of a worker's pipes that it writes into: file descriptors 1 and 2 to be, and the page."""

    out: int
    err: int
    page: int


def take_over(pipes: OutputPipes, slot: int, levels: Mapping[str, int]) -> None:
    """Write all output of this process into the pipes; a negative `slot` means that of the thread that writes.

    Loggers get the levels that they have on the driver, so that no unwanted records travel.
    """
    number: Callable[[], int] = context.number if slot < 0 else lambda: slot
    for end, descriptor in ((pipes.out, 1), (pipes.err, 2)):
        os.dup2(end, descriptor)
        os.close(end)
    root = logging.getLogger()
    for handler in [each for each in root.handlers if _shows(each, logging.CRITICAL)]:
        root.removeHandler(handler)  # a module made it that was imported before
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # who holds it writes to 1 without delay
    sys.stdout = _text(PipeWriter(pipes.page, OUT, 1, number))
    sys.stderr = _text(PipeWriter(pipes.page, ERR, 2, number))
    root.addHandler(LogForwarder(PipeWriter(pipes.page, LOG, 2, number)))
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _text(writer: "PipeWriter") -> io.TextIOWrapper:
    return io.TextIOWrapper(writer, "utf-8", "backslashreplace", newline="\n", write_through=True)


class PipeWriter(io.RawIOBase):
    """Writes one stream into the page, in pieces that no other thread or process can come between."""

    mode = "wb"

    def __init__(self, page: int, stream: int, descriptor: int, number: Callable[[], int]) -> None:
        self._page, self._stream, self._descriptor, self._number = page, stream, descriptor, number
        self.name = f"<{STREAMS[stream]}>"

    def write(self, data: Any, /) -> int:
        """Write all of it."""
        data = bytes(data)
        with contextlib.suppress(OSError):  # the node ends
            for piece in strokes(self._stream, self._number(), data, select.PIPE_BUF):
                os.write(self._page, piece)
        return len(data)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return what another program may write to: the same stream, beside the page."""
        return self._descriptor


class LogForwarder(logging.Handler):
    """Sends records to the driver, except those that a handler of the user prints here."""

    def __init__(self, writer: PipeWriter) -> None:
        super().__init__()
        self._writer = writer
        self._format = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one."""
        if any(_shows(handler, record.levelno) for handler in _handlers(record.name)):
            return
        try:
            trace = [record.exc_text or self._format.formatException(record.exc_info)] if record.exc_info else []
            if record.stack_info:
                trace.append(record.stack_info)
            fields = (
                fitting(record.name, MAX_NAME_LENGTH),
                record.levelno,
                fitting(record.getMessage(), MAX_TEXT_LENGTH),
                fitting("\n".join(trace), MAX_TEXT_LENGTH),
                fitting(record.pathname, MAX_NAME_LENGTH),
                record.lineno,
                fitting(record.funcName or "", MAX_NAME_LENGTH),
            )
            self._writer.write(f"{json.dumps(fields)}\n".encode())
        except Exception:  # noqa: BLE001 - user code: the arguments of the message
            self.handleError(record)


def fitting(text: str, most: int) -> str:
    """Return a text that has `most` characters as JSON; of a longer one the beginning and the end."""
    if len(json.dumps(text)) <= most:
        return text
    half = most // 2
    while True:
        kept = f"{text[:half]}\n... {len(text) - 2 * half:,} characters are left out ...\n{text[-half:]}"
        if (size := len(json.dumps(kept))) <= most:
            return kept
        half = half * most // size - 1  # a character may be several of JSON


def _handlers(name: str) -> list[logging.Handler]:
    """The handlers that a record of this logger comes to."""
    found: list[logging.Handler] = []
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        found += logger.handlers
        logger = logger.parent if logger.propagate else None
    return found


def _shows(handler: logging.Handler, level: int) -> bool:
    """Whether a handler prints records of this level where all that is printed goes."""
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return isinstance(handler, logging.StreamHandler) and level >= handler.level and handler.stream in streams


def flush_lines() -> None:
    """Have the C library's `printf` write each line at once, as Python does (with glibc)."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        libc = ctypes.CDLL(None)
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, 1, 0)
