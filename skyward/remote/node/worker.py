"""A worker process: it runs the calls of a slot, or of all slots of its node in a thread each.

It is forked from the zygote and exchanges messages with the actor process over a socket: a `FRAME_HEADER`, then
marshaled data.
"""

import atexit
import contextlib
import ctypes
import marshal
import os
import select
import socket
import struct
import sys
import threading
import time
import traceback
import types
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, NoReturn, Protocol

from skyward.remote import context, fork_guard, module_bundles
from skyward.remote.blobs import Blob, Buffer, Ref
from skyward.remote.node.import_timer import ImportTimer
from skyward.remote.serialization import call_codec, exceptions
from skyward.remote.serialization.loader import Functions
from skyward.remote.serialization.namespace import Mains

FRAME_HEADER = struct.Struct("<Q")

RESULT_DELAY_S = 0.001
"""Seconds for which an outcome may wait in the pipe, to be announced with the next one."""

MIN_OPENING_S = 1e-4
"""Seconds that opening a call takes at least before it is told apart from running it."""

MIN_IMPORT_S = 1e-3
"""Seconds that a module takes to import at least before it is named."""

type _OpeningTimes = tuple[float, dict[str, float]]
"""What `protocol.Opening` holds."""


class Hooks(Protocol):
    """What a plugin does on a node; `skyward.plugins.plugin.Plugin` is one."""

    def worker(self, info: context.InstanceInfo, /) -> AbstractContextManager[object]: ...
    def task(self, info: context.InstanceInfo, /) -> AbstractContextManager[object]: ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What a zygote and its workers are told once: the node's place, modules to import, pickled hooks (or none).

    The user's own modules that those need are bundles in `modules`; all that come go below `folder`. `levels` are those
    of the loggers that have one where the pool is.
    """

    node: int
    nodes: int
    slots: int
    preload: tuple[str, ...]
    hooks: bytes
    folder: str = ""
    modules: Mapping[str, bytes] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)


def exit_now(code: int) -> NoReturn:
    """End this process without finalizing Python, which for a hundred workers would take seconds."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


class Stopped(BaseException):
    """Raised in a thread slot whose task is to stop; a process slot is killed instead."""


type _Sent = tuple[int, bytes, tuple[str, ...], tuple[str, ...], dict[str, tuple[str, str, int]]]
"""A call as it comes over the socket: its number, bytes, functions and buffers, and where its blobs are."""


class WorkerProcess:
    """Runs the calls of one slot in the main thread (`alone`), or of all slots of the node in a thread each.

    Before it begins one of several calls that it was given together it takes a byte from the pipe `tokens`. If the
    actor process takes it first, the call does not begin. The outcomes of all but the last may wait in `outcome_pipe`,
    which the actor process reads with each message: so it is not woken for each, and none is lost when a call takes
    this process down.
    """

    def __init__(
        self,
        link: socket.socket,
        setting: Setting,
        hooks: tuple[Hooks, ...],
        tokens: int = -1,
        outcome_pipe: int = -1,
        *,
        alone: bool,
    ) -> None:
        self.link, self.setting, self.hooks, self.alone = link, setting, hooks, alone
        self.tokens, self.outcome_pipe = tokens, outcome_pipe
        self.left = 0.0  # when the first outcome was left that was not announced
        self.functions = Functions()
        self.runners: dict[int, _SlotRunner] = {}
        self.results: dict[int, Blob] = {}  # large ones that the actor process has not adopted
        self.lock = threading.Lock()
        self.host = socket.gethostname()
        self.imports = ImportTimer()
        self.stack = ExitStack()

    def run(self) -> None:
        _reseed()
        fork_guard.forget_exit_functions()
        main = types.ModuleType if self.alone else Mains
        sys.modules["__main__"] = main("__main__")  # nothing of the node's own is importable from there
        entered = False
        reader = self.link.makefile("rb", buffering=1 << 16)
        with self.stack:
            while head := reader.read(FRAME_HEADER.size):
                what, slot, *rest = marshal.loads(reader.read(FRAME_HEADER.unpack(head)[0]))
                if what == "start":
                    info = context.InstanceInfo(
                        self.setting.node, slot, self.setting.nodes, self.setting.slots, self.host
                    )
                    if not entered:
                        entered = True
                        context.enter(info)
                        self.prepare(slot, info)
                        self.imports.install()
                    self.runners[slot] = _SlotRunner(self, info)
                    self.send("up", slot, os.getpid(), (self.runners[slot].thread or threading.current_thread()).ident)
                elif what == "run":
                    functions, clear, calls = rest
                    if clear:
                        self.functions = Functions()
                    others = module_bundles.install(self.setting.folder, functions)
                    if len(others) < len(functions):
                        self.functions.load_again()
                    self.functions.raw.update(others)
                    self.serve(slot, calls)
                elif what == "taken":
                    self.results.pop(rest[0], None)
                else:
                    self.runners.pop(slot).abandon()
                    self.send("stopped", slot)

    def serve(self, slot: int, calls: list[_Sent]) -> None:
        """Run what the slot was given, but for what is taken back."""
        for place, (batch, payload, names, buffers, places) in enumerate(calls, 1):
            if len(calls) > 1 and not self.may_begin():
                self.send("nothing more", slot)
                return
            blobs = {name: Ref(*where) for name, where in places.items()}
            call_context = call_codec.CallContext(self.functions, blobs, buffers, names, owns_main=self.alone)
            self.runners[slot].take(_PackedCall(batch, payload, call_context, last=place == len(calls)))

    def may_begin(self) -> bool:
        try:
            return len(os.read(self.tokens, 1)) == 1
        except BlockingIOError:
            return False

    def prepare(self, slot: int, info: context.InstanceInfo) -> None:
        """Enter the `worker` contexts of plugins; if one fails, this process ends."""
        for hook in self.hooks:
            try:
                self.stack.enter_context(hook.worker(info))
            except Exception as error:  # user code
                traceback.print_exc()
                self.send("useless", slot, f"{type(hook).__name__}.worker raised {type(error).__name__}: {error}")
                exit_now(1)

    def answer(
        self,
        slot: int,
        call: "_PackedCall",
        status: call_codec.Status,
        parts: list[Buffer],
        seconds: float,
        opening: _OpeningTimes | None,
    ) -> None:
        """Hand over an outcome, through shared memory if it is large."""
        sizes = tuple(len(part) for part in parts)
        if sum(sizes) < call_codec.LARGE_RESULT_BYTES:
            message = ("done", slot, call.batch, status, parts[0], seconds, opening, call.last)
            if call.last or not self.leave(*message):
                self.send(*message)
            return
        result = self.results[call.batch] = Blob.of(parts)
        place = (result.ref.path, result.ref.tag, result.ref.size)
        self.send("large", slot, call.batch, status, seconds, opening, call.last, place, sizes)

    def send(self, *message: Any) -> None:
        self.left = 0.0
        data = marshal.dumps(message)
        try:
            with self.lock:
                self.link.sendall(FRAME_HEADER.pack(len(data)) + data)
        except (BrokenPipeError, ConnectionResetError):  # the actor process is gone, or stops this worker
            exit_now(1)

    def leave(self, *message: Any) -> bool:
        """Leave a message in the pipe of outcomes, if it fits in one piece and the oldest there is recent."""
        now = time.perf_counter()
        data = marshal.dumps(message)
        if (
            self.outcome_pipe < 0
            or FRAME_HEADER.size + len(data) > select.PIPE_BUF
            or now - (self.left or now) > RESULT_DELAY_S
        ):
            return False
        try:
            os.write(self.outcome_pipe, FRAME_HEADER.pack(len(data)) + data)
        except BlockingIOError:  # it is full
            return False
        self.left = self.left or now
        return True


@dataclass(frozen=True, slots=True)
class _PackedCall:
    """A packed call, its context, and whether its slot has no other call."""

    batch: int
    payload: bytes
    context: call_codec.CallContext
    last: bool


class _SlotRunner:
    """The calls of one slot, one after the other."""

    def __init__(self, worker: WorkerProcess, info: context.InstanceInfo) -> None:
        self.worker, self.info = worker, info
        self.abandoned = False
        self.opened = 0.0  # when the call was that runs
        self.imports, self.imported = worker.imports, 0
        self.calls: SimpleQueue[_PackedCall | None] = SimpleQueue()
        self.thread: threading.Thread | None = None
        if not worker.alone:
            self.thread = threading.Thread(target=self.serve, name=f"slot-{info.slot}", daemon=True)
            self.thread.start()

    def take(self, call: _PackedCall) -> None:
        if self.thread is None:
            self.execute(call)
        else:
            self.calls.put(call)

    def serve(self) -> None:
        context.enter(self.info)
        with contextlib.suppress(Stopped):
            while (call := self.calls.get()) is not None:
                self.execute(call)

    def execute(self, call: _PackedCall) -> None:
        self.opened = 0.0
        began = time.perf_counter()
        status, parts = call_codec.execute(call.payload, call.context, self.around, self.note_opened)
        ended = time.perf_counter()
        if self.abandoned:
            return
        opening = None
        if (self.opened or ended) - began >= MIN_OPENING_S or self.imports.count != self.imported:
            opening = self.opening(began, ended)
        ran = ended - began - (opening[0] if opening else 0.0)
        try:
            self.worker.answer(self.info.slot, call, status, parts, ran, opening)
        except OSError as error:  # it is large, and there is no memory or descriptor for it
            size = sum(len(part) for part in parts)
            failed = OSError(error.errno, f"the result, of {size:,} bytes, cannot leave its slot: {error.strerror}")
            self.worker.answer(self.info.slot, call, "raised", [exceptions.pack_exception(failed)], ran, opening)

    def note_opened(self) -> None:
        self.opened = time.perf_counter()

    def opening(self, began: float, ended: float) -> _OpeningTimes:
        """Return what opening the call took, with the imports while it ran."""
        opened = self.opened or ended
        seconds = opened - began
        modules: dict[str, float] = {}
        self.imported = self.imports.count
        for module, at, took in self.imports.take():
            modules[module] = modules.get(module, 0.0) + took
            seconds += took if at >= opened else 0.0
        return seconds, {module: took for module, took in modules.items() if took >= MIN_IMPORT_S}

    def around(self) -> AbstractContextManager[object]:
        stack = ExitStack()
        for hook in self.worker.hooks:
            stack.enter_context(hook.task(self.info))
        return stack

    def abandon(self) -> None:
        """Ask the thread to stop, and ignore it from now on: Python cannot kill a thread."""
        self.abandoned = True
        self.calls.put(None)
        if self.thread is not None and self.thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.thread.ident), ctypes.py_object(Stopped))


def _reseed() -> None:
    """Give this worker random numbers of its own: a fork copies NumPy's generator (Python reseeds its own)."""
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()
