"""Run batches in worker processes forked from the zygote, or in one worker with a thread for each slot.

This is the end in the actor process. `Executor` starts and stops workers, sends them calls, and tells the slots what
happens to those.
"""

import asyncio
import contextlib
import marshal
import os
import socket
import sys
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence

from skyward.remote import failure_line
from skyward.remote.blobs import Blob, BlobError, Ref
from skyward.remote.module_bundles import IMPORTS_PREFIX, MODULE_PREFIX
from skyward.remote.node import fork_template, slot_state, stack_dump, zygote
from skyward.remote.node.preload import Preloader
from skyward.remote.node.worker import FRAME_HEADER
from skyward.remote.node.worker_link import Frames, WorkerLink, messages
from skyward.remote.protocol import Batch, Opening, Outcome

SHARED_WORKER = -1
"""The number of the one worker of a node whose slots are threads."""

STACK_POLL_INTERVAL_S = 0.02
"""Seconds between two checks whether a worker has written down its stacks."""

WORKER_EXIT_TIMEOUT_S, IDLE_WORKER_EXIT_TIMEOUT_S = 0.5, 5.0
"""Seconds that workers have to leave when the node ends, and that those without a batch have after that.

An idle worker leaves at once, unless its plugins or a busy machine take long. `parent_process` waits for longer.
"""

MAX_FUNCTIONS = 256
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
        self._keep, self._zygote_lost = keep, lost
        self._callbacks: dict[int, Callable[[slot_state.SlotEvent], None]] = {}  # by slot
        self._workers: dict[int, WorkerLink] = {}  # by number; a number is never used again
        self._by_slot: dict[int, WorkerLink] = {}
        self._replacements: dict[int, WorkerLink] = {}  # by slot, until they have started
        self._preloader = Preloader(self, functions)
        self._preloads = preload and not threads and sys.platform == "linux"  # elsewhere orphans are not adopted
        self._waited: dict[int, Opening] = {}  # by batch: it waited for imports before it was given
        self.given: dict[int, float] = {}  # when each slot was given batches last
        self._numbers = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._zygote_data = bytearray()
        link.setblocking(False)
        asyncio.get_running_loop().add_reader(link, self._read_zygote)

    def start(self, slot: int, tell: Callable[[slot_state.SlotEvent], None]) -> None:
        """Bring up a worker for the slot; tell it `WorkerStarted` or `WorkerExited`, and what happens to it later."""
        if self._closing:
            return
        self._callbacks[slot] = tell
        if (new := self._replacements.pop(slot, None)) is not None:
            self._use(slot, new)
            if new.pid is not None:
                self._tell(slot, slot_state.WorkerStarted())
            return
        worker = next(iter(self._workers.values()), None) if self._threads else None
        if worker is None:
            worker = self._fork(SHARED_WORKER if self._threads else slot)
        self._use(slot, worker)
        worker.send("start", slot)

    def stop(self, slot: int) -> None:
        """End what the slot runs, and tell it `WorkerExited`. A process is killed, a thread is asked and abandoned."""
        worker = self._by_slot[slot]
        self._preloader.take_back(slot)
        if self._threads:
            worker.send("stop", slot)
        else:
            self._order(zygote.KILL, worker.number)

    def send(self, slot: int, batches: Sequence[Batch]) -> None:
        """Send the batches to the slot's worker; an unused one may first be replaced by one that has imported more."""
        if not self._preloads or self._by_slot[slot].used or not self._preloader.holds(slot, batches):
            self.give(slot, batches)

    def give(self, slot: int, batches: Sequence[Batch], waited: Opening | None = None) -> None:
        """Send the batches to the slot's worker, with the functions that it lacks; the first may have waited."""
        worker = self._by_slot[slot]
        if waited is not None:
            self._waited[batches[0].id] = waited
        worker.used = True
        needed = {name for batch in batches for name in batch.functions if not name.startswith(IMPORTS_PREFIX)}
        clear = len(worker.sent | needed) > MAX_FUNCTIONS
        if clear:
            worker.sent.clear()
        functions = {name: self._functions[name] for name in needed - worker.sent if name in self._functions}
        worker.sent.update(functions)
        calls = []
        for batch in batches:
            places = self._places(batch) if batch.blobs else {}
            blobs = {name: (place.path, place.tag, place.size) for name, place in places.items()}
            names = tuple([name for name in batch.functions if not name.startswith((MODULE_PREFIX, IMPORTS_PREFIX))])
            calls.append((batch.id, batch.payload, names, batch.buffers, blobs))
        if worker.tokens is not None and len(calls) > 1:
            os.write(worker.tokens[1], bytes(len(calls)))
        worker.send("run", slot, functions, clear, calls)
        self.given[slot] = asyncio.get_running_loop().time()

    def take_back(self, slot: int) -> int:
        """Keep the slot's worker from beginning another batch of those it has; return how many it had not begun.

        The slot is also told of those that have ended.
        """
        worker = self._by_slot[slot]
        count = worker.take_back() + self._preloader.take_back(slot, keep=1)
        self._receive(worker, b"")
        return count

    async def stacks(self, within: float) -> dict[int, str]:
        """Return the stack of each slot's thread that writes it down within so many seconds."""
        workers = self._workers.values()
        asked = [worker for worker in workers if worker.pid is not None and worker.stack_file is not None]
        for worker in asked:
            os.ftruncate(worker.stack_file, 0)  # type: ignore[arg-type]
            os.lseek(worker.stack_file, 0, os.SEEK_SET)  # type: ignore[arg-type]
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, stack_dump.SIGNAL)  # type: ignore[arg-type]
        found: dict[int, str] = {}
        deadline = asyncio.get_running_loop().time() + within
        sizes: dict[int, int] = {}
        while asked and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(STACK_POLL_INTERVAL_S)
            for worker in list(asked):
                size = 0 if worker.stack_file is None else os.fstat(worker.stack_file).st_size
                if worker.stack_file is not None and (not size or size != sizes.get(worker.number)):
                    sizes[worker.number] = size  # it has not begun, or may still write
                    continue
                asked.remove(worker)
                if worker.stack_file is not None:
                    stacks = stack_dump.threads(os.pread(worker.stack_file, size, 0).decode(errors="replace"))
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
        for slot in [slot for slot, worker in self._by_slot.items() if not (worker.used or self._closing)]:
            new = self._replacements[slot] = self._fork(slot)
            new.send("start", slot)
        return [new.started for new in self._replacements.values()]

    def keep_unused(self) -> None:
        """Kill the new workers that have not started."""
        for new in self._replacements.values():
            self._order(zygote.KILL, new.number)
        self._replacements.clear()

    def _use(self, slot: int, worker: WorkerLink) -> None:
        self._by_slot[slot] = worker
        worker.slots.add(slot)

    def _started(self, slot: int, worker: WorkerLink) -> None:
        """Tell the slot that it has a worker, or have it use this one from now on."""
        worker.started.set()
        if self._replacements.get(slot) is not worker:
            self._tell(slot, slot_state.WorkerStarted())
        elif (old := self._by_slot[slot]).number in self._workers:  # else the slot is about to ask for a worker
            del self._replacements[slot]
            old.slots.clear()
            self._order(zygote.KILL, old.number)
            self._use(slot, worker)
            self._preloader.release(slot)

    def _fork(self, slot: int) -> WorkerLink:
        self._numbers += 1
        worker = self._workers[self._numbers] = WorkerLink(self._numbers)
        ours, theirs = socket.socketpair()
        with theirs:
            has_memfd = hasattr(os, "memfd_create")
            worker.stack_file = os.memfd_create("stacks") if has_memfd else os.open(os.devnull, os.O_RDWR)
            given = [theirs.fileno(), worker.stack_file]
            if slot != SHARED_WORKER:
                worker.tokens = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
                worker.outcome_pipe, outcome_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
                given += [worker.tokens[0], outcome_pipe]
            self._order(zygote.FORK, worker.number, slot, fds=given)
            for end in given[3:]:
                os.close(end)
        self._run(self._connect(worker, ours))
        return worker

    async def _connect(self, worker: WorkerLink, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: Frames(worker, self._receive), sock=ours)
        worker.transport = transport
        transport.writelines(worker.waiting)
        worker.waiting.clear()

    def _order(self, what: int, number: int, value: int = 0, text: bytes = b"", fds: Sequence[int] = ()) -> None:
        self._link.setblocking(True)
        try:
            socket.send_fds(self._link, [zygote.RECORD.pack(what, number, value) + text], fds)
        except ConnectionError:
            self._zygote_lost()
        self._link.setblocking(False)

    def _receive(self, worker: WorkerLink, data: bytes) -> int:
        """Handle the outcomes that a worker left, then its messages; return how many bytes were complete messages."""
        for message in messages(worker.read_outcomes()):
            self._handle(worker, message)
        used = 0
        for message in messages(data):
            self._handle(worker, message)
            used += FRAME_HEADER.size + len(message)
        for slot in tuple(worker.ended):
            self._tell_finished(slot, worker, last=False)
        return used

    def _handle(self, worker: WorkerLink, message: memoryview) -> None:
        what, slot, *rest = marshal.loads(message)
        match what:
            case "done":
                batch, status, payload, seconds, opening, last = rest
                self._keep_outcome(worker, Outcome(batch, status, payload, seconds, slot), None, opening, last=last)
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
                self._keep_outcome(worker, outcome, result, opening, last=last)
            case "up":
                worker.pid, worker.idents[slot] = rest
                self._started(slot, worker)
            case "useless":
                (worker.useless,) = rest
            case "stopped":
                self._tell(slot, slot_state.WorkerExited("stopped"))

    def _keep_outcome(
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

    def _tell(self, slot: int, event: slot_state.SlotEvent) -> None:
        try:
            self._callbacks[slot](event)
        except Exception as error:  # noqa: BLE001 - it ends the node
            failure_line.end_node("an actor of the node failed", error)

    def _read_zygote(self) -> None:
        try:
            data = self._link.recv(1 << 16)
        except BlockingIOError:
            return
        except ConnectionError:  # it has died with orders before it that it had not read
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._link)
            self._zygote_lost()
            return
        self._zygote_data += data
        while len(self._zygote_data) >= zygote.RECORD.size:
            what, number, length = zygote.RECORD.unpack_from(self._zygote_data)
            size = zygote.RECORD.size + length
            if len(self._zygote_data) < size:
                return
            text = bytes(self._zygote_data[zygote.RECORD.size : size]).decode(errors="replace")  # it may be cut
            del self._zygote_data[:size]
            if what == zygote.IMPORTED:
                self._preloader.imported(number, fork_template.times_in(text))
            else:
                self._run(self._remove(self._workers[number], text))

    async def _remove(self, worker: WorkerLink, cause: str) -> None:
        """Tell the slots of a worker that it has exited, after its last messages were handled."""
        if worker.transport is not None:
            with contextlib.suppress(TimeoutError):  # a child of the task may hold the socket open
                await asyncio.wait_for(worker.disconnected.wait(), 1.0)
            worker.transport.close()
        del self._workers[worker.number]
        unstarted = worker.take_back() + sum(map(self._preloader.take_back, worker.slots))
        for slot in [slot for slot, new in self._replacements.items() if new is worker]:
            del self._replacements[slot]
        worker.started.set()
        worker.gone.set()
        self._receive(worker, b"")
        worker.close()
        for slot in sorted(worker.slots):
            self._tell(slot, slot_state.WorkerExited(worker.useless or cause, unstarted))

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
