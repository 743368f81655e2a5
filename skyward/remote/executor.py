"""Where a batch runs: worker processes forked from the zygote, or one worker with a thread for each slot.

This is the host's end. `Executor` starts and stops workers, hands them calls, and tells the slots what it hears.
"""

import asyncio
import contextlib
import marshal
import os
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skyward.remote import looking, modules, turn, zygote
from skyward.remote.blobs import Blob, BlobError, Ref
from skyward.remote.protocol import Batch, Outcome
from skyward.remote.worker import HEAD

SHARED = -1
"""The number of the one worker of a node whose slots are threads."""

PAUSE = 0.02
"""Seconds between two looks at whether a worker has written down its stacks."""

FUNCTIONS = 256
"""Functions by value that a worker holds before it starts over."""


@dataclass(slots=True)
class _Worker:
    """One worker process: its socket, the slots that count on it, the functions it was sent, what it died of.

    `tokens` is the pipe that holds a byte for each batch it was given and has not begun; either end takes one to begin
    it, or to keep it from being begun. `tray` is the end of a pipe where it leaves outcomes while others are to follow
    at once; there they outlast it. It writes its stacks to `page` when it gets a signal; its slots' threads have these
    `idents`. `ended` are batches by slot of which the slot was not yet told.
    """

    number: int
    slots: set[int] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)
    useless: str = ""
    transport: asyncio.Transport | None = None
    tokens: tuple[int, int] | None = None
    tray: int | None = None
    page: int | None = None
    pid: int | None = None
    idents: dict[int, int] = field(default_factory=dict)
    ended: dict[int, list[int]] = field(default_factory=dict)
    waiting: list[bytes] = field(default_factory=list)
    silent: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, *message: Any) -> None:
        data = marshal.dumps(message)
        data = HEAD.pack(len(data)) + data
        if self.transport is None:
            self.waiting.append(data)
        elif not self.transport.is_closing():  # else it has just died, which its slots are about to hear
            self.transport.write(data)

    def take_back(self) -> int:
        """Take every token that is left, and return how many that were."""
        if self.tokens is None:
            return 0
        try:
            return len(os.read(self.tokens[0], 4096))
        except BlockingIOError:
            return 0

    def left(self) -> bytes:
        """Take what lies in the tray."""
        found = b""
        with contextlib.suppress(BlockingIOError):
            while self.tray is not None and (more := os.read(self.tray, 1 << 16)):
                found += more
        return found

    def close(self) -> None:
        """Let go of the pipes and the page."""
        for end in (*(self.tokens or ()), self.tray, self.page):
            if end is not None:
                os.close(end)
        self.tokens = self.tray = self.page = self.pid = None


class Executor:
    """Runs batches on the workers of this node.

    Parameters
    ----------
    link
        The socket to the zygote.
    threads
        Whether the slots are threads of one worker, and not a process each.
    functions
        The functions by value that this node holds, by name.
    places
        Says where the large buffers of a batch are, by name.
    tell
        Called on the loop with a slot's number and what happened to it.
    keep
        Called on the loop with each outcome and its result if that is large, before the slot is told `Finished`.
    lost
        Called on the loop when the zygote is gone, which is the end of the node.
    """

    def __init__(
        self,
        link: socket.socket,
        *,
        threads: bool,
        functions: Mapping[str, bytes],
        places: Callable[[Batch], Mapping[str, Ref]],
        tell: Callable[[int, turn.Event], None],
        keep: Callable[[Outcome, Blob | None], None],
        lost: Callable[[], None],
    ) -> None:
        self._link, self._threads, self._functions, self._places = link, threads, functions, places
        self._tell, self._keep, self._lost = tell, keep, lost
        self._workers: dict[int, _Worker] = {}  # by number; a number is never used again
        self._of: dict[int, _Worker] = {}  # by slot
        self.given: dict[int, float] = {}  # when each slot was given batches last
        self._numbers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._closing = False
        self._news = bytearray()
        link.setblocking(False)
        asyncio.get_running_loop().add_reader(link, self._hear_zygote)

    def start(self, slot: int) -> None:
        """Bring up a worker for the slot; the slot hears `Started`, or `Exited`."""
        if self._closing:
            return
        worker = next(iter(self._workers.values()), None) if self._threads else None
        if worker is None:
            worker = self._fork(SHARED if self._threads else slot)
        worker.slots.add(slot)
        self._of[slot] = worker
        worker.send("start", slot)

    def stop(self, slot: int) -> None:
        """End what the slot runs; the slot hears `Exited`. A process is killed, a thread is asked and abandoned."""
        worker = self._of[slot]
        if self._threads:
            worker.send("stop", slot)
        else:
            self._order(zygote.RECORD.pack(zygote.KILL, worker.number, 0))

    def send(self, slot: int, batches: Sequence[Batch]) -> None:
        """Hand the batches to the slot's worker, with the functions that the worker has not seen."""
        worker = self._of[slot]
        needed = {name for batch in batches for name in batch.functions}
        clear = len(worker.sent | needed) > FUNCTIONS
        if clear:
            worker.sent.clear()
        functions = {name: self._functions[name] for name in needed - worker.sent if name in self._functions}
        worker.sent.update(functions)
        calls = []
        for batch in batches:
            places = self._places(batch) if batch.blobs else {}
            blobs = {name: (place.path, place.tag, place.size) for name, place in places.items()}
            names = tuple(name for name in batch.functions if not name.startswith(modules.PREFIX))
            calls.append((batch.id, batch.payload, names, batch.buffers, blobs))
        if worker.tokens is not None and len(calls) > 1:
            os.write(worker.tokens[1], bytes(len(calls)))
        worker.send("run", slot, functions, clear, calls)
        self.given[slot] = asyncio.get_running_loop().time()

    def take_back(self, slot: int) -> int:
        """Keep the slot's worker from beginning another batch of those it has; return how many it had not begun.

        The slot is also told of those that have ended.
        """
        worker = self._of[slot]
        count = worker.take_back()
        self._hear(worker, b"")
        return count

    async def stacks(self, within: float) -> dict[int, str]:
        """Return the stack of each slot's thread; of none that does not write it down within so many seconds."""
        asked = [worker for worker in self._workers.values() if worker.pid is not None and worker.page is not None]
        for worker in asked:
            os.ftruncate(worker.page, 0)  # type: ignore[arg-type]
            os.lseek(worker.page, 0, os.SEEK_SET)  # type: ignore[arg-type]
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, looking.SIGNAL)  # type: ignore[arg-type]
        found: dict[int, str] = {}
        deadline = asyncio.get_running_loop().time() + within
        sizes: dict[int, int] = {}
        while asked and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(PAUSE)
            for worker in list(asked):
                size = 0 if worker.page is None else os.fstat(worker.page).st_size
                if worker.page is not None and (not size or size != sizes.get(worker.number)):
                    sizes[worker.number] = size  # it has not begun, or may still write
                    continue
                asked.remove(worker)
                if worker.page is not None:
                    stacks = looking.threads(os.pread(worker.page, size, 0).decode(errors="replace"))
                    found |= {slot: stacks.get(ident, "") for slot, ident in worker.idents.items()}
        return found

    async def close(self, patience: float) -> None:
        """Let idle workers leave, for `patience` seconds; the zygote kills the others when this process ends."""
        self._closing = True  # a slot whose worker has left asks for another one
        for worker in self._workers.values():
            if worker.transport is not None:
                worker.transport.close()
        if self._workers:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), patience)

    def _fork(self, slot: int) -> _Worker:
        self._numbers += 1
        worker = self._workers[self._numbers] = _Worker(self._numbers)
        ours, theirs = socket.socketpair()
        with theirs:
            worker.page = os.memfd_create("stacks") if hasattr(os, "memfd_create") else os.open(os.devnull, os.O_RDWR)
            given = [theirs.fileno(), worker.page]
            if slot != SHARED:
                worker.tokens = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
                worker.tray, tray = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
                given += [worker.tokens[0], tray]
            record = zygote.RECORD.pack(zygote.FORK, worker.number, slot)
            self._order(record, given)
            for end in given[3:]:
                os.close(end)
        self._do(self._connect(worker, ours))
        return worker

    async def _connect(self, worker: _Worker, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: _Frames(worker, self._hear), sock=ours)
        worker.transport = transport
        transport.writelines(worker.waiting)
        worker.waiting.clear()

    def _order(self, record: bytes, fds: Sequence[int] = ()) -> None:
        self._link.setblocking(True)
        try:
            socket.send_fds(self._link, [record], fds)
        except ConnectionError:
            self._lost()
        self._link.setblocking(False)

    def _hear(self, worker: _Worker, data: bytes) -> int:
        """Take what a worker has left, then what it says; return how many bytes of that were whole messages."""
        for message in _messages(worker.left()):
            self._take(worker, message)
        used = 0
        for message in _messages(data):
            self._take(worker, message)
            used += HEAD.size + len(message)
        for slot in tuple(worker.ended):
            self._tell(slot, turn.Finished(tuple(worker.ended.pop(slot)), last=False))
        return used

    def _take(self, worker: _Worker, message: memoryview) -> None:
        what, slot, *rest = marshal.loads(message)
        match what:
            case "done":
                batch, status, payload, seconds, last = rest
                self._end(worker, Outcome(batch, status, payload, seconds, slot), None, last=last)
            case "nothing more":
                self._tell(slot, turn.Finished(tuple(worker.ended.pop(slot, ()))))
            case "large":
                batch, status, seconds, last, place, sizes = rest
                result: Blob | None
                try:
                    result = Blob.adopt(Ref(*place))
                except BlobError as error:
                    outcome, result = (
                        Outcome(batch, "died", f"its result was lost: {error}".encode(), seconds, slot),
                        None,
                    )
                else:
                    outcome = Outcome(batch, status, b"", seconds, slot, result.ref, sizes)
                worker.send("taken", slot, batch)
                self._end(worker, outcome, result, last=last)
            case "up":
                worker.pid, worker.idents[slot] = rest
                self._tell(slot, turn.Started())
            case "useless":
                (worker.useless,) = rest
            case "stopped":
                self._tell(slot, turn.Exited("stopped"))

    def _end(self, worker: _Worker, outcome: Outcome, result: Blob | None, *, last: bool) -> None:
        """Keep an outcome; its slot is told together with others, but at once of the last."""
        self._keep(outcome, result)
        worker.ended.setdefault(outcome.slot, []).append(outcome.batch)
        if last:
            self._tell(outcome.slot, turn.Finished(tuple(worker.ended.pop(outcome.slot))))

    def _hear_zygote(self) -> None:
        try:
            data = self._link.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionError:  # it has died with orders before it that it had not read
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._link)
            self._lost()
            return
        self._news += data
        while len(self._news) >= zygote.RECORD.size:
            _, number, length = zygote.RECORD.unpack_from(self._news)
            size = zygote.RECORD.size + length
            if len(self._news) < size:
                return
            text = bytes(self._news[zygote.RECORD.size : size]).decode(errors="replace")  # it may be cut
            del self._news[:size]
            self._do(self._bury(self._workers[number], text))

    async def _bury(self, worker: _Worker, cause: str) -> None:
        """Tell the slots of a worker that it is gone, after what it still said has been heard."""
        if worker.transport is not None:
            with contextlib.suppress(TimeoutError):  # a child of the task may hold the socket open
                await asyncio.wait_for(worker.silent.wait(), 1.0)
            worker.transport.close()
        del self._workers[worker.number]
        if not self._workers:
            self._empty.set()
        unstarted = worker.take_back()
        self._hear(worker, b"")
        worker.close()
        for slot in sorted(worker.slots):
            self._tell(slot, turn.Exited(worker.useless or cause, unstarted))

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Frames(asyncio.Protocol):
    """Hears what a worker says, and keeps the part of a message that has not come whole."""

    def __init__(self, worker: _Worker, hear: Callable[[_Worker, bytes], int]) -> None:
        self._worker, self._hear = worker, hear
        self._part = b""

    def data_received(self, data: bytes) -> None:
        data = self._part + data
        self._part = data[self._hear(self._worker, data) :]

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.silent.set()


def _messages(data: bytes) -> Iterator[memoryview]:
    """Cut what a worker wrote into messages, as far as they are whole."""
    at, head, view = 0, HEAD.size, memoryview(data)
    while len(data) - at >= head:
        end = at + head + HEAD.unpack_from(data, at)[0]
        if end > len(data):
            return
        yield view[at + head : end]
        at = end
