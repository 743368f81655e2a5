"""The parent of the slots' worker processes.

A zygote is forked from the node before the node imports casty, so nothing here ever holds a socket of the cluster. It
imports what the tasks will need, once, and then forks workers, which share that memory. It ends when the actor process
does, and kills its workers.

What calls turn out to import is imported by a child, which workers are then forked from (see `fork_template`).

Actor process and zygote exchange records of nine bytes: what, which worker (a number that the executor chose), and a
value. The value is the slot for `FORK`, and the length of the text that follows for `ENDED`, `IMPORT` and `IMPORTED`.
"""

import contextlib
import errno
import gc
import importlib
import mmap
import os
import selectors
import signal
import socket
import struct
import sys
from typing import NoReturn

from skyward.errors import explain
from skyward.remote import failure_line, module_bundles
from skyward.remote.node import fork_template, output_capture, process_tree, stack_dump
from skyward.remote.node.fork_template import Template
from skyward.remote.node.output_capture import OutputPipes
from skyward.remote.node.output_collector import OutputCollector
from skyward.remote.node.worker import Hooks, Setting, WorkerProcess, exit_now
from skyward.remote.serialization import call_codec

RECORD = struct.Struct("<Bii")
FORK, KILL, ENDED, IMPORT, IMPORTED = range(5)


def serve(link: socket.socket, setting: Setting, importing: mmap.mmap) -> NoReturn:
    """Import what the tasks need, then fork and reap workers until the actor process is gone. Never returns.

    Parameters
    ----------
    link
        The socket to the actor process.
    setting
        What to import, and what the workers are told.
    importing
        Shared memory that holds the name of the module being imported, for the report of a crash.
    """
    gc.enable()  # see `__main__`
    hooks: tuple[Hooks, ...] = ()
    what = "its modules cannot be installed"
    try:
        module_bundles.install(setting.folder, setting.modules)
        for module in setting.preload:
            what = f"cannot import {module!r} (preload)"
            importing[:] = module.encode()[: len(importing)].ljust(len(importing), b"\0")
            importlib.import_module(module)
        importing[:] = bytes(len(importing))
        what = "its plugins cannot be loaded"
        hooks = call_codec.load_hooks(setting.hooks)
    except BaseException as error:
        output_capture.flush_lines()
        failure_line.report_exception(what, _without_own_frames(error), final=True)
        os._exit(1)
    output_capture.flush_lines()
    gc.collect()
    gc.freeze()  # what is shared stays shared: the collector does not touch it any more
    try:
        _Zygote(link, setting, hooks).run()
    except BaseException as error:
        failure_line.report_exception("the parent of its workers failed", error)
        os._exit(1)
    os._exit(0)


def _without_own_frames(error: BaseException) -> BaseException:
    """Drop the frames that lead to the module that was to be imported."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_globals.get("__name__", "").startswith((__name__, "importlib")):
        frame = frame.tb_next
    return error.with_traceback(frame)


class _Zygote:
    def __init__(self, link: socket.socket, setting: Setting, hooks: tuple[Hooks, ...]) -> None:
        self.link, self.setting, self.hooks = link, setting, hooks
        self.workers: dict[int, int] = {}  # pid -> number
        self.starvations = process_tree.starvations()
        self.template: Template | None = None
        self.importing: tuple[int, Template] | None = None  # its number, and what may become the template

    def run(self) -> None:
        wake, woken = socket.socketpair()
        wake.setblocking(False)
        woken.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.link, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            self.selector, self.collector = selector, OutputCollector(selector)
            while True:
                for key, _ in selector.select(self.collector.timeout()):
                    if self.collector.handle_ready(key.data):
                        continue
                    if key.fileobj is woken:
                        with contextlib.suppress(BlockingIOError):
                            woken.recv(4096)
                        self.reap()
                    elif self.importing is not None and key.fileobj is self.importing[1].link:
                        number, candidate = self.importing
                        self.end_import(number, candidate.times())
                    elif not self.handle_order():
                        signal.set_wakeup_fd(-1)  # `wake` is closed while processes may still end
                        for each in self.templates():
                            each.kill()
                        for pid in self.workers:
                            process_tree.kill(pid)
                        self.collector.close()
                        return
                self.collector.flush()

    def handle_order(self) -> bool:
        try:
            data, fds, flags, _ = socket.recv_fds(self.link, RECORD.size, 4)
        except ConnectionError:
            return False
        if len(data) < RECORD.size:
            return False
        what, number, value = RECORD.unpack(data)
        if what == FORK:
            try:
                if flags & socket.MSG_CTRUNC:
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                self.workers[self.fork(what, number, value, b"", fds)] = number
            except OSError as error:
                for fd in fds:
                    os.close(fd)
                self.report(ENDED, number, f"cannot fork a worker process: {explain(error)}")
        elif what == IMPORT:
            self.begin_import(number, self.link.recv(value, socket.MSG_WAITALL))
        else:
            if self.importing is not None and self.importing[0] == number:
                self.end_import(number, "")
            for pid in [pid for pid, worker in self.workers.items() if worker == number]:
                process_tree.kill(pid)
        return True

    def fork(self, what: int, number: int, slot: int, text: bytes, fds: list[int]) -> int:
        """Fork a process from the template, or from this process if there is none, and return its pid."""
        output = self.collector.open(number, slot)
        ends = [output.out, output.err, output.page, *fds]
        pid = None if self.template is None else self.template.fork(what, slot, text, ends)
        if pid is None:
            self.use_template(None)
            try:
                pid = os.fork()
            except OSError:
                self.collector.forked()
                raise
        if pid == 0:
            self.become(what, slot, text, ends)
        self.collector.forked()
        for fd in fds:
            os.close(fd)
        return pid

    def become(self, what: int, slot: int, text: bytes, ends: list[int]) -> NoReturn:
        """Be the process that was forked: a worker, or a template, and then a worker that is forked from it."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.link.close()
            self.collector.close_inherited()
            for each in self.templates():
                each.link.close()
            while what == IMPORT:
                out, err, page, link = ends
                os.close(page)
                what, slot, text, ends = fork_template.serve(text, out, err, socket.socket(fileno=link))
            output_capture.take_over(OutputPipes(*ends[:3]), slot, self.setting.levels)
            link, page, *pipes = ends[3:]
            stack_dump.write_to(page)
            WorkerProcess(socket.socket(fileno=link), self.setting, self.hooks, *pipes, alone=slot >= 0).run()
        except (BrokenPipeError, ConnectionResetError):  # the actor process is gone
            exit_now(1)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            exit_now(1)
        exit_now(0)

    def begin_import(self, number: int, names: bytes) -> None:
        """Have a process import modules that may become the template."""
        process_tree.adopt_orphans()
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return self.report(IMPORTED, number, "")
        try:
            pid = self.fork(IMPORT, number, -1, names, [theirs.fileno()])
        except OSError:
            ours.close()
            theirs.close()
            return self.report(IMPORTED, number, "")
        theirs.detach()
        self.importing = number, Template(ours, pid)
        self.selector.register(ours, selectors.EVENT_READ)
        return None

    def end_import(self, number: int, times: str) -> None:
        """Use the process as the template if it has imported; tell the executor how long that took."""
        assert self.importing is not None
        (_, candidate), self.importing = self.importing, None
        self.selector.unregister(candidate.link)
        if times:
            self.use_template(candidate)
        else:
            candidate.kill()
        self.report(IMPORTED, number, times)

    def use_template(self, new: Template | None) -> None:
        """Fork from this template from now on; None to fork from this process."""
        if self.template is not None and new is not None:
            self.template.dismiss()
        elif self.template is not None:
            self.template.kill()
        self.template = new

    def templates(self) -> list[Template]:
        """Return the template, and what may become one."""
        found = [] if self.template is None else [self.template]
        return found if self.importing is None else [*found, self.importing[1]]

    def reap(self) -> None:
        while self.workers:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            before, self.starvations = self.starvations, process_tree.starvations()
            for each in self.templates():
                if each.pid == pid:
                    each.pid = None
            number = self.workers.pop(pid, None)
            if number is not None:
                self.collector.finish(number)
                self.report(ENDED, number, process_tree.ending(status, used.ru_maxrss, self.starvations > before))

    def report(self, what: int, number: int, text: str) -> None:
        """Tell the executor what became of a worker, or of an import."""
        data = text.encode()[:4000]
        with contextlib.suppress(OSError):
            self.link.sendall(RECORD.pack(what, number, len(data)) + data)
