"""Reads what the slots write, makes lines of it, and prints these for the driver. It works in the zygote.

Every worker has three pipes: the page, into which its Python writes (see `output_capture`), and those of its file
descriptors 1 and 2, for other programs and C libraries. They are read until nobody writes into them any more, so that
what was written before a crash arrives. Who writes faster than the driver reads is held up.
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
from skyward.remote.output_protocol import ERR, FRAME, LOG, OUT, OutputLine, frames, runs

PARTIAL_LINE_DELAY_S = 0.25
"""Seconds that a line may take before what there is of it is printed."""

REST = 0.001
"""Seconds for which a page is left alone after it was read: many small strokes are read at once."""

RATE = 8 << 20
"""Bytes a second that are read from one pipe."""

FULL = 1 << 18
"""Bytes that wait to be printed before nothing more is read."""

PIPE = 1 << 16
"""Bytes that are read at once."""

DISK = 1 << 30
"""Bytes that are printed if they go to a file on the machine's disk."""

LAST = 0.5
"""Seconds that the driver has to take what is printed when the node ends."""


@dataclass(slots=True)
class _Pipe:
    """One that is read: of which worker and slot; a page has no stream of its own."""

    end: int
    worker: int
    slot: int
    stream: int | None
    page: "_Pipe | None" = None
    beside: tuple["_Pipe", ...] = ()
    part: bytes = b""
    rests: float | None = None
    """Until when it is left alone."""


type _Key = tuple[int, int, int]
"""Worker, slot and stream."""


class OutputCollector:
    """Reads the pipes of the workers.

    Parameters
    ----------
    selector
        What the zygote waits with; what it says of the pipes is to be given to `hear`.
    out
        The file descriptor to print to.
    """

    def __init__(self, selector: selectors.BaseSelector, out: int = 1) -> None:
        self._selector, self._out = selector, out
        self._pipes: dict[int, _Pipe] = {}  # by end
        self._lines: dict[_Key, OutputLine] = {}
        self._begun: dict[_Key, OutputLine] = {}  # those of which a part waits
        self._given: OutputPipes | None = None
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._poll = select.poll()
        self._poll.register(out, select.POLLOUT)
        self._stuck = self._deaf = False
        self._room = DISK if stat.S_ISREG(os.fstat(out).st_mode) else None

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
        page.beside = tuple(_Pipe(ends[stream][0], worker, slot, stream, page) for stream in (OUT, ERR))
        for pipe in (page, *page.beside):
            os.set_blocking(pipe.end, False)
            self._pipes[pipe.end] = pipe
            self._selector.register(pipe.end, selectors.EVENT_READ, pipe)
        self._given = OutputPipes(*(write for _, write in ends))
        return self._given

    def forked(self) -> None:
        """Leave to the worker what is its own."""
        if self._given is not None:
            for end in (self._given.out, self._given.err, self._given.page):
                os.close(end)
            self._given = None

    def forget(self) -> None:
        """Close, in the worker, what is not its own."""
        self._selector.close()
        for end in self._pipes:
            os.close(end)

    def patience(self) -> float | None:
        """Return after how many seconds `tend` has something to do even if nobody writes."""
        times = [line.since + PARTIAL_LINE_DELAY_S for line in self._begun.values() if line.since is not None]
        times += [pipe.rests for pipe in self._pipes.values() if pipe.rests is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def hear(self, said: object) -> bool:
        """Read a pipe, if that is what the selector was told of; see `open`."""
        if isinstance(said, _Pipe):
            if said.page is not None and said.page.rests is not None:
                self._read(said.page)  # it was written before
            for pipe in (*said.beside, said):  # a task goes on when the program that it started has ended
                if pipe.rests is None and pipe.end in self._pipes:
                    self._read(pipe)
        return isinstance(said, _Pipe | OutputCollector)

    def tend(self) -> None:
        """Do what is due, and print."""
        now = time.monotonic()
        for pipe in [pipe for pipe in self._pipes.values() if pipe.rests is not None and pipe.rests <= now]:
            pipe.rests = None
            self._selector.register(pipe.end, selectors.EVENT_READ, pipe)
        for key, line in tuple(self._begun.items()):
            if line.since is not None and self._size > FULL:
                line.since = now  # what goes on with it is not read
            elif line.since is not None and line.since + PARTIAL_LINE_DELAY_S <= now:
                self._print(key, line.rest())
            if line.since is None:
                del self._begun[key]
        self._write(0.0)

    def finish(self, worker: int) -> None:
        """Read what a worker that is dead has written; who it started may still write."""
        for pipe in [pipe for pipe in self._pipes.values() if pipe.worker == worker]:
            self._drain(pipe)
        self.tend()

    def close(self) -> None:
        """Print all that was written."""
        for pipe in tuple(self._pipes.values()):
            self._drain(pipe)
        for key, line in self._lines.items():
            self._print(key, line.rest(final=True))
        self._write(LAST)

    def _drain(self, pipe: _Pipe) -> None:
        for _ in range(16):  # a pipe holds no more, unless somebody goes on to write
            if not self._take(pipe):
                return

    def _read(self, pipe: _Pipe) -> None:
        if self._size > FULL:
            self._rest(pipe, 10 * REST)
        elif size := self._take(pipe):
            pause = max(REST if pipe.stream is None else 0.0, size / RATE)
            if pause >= REST:
                self._rest(pipe, pause)

    def _rest(self, pipe: _Pipe, seconds: float) -> None:
        if pipe.rests is None:
            self._selector.unregister(pipe.end)
        pipe.rests = time.monotonic() + seconds

    def _take(self, pipe: _Pipe) -> int:
        """Read once; return how many bytes there were."""
        try:
            data = os.read(pipe.end, PIPE)
        except BlockingIOError:
            return 0
        if not data:
            self._end(pipe)
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
                self._begun[key] = line
        return len(data)

    def _end(self, pipe: _Pipe) -> None:
        """Nobody can write into a pipe any more."""
        if pipe.rests is None:
            self._selector.unregister(pipe.end)
        pipe.rests = None
        os.close(pipe.end)
        del self._pipes[pipe.end]
        if not any(each.worker == pipe.worker for each in self._pipes.values()):
            for key in [key for key in self._lines if key[0] == pipe.worker]:
                self._begun.pop(key, None)
                self._print(key, self._lines.pop(key).rest(final=True))

    def _print(self, key: _Key, text: str) -> None:
        _, slot, stream = key
        for frame in () if self._deaf else frames(slot, stream, text):
            self._waiting.append(frame)
            self._size += len(frame)
            if self._room is not None:
                self._room -= len(frame)
                if self._room < 0:
                    note = f"this node has printed {DISK >> 20} MB; nothing more is shown, to spare the disk\n"
                    self._waiting.extend(frames(-1, ERR, note))
                    self._deaf = True
                    return

    def _write(self, seconds: float) -> None:
        """Print as much as is taken, and wait so long for somebody to take it."""
        while self._waiting:
            if not self._poll.poll(seconds * 1000):
                if not self._stuck:
                    self._stuck = True
                    self._selector.register(self._out, selectors.EVENT_WRITE, self)
                return
            data = self._waiting.popleft()
            while self._waiting and len(data) + len(self._waiting[0]) <= FRAME:
                data += self._waiting.popleft()
            self._size -= len(data)
            try:
                os.write(self._out, data)
            except OSError:  # nobody listens any more
                self._deaf = True
                self._waiting.clear()
                self._size = 0
        if self._stuck:
            self._stuck = False
            self._selector.unregister(self._out)
