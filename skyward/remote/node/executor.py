"""Run batches in worker processes forked from the zygote, or in one worker with a thread for each slot.

This is the host's end. `Executor` starts and stops workers, hands them calls, and tells the slots what it hears.
"""

import asyncio
import contextlib
import marshal
import os
import socket
import sys
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

from skyward.remote import failure_line, module_bundles
from skyward.remote.blobs import Blob, BlobError, Ref
from skyward.remote.module_bundles import IMPORTS
from skyward.remote.node import fork_template, slot_state, stack_dump, zygote
from skyward.remote.node.preload import Preloader
from skyward.remote.node.worker import HEAD
from skyward.remote.node.worker_link import Frames, WorkerLink, messages
from skyward.remote.protocol import Batch, Opening, Outcome

SHARED = -1
"""The number of the one worker of a node whose slots are threads."""

STACK_POLL_INTERVAL_S = 0.02
"""Seconds between two looks at whether a worker has written down its stacks."""

WORKER_EXIT_TIMEOUT_S, IDLE_WORKER_EXIT_TIMEOUT_S = 0.5, 5.0
"""Seconds that workers have to leave when the node ends, and that those without a batch have after that.

An idle worker leaves at once, unless its plugins or a busy machine take long. `parent_process` waits for longer.
"""

FUNCTIONS = 256
"""Functions by value that a worker holds before it starts over."""


class Executor:
    """Runs batches on the workers of this node.

    Parameters
    ----------
    link
        The socket to the zygote.
    threads
        Whether the slots are threads of one worker, and not a process each.
    preload
        Whether unused workers may be replaced by others that have imported what batches need.
    functions
        The functions by value that this node holds, by name.
    places
        Says where the large buffers of a batch are, by name.
    keep
        Called on the loop with each outcome, its result if that is large, and the opening if that took long, before the
        slot is told `Finished`.
    lost
        Called on the loop when the zygote is gone, which is the end of the node.
    """

    def __init__(
        self,
        link: socket.socket,
        *,
        threads: bool,
        preload: bool,
        functions: Mapping[str, bytes],
        places: Callable[[Batch], Mapping[str, Ref]],
        keep: Callable[[Outcome, Blob | None, Opening | None], None],
        lost: Callable[[], None],
    ) -> None:
        self._link, self._threads, self._functions, self._places = link, threads, functions, places
        self._keep, self._lost = keep, lost
        self._callbacks: dict[int, Callable[[slot_state.Event], None]] = {}  # of the slots
        self._workers: dict[int, WorkerLink] = {}  # by number; a number is never used again
        self._of: dict[int, WorkerLink] = {}  # by slot
        self._new: dict[int, WorkerLink] = {}  # by slot: will be its worker once it has started
        self._preloader = Preloader(self, functions)
        self._preloads = preload and not threads and sys.platform == "linux"  # elsewhere nobody adopts orphans
        self._waited: dict[int, Opening] = {}  # by batch: it waited for imports before it was given
        self.given: dict[int, float] = {}  # when each slot was given batches last
        self._numbers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._news = bytearray()
        link.setblocking(False)
        asyncio.get_running_loop().add_reader(link, self._hear_zygote)

    def start(self, slot: int, tell: Callable[[slot_state.Event], None]) -> None:
        """Bring up a worker for the slot, and tell it `Started`, or `Exited`, and what happens to the worker later."""
        if self._closing:
            return
        self._callbacks[slot] = tell
        if (new := self._new.pop(slot, None)) is not None:
            self._use(slot, new)
            if new.pid is not None:
                self._tell(slot, slot_state.Started())
            return
        worker = next(iter(self._workers.values()), None) if self._threads else None
        if worker is None:
            worker = self._fork(SHARED if self._threads else slot)
        self._use(slot, worker)
        worker.send("start", slot)

    def stop(self, slot: int) -> None:
        """End what the slot runs; the slot is told `Exited`. A process is killed, a thread is asked and abandoned."""
        worker = self._of[slot]
        self._preloader.take_back(slot)
        if self._threads:
            worker.send("stop", slot)
        else:
            self._order(zygote.KILL, worker.number)

    def send(self, slot: int, batches: Sequence[Batch]) -> None:
        """Hand the batches to the slot's worker, which may first have to be one that has imported what they need."""
        if not self._preloads or self._of[slot].used or not self._preloader.holds(slot, batches):
            self.give(slot, batches)

    def give(self, slot: int, batches: Sequence[Batch], waited: Opening | None = None) -> None:
        """Hand the batches to the slot's worker, with the functions that it has not seen; the first may have waited."""
        worker = self._of[slot]
        if waited is not None:
            self._waited[batches[0].id] = waited
        worker.used = True
        needed = {name for batch in batches for name in batch.functions if not name.startswith(IMPORTS)}
        clear = len(worker.sent | needed) > FUNCTIONS
        if clear:
            worker.sent.clear()
        functions = {name: self._functions[name] for name in needed - worker.sent if name in self._functions}
        worker.sent.update(functions)
        calls = []
        for batch in batches:
            places = self._places(batch) if batch.blobs else {}
            blobs = {name: (place.path, place.tag, place.size) for name, place in places.items()}
            names = tuple([name for name in batch.functions if not name.startswith((module_bundles.PREFIX, IMPORTS))])
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
        count = worker.take_back() + self._preloader.take_back(slot, keep=1)
        self._hear(worker, b"")
        return count

    async def stacks(self, within: float) -> dict[int, str]:
        """Return the stack of each slot's thread; of none that does not write it down within so many seconds."""
        asked = [worker for worker in self._workers.values() if worker.pid is not None and worker.page is not None]
        for worker in asked:
            os.ftruncate(worker.page, 0)  # type: ignore[arg-type]
            os.lseek(worker.page, 0, os.SEEK_SET)  # type: ignore[arg-type]
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, stack_dump.SIGNAL)  # type: ignore[arg-type]
        found: dict[int, str] = {}
        deadline = asyncio.get_running_loop().time() + within
        sizes: dict[int, int] = {}
        while asked and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(STACK_POLL_INTERVAL_S)
            for worker in list(asked):
                size = 0 if worker.page is None else os.fstat(worker.page).st_size
                if worker.page is not None and (not size or size != sizes.get(worker.number)):
                    sizes[worker.number] = size  # it has not begun, or may still write
                    continue
                asked.remove(worker)
                if worker.page is not None:
                    stacks = stack_dump.threads(os.pread(worker.page, size, 0).decode(errors="replace"))
                    found |= {slot: stacks.get(ident, "") for slot, ident in worker.idents.items()}
        return found

    async def close(self, busy: Collection[int]) -> None:
        """Let the workers leave, for some seconds those of slots that are not busy, and for a moment the others.

        The zygote kills those that are left when this process ends.
        """
        self._closing = True  # a slot whose worker has left asks for another one
        workers = list(self._workers.values())
        idle = [worker for worker in workers if worker.pid is not None and worker.slots.isdisjoint(busy)]
        for worker in workers:
            if worker.transport is not None:
                worker.transport.close()
        for leaving, seconds in ((workers, WORKER_EXIT_TIMEOUT_S), (idle, IDLE_WORKER_EXIT_TIMEOUT_S)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    for worker in leaving:
                        await worker.gone.wait()

    def begin_import(self, names: bytes) -> int:
        """Have the zygote import modules; return the number of the order."""
        self._numbers += 1
        self._order(zygote.IMPORT, self._numbers, len(names), names)
        return self._numbers

    def end_import(self, number: int) -> None:
        """Have the zygote give up importing."""
        self._order(zygote.KILL, number)

    def replace_unused(self) -> list[asyncio.Event]:
        """Start a new worker for each that is unused; each event is set when one has started or failed to."""
        for slot in [slot for slot, worker in self._of.items() if not (worker.used or self._closing)]:
            new = self._new[slot] = self._fork(slot)
            new.send("start", slot)
        return [new.started for new in self._new.values()]

    def keep_unused(self) -> None:
        """Give up the new workers that have not started."""
        for new in self._new.values():
            self._order(zygote.KILL, new.number)
        self._new.clear()

    def _use(self, slot: int, worker: WorkerLink) -> None:
        self._of[slot] = worker
        worker.slots.add(slot)

    def _started(self, slot: int, worker: WorkerLink) -> None:
        """Tell the slot that it has a worker, or have it use this one from now on."""
        worker.started.set()
        if self._new.get(slot) is not worker:
            self._tell(slot, slot_state.Started())
        elif (old := self._of[slot]).number in self._workers:  # else the slot is about to ask for a worker
            del self._new[slot]
            old.slots.clear()
            self._order(zygote.KILL, old.number)
            self._use(slot, worker)
            self._preloader.release(slot)

    def _fork(self, slot: int) -> WorkerLink:
        self._numbers += 1
        worker = self._workers[self._numbers] = WorkerLink(self._numbers)
        ours, theirs = socket.socketpair()
        with theirs:
            worker.page = os.memfd_create("stacks") if hasattr(os, "memfd_create") else os.open(os.devnull, os.O_RDWR)
            given = [theirs.fileno(), worker.page]
            if slot != SHARED:
                worker.tokens = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
                worker.tray, tray = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
                given += [worker.tokens[0], tray]
            self._order(zygote.FORK, worker.number, slot, fds=given)
            for end in given[3:]:
                os.close(end)
        self._do(self._connect(worker, ours))
        return worker

    async def _connect(self, worker: WorkerLink, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: Frames(worker, self._hear), sock=ours)
        worker.transport = transport
        transport.writelines(worker.waiting)
        worker.waiting.clear()

    def _order(self, what: int, number: int, value: int = 0, text: bytes = b"", fds: Sequence[int] = ()) -> None:
        self._link.setblocking(True)
        try:
            socket.send_fds(self._link, [zygote.RECORD.pack(what, number, value) + text], fds)
        except ConnectionError:
            self._lost()
        self._link.setblocking(False)

    def _hear(self, worker: WorkerLink, data: bytes) -> int:
        """Take what a worker has left, then what it says; return how many bytes of that were whole messages."""
        for message in messages(worker.left()):
            self._take(worker, message)
        used = 0
        for message in messages(data):
            self._take(worker, message)
            used += HEAD.size + len(message)
        for slot in tuple(worker.ended):
            self._tell_finished(slot, worker, last=False)
        return used

    def _take(self, worker: WorkerLink, message: memoryview) -> None:
        what, slot, *rest = marshal.loads(message)
        match what:
            case "done":
                batch, status, payload, seconds, opening, last = rest
                self._end(worker, Outcome(batch, status, payload, seconds, slot), None, opening, last=last)
            case "nothing more":
                self._tell_finished(slot, worker, last=True)
            case "large":
                batch, status, seconds, opening, last, place, sizes = rest
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
                self._end(worker, outcome, result, opening, last=last)
            case "up":
                worker.pid, worker.idents[slot] = rest
                self._started(slot, worker)
            case "useless":
                (worker.useless,) = rest
            case "stopped":
                self._tell(slot, slot_state.Exited("stopped"))

    def _end(
        self,
        worker: WorkerLink,
        outcome: Outcome,
        result: Blob | None,
        told: tuple[float, dict[str, float]] | None,
        *,
        last: bool,
    ) -> None:
        """Keep an outcome; its slot is told together with others, but at once of the last."""
        opening = None if told is None else Opening(*told)
        if self._waited and (waited := self._waited.pop(outcome.batch, None)) is not None:
            opening = waited if opening is None else waited + opening
        self._keep(outcome, result, opening)
        worker.ended.setdefault(outcome.slot, []).append(outcome)
        if last:
            self._tell_finished(outcome.slot, worker, last=True)

    def _tell_finished(self, slot: int, worker: WorkerLink, *, last: bool) -> None:
        ended = worker.ended.pop(slot, ())
        seconds = sum([outcome.seconds for outcome in ended])
        self._tell(slot, slot_state.Finished(tuple([outcome.batch for outcome in ended]), last, seconds))

    def _tell(self, slot: int, event: slot_state.Event) -> None:
        try:
            self._callbacks[slot](event)
        except Exception as error:  # noqa: BLE001 - it ends the node
            failure_line.end_node("an actor of the node failed", error)

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
            what, number, length = zygote.RECORD.unpack_from(self._news)
            size = zygote.RECORD.size + length
            if len(self._news) < size:
                return
            text = bytes(self._news[zygote.RECORD.size : size]).decode(errors="replace")  # it may be cut
            del self._news[:size]
            if what == zygote.IMPORTED:
                self._preloader.imported(number, fork_template.times_in(text))
            else:
                self._do(self._bury(self._workers[number], text))

    async def _bury(self, worker: WorkerLink, cause: str) -> None:
        """Tell the slots of a worker that it is gone, after what it still said has been heard."""
        if worker.transport is not None:
            with contextlib.suppress(TimeoutError):  # a child of the task may hold the socket open
                await asyncio.wait_for(worker.silent.wait(), 1.0)
            worker.transport.close()
        del self._workers[worker.number]
        unstarted = worker.take_back() + sum(map(self._preloader.take_back, worker.slots))
        for slot in [slot for slot, new in self._new.items() if new is worker]:
            del self._new[slot]
        worker.started.set()
        worker.gone.set()
        self._hear(worker, b"")
        worker.close()
        for slot in sorted(worker.slots):
            self._tell(slot, slot_state.Exited(worker.useless or cause, unstarted))

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
