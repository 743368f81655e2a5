"""Reads the output of the workers, splits it into lines, and prints these for the driver. It runs in the zygote.

Every worker has three pipes: the page, into which its Python writes (see `output_capture`), and those of its file
descriptors 1 and 2, for other programs and C libraries. They are read until no process can write into them, so that
what was written before a crash arrives. A writer that is faster than the driver reads is blocked.
"""

import contextlib
import os
import select
import selectors
import stat
import time
from collections import deque
from dataclasses import dataclass

from skyward.remote.node.output_capture import OutputPipes
from skyward.remote.output_protocol import ERR, LOG, MAX_FRAME_BYTES, OUT, OutputLine, frames, runs

PARTIAL_LINE_DELAY_S = 0.25
"""Seconds that a line may take before what there is of it is printed."""

PAUSE_S = 0.001
"""Seconds for which a page is not read after it was read, so that many small writes are read at once."""

MAX_BYTES_PER_S = 8 << 20
"""Bytes a second that are read from one pipe."""

MAX_WAITING_BYTES = 1 << 18
"""Bytes that wait to be printed; with more, nothing is read."""

READ_SIZE = 1 << 16
"""Bytes of one read."""

MAX_FILE_BYTES = 1 << 30
"""Bytes that are printed at most if they go to a file on the machine's disk."""

CLOSE_TIMEOUT_S = 0.5
"""Seconds that the driver has to read the rest of the output when the node ends."""


@dataclass(slots=True)
class _Pipe:
    """A pipe of a worker. A page has no stream of its own; `raw` are the pipes of its file descriptors 1 and 2."""

    end: int
    worker: int
    slot: int
    stream: int | None
    page: "_Pipe | None" = None
    raw: tuple["_Pipe", ...] = ()
    part: bytes = b""
    paused_until: float | None = None
    """Time until which it is not read."""


type _WorkerStream = tuple[int, int, int]
"""Worker, slot and stream."""


class OutputCollector:
    """Reads the pipes of the workers.

    Parameters
    ----------
    selector
        The selector of the zygote; the data of its ready keys goes to `handle_ready`.
    out
        The file descriptor to print to.
    """

    def __init__(self, selector: selectors.BaseSelector, out: int = 1) -> None:
        self._selector, self._out = selector, out
        self._pipes: dict[int, _Pipe] = {}  # by end
        self._lines: dict[_WorkerStream, OutputLine] = {}
        self._partial_lines: dict[_WorkerStream, OutputLine] = {}  # those with a part that waits
        self._given: OutputPipes | None = None
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._poll = select.poll()
        self._poll.register(out, select.POLLOUT)
        self._blocked = self._closed = False
        self._bytes_left = MAX_FILE_BYTES if stat.S_ISREG(os.fstat(out).st_mode) else None

    def open(self, worker: int, slot: int) -> OutputPipes:
        """Make the pipes of a worker that is about to be forked."""
        ends: list[tuple[int, int]] = []
        with contextlib.ExitStack() as undo:  # the second or third may meet the limit of open files
            for _ in range(3):
                ends.append(os.pipe())
                for end in ends[-1]:
                    undo.callback(os.close, end)
            undo.pop_all()
        page = _Pipe(ends[2][0], worker, slot, None)
        page.raw = tuple(_Pipe(ends[stream][0], worker, slot, stream, page) for stream in (OUT, ERR))
        for pipe in (page, *page.raw):
            os.set_blocking(pipe.end, False)
            self._pipes[pipe.end] = pipe
            self._selector.register(pipe.end, selectors.EVENT_READ, pipe)
        self._given = OutputPipes(*(write for _, write in ends))
        return self._given

    def forked(self) -> None:
        """Close the ends that the worker writes into."""
        if self._given is not None:
            for end in (self._given.out, self._given.err, self._given.page):
                os.close(end)
            self._given = None

    def close_inherited(self) -> None:
        """Close, in a forked process, what belongs to the zygote."""
        self._selector.close()
        for end in self._pipes:
            os.close(end)

    def timeout(self) -> float | None:
        """Return the seconds until `flush` has something to do even if nothing is written."""
        times = [line.since + PARTIAL_LINE_DELAY_S for line in self._partial_lines.values() if line.since is not None]
        times += [pipe.paused_until for pipe in self._pipes.values() if pipe.paused_until is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def handle_ready(self, data: object) -> bool:
        """Read the pipe with this selector data; false if the data is not that of a pipe."""
        if isinstance(data, _Pipe):
            if data.page is not None and data.page.paused_until is not None:
                self._read(data.page)  # it was written before
            for pipe in (*data.raw, data):  # a task goes on when the program that it started has ended
                if pipe.paused_until is None and pipe.end in self._pipes:
                    self._read(pipe)
        return isinstance(data, _Pipe | OutputCollector)

    def flush(self) -> None:
        """Resume pipes whose pause is over, print partial lines that are old, and write."""
        now = time.monotonic()
        for pipe in [
            pipe for pipe in self._pipes.values() if pipe.paused_until is not None and pipe.paused_until <= now
        ]:
            pipe.paused_until = None
            self._selector.register(pipe.end, selectors.EVENT_READ, pipe)
        for key, line in tuple(self._partial_lines.items()):
            if line.since is not None and self._size > MAX_WAITING_BYTES:
                line.since = now  # what goes on with it is not read
            elif line.since is not None and line.since + PARTIAL_LINE_DELAY_S <= now:
                self._print(key, line.rest())
            if line.since is None:
                del self._partial_lines[key]
        self._write(0.0)

    def finish(self, worker: int) -> None:
        """Read what a dead worker has written; processes that it started may still write."""
        for pipe in [pipe for pipe in self._pipes.values() if pipe.worker == worker]:
            self._drain(pipe)
        self.flush()

    def close(self) -> None:
        """Print all that was written."""
        for pipe in tuple(self._pipes.values()):
            self._drain(pipe)
        for key, line in self._lines.items():
            self._print(key, line.rest(final=True))
        self._write(CLOSE_TIMEOUT_S)

    def _drain(self, pipe: _Pipe) -> None:
        for _ in range(16):  # a pipe holds no more, unless somebody goes on to write
            if not self._take(pipe):
                return

    def _read(self, pipe: _Pipe) -> None:
        if self._size > MAX_WAITING_BYTES:
            self._pause(pipe, 10 * PAUSE_S)
        elif size := self._take(pipe):
            pause = max(PAUSE_S if pipe.stream is None else 0.0, size / MAX_BYTES_PER_S)
            if pause >= PAUSE_S:
                self._pause(pipe, pause)

    def _pause(self, pipe: _Pipe, seconds: float) -> None:
        if pipe.paused_until is None:
            self._selector.unregister(pipe.end)
        pipe.paused_until = time.monotonic() + seconds

    def _take(self, pipe: _Pipe) -> int:
        """Read once; return how many bytes there were."""
        try:
            data = os.read(pipe.end, READ_SIZE)
        except BlockingIOError:
            return 0
        if not data:
            self._close_pipe(pipe)
            return 0
        if pipe.stream is None:
            found, pipe.part = runs(pipe.part + data)
        else:
            found = [(pipe.stream, pipe.slot, data)]
        now = time.monotonic()
        for stream, slot, piece in found:
            key = (pipe.worker, slot, stream)
            line = self._lines.setdefault(key, OutputLine())
            self._print(key, line.take(piece, now))
            if stream != LOG:  # of a record, which is no use to anybody before it is whole
                self._partial_lines[key] = line
        return len(data)

    def _close_pipe(self, pipe: _Pipe) -> None:
        """Close a pipe that no process can write into any more."""
        if pipe.paused_until is None:
            self._selector.unregister(pipe.end)
        pipe.paused_until = None
        os.close(pipe.end)
        del self._pipes[pipe.end]
        if not any(each.worker == pipe.worker for each in self._pipes.values()):
            for key in [key for key in self._lines if key[0] == pipe.worker]:
                self._partial_lines.pop(key, None)
                self._print(key, self._lines.pop(key).rest(final=True))

    def _print(self, key: _WorkerStream, text: str) -> None:
        _, slot, stream = key
        for frame in () if self._closed else frames(slot, stream, text):
            self._waiting.append(frame)
            self._size += len(frame)
            if self._bytes_left is not None:
                self._bytes_left -= len(frame)
                if self._bytes_left < 0:
                    note = (
                        f"this node has printed {MAX_FILE_BYTES >> 20} MB; nothing more is shown, to spare the disk\n"
                    )
                    self._waiting.extend(frames(-1, ERR, note))
                    self._closed = True
                    return

    def _write(self, seconds: float) -> None:
        """Print as much as the reader takes, and wait up to so many seconds for it."""
        while self._waiting:
            if not self._poll.poll(seconds * 1000):
                if not self._blocked:
                    self._blocked = True
                    self._selector.register(self._out, selectors.EVENT_WRITE, self)
                return
            data = self._waiting.popleft()
            while self._waiting and len(data) + len(self._waiting[0]) <= MAX_FRAME_BYTES:
                data += self._waiting.popleft()
            self._size -= len(data)
            try:
                os.write(self._out, data)
            except OSError:  # the reader is gone
                self._closed = True
                self._waiting.clear()
                self._size = 0
        if self._blocked:
            self._blocked = False
            self._selector.unregister(self._out)
