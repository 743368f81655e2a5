"""The parent of the slots' worker processes.

A zygote is forked from the node before the node imports casty, so nothing here ever holds a socket of the cluster. It
imports what the tasks will need, once, and then forks workers, which share that memory. It ends when the host (the
process with the foreman) does, and takes its workers with it.

Host and zygote exchange records of nine bytes: what, which worker (a number the host chose), and a value.
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
from skyward.remote import failure, kin, looking, modules, pen, wire
from skyward.remote.scribe import Scribe
from skyward.remote.worker import Hooks, Setting, Worker, exit_now

RECORD = struct.Struct("<Bii")
FORK, KILL, ENDED = range(3)


def serve(link: socket.socket, setting: Setting, importing: mmap.mmap) -> NoReturn:
    """Import what the tasks need, then fork and bury workers until the host is gone. Never returns.

    Parameters
    ----------
    link
        The socket to the host.
    setting
        What to import, and what the workers are told.
    importing
        Shared memory that holds the name of the module being imported, for whoever has to say what a crash came from.
    """
    hooks: tuple[Hooks, ...] = ()
    what = "its modules cannot be installed"
    try:
        modules.install(setting.folder, setting.modules)
        for module in setting.preload:
            what = f"cannot import {module!r} (preload)"
            importing[:] = module.encode()[: len(importing)].ljust(len(importing), b"\0")
            importlib.import_module(module)
        importing[:] = bytes(len(importing))
        what = "its plugins cannot be loaded"
        hooks = wire.load_hooks(setting.hooks)
    except BaseException as error:
        pen.flush_lines()
        failure.report_exception(what, error, final=True)
        os._exit(1)
    pen.flush_lines()
    gc.collect()
    gc.freeze()  # what is shared stays shared: the collector does not touch it any more
    try:
        _Zygote(link, setting, hooks).run()
    except BaseException as error:
        failure.report_exception("the parent of its workers failed", error)
        os._exit(1)
    os._exit(0)


class _Zygote:
    def __init__(self, link: socket.socket, setting: Setting, hooks: tuple[Hooks, ...]) -> None:
        self.link, self.setting, self.hooks = link, setting, hooks
        self.workers: dict[int, int] = {}  # pid -> number
        self.starvations = kin.starvations()

    def run(self) -> None:
        wake, woken = socket.socketpair()
        wake.setblocking(False)
        woken.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.link, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            self.scribe = Scribe(selector)
            while True:
                for key, _ in selector.select(self.scribe.patience()):
                    if self.scribe.hear(key.data):
                        continue
                    if key.fileobj is woken:
                        with contextlib.suppress(BlockingIOError):
                            woken.recv(4096)
                        self.bury()
                    elif not self.obey():
                        for pid in self.workers:
                            kin.kill(pid)
                        self.scribe.close()
                        return
                self.scribe.tend()

    def obey(self) -> bool:
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
                self.fork(number, value, fds)
            except OSError as error:
                for fd in fds:
                    os.close(fd)
                self.say_ended(number, f"cannot fork a worker process: {explain(error)}")
        else:
            for pid in [pid for pid, worker in self.workers.items() if worker == number]:
                kin.kill(pid)
        return True

    def fork(self, number: int, slot: int, fds: list[int]) -> None:
        pens = self.scribe.open(number, slot)
        try:
            pid = os.fork()
        except OSError:
            self.scribe.forked()
            raise
        if pid:
            self.scribe.forked()
            for fd in fds:
                os.close(fd)
            self.workers[pid] = number
            return
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.link.close()
            self.scribe.forget()
            pen.take_over(pens, slot, self.setting.levels)
            link, page, *pipes = fds
            looking.write_to(page)
            Worker(socket.socket(fileno=link), self.setting, self.hooks, *pipes, alone=slot >= 0).run()
        except (BrokenPipeError, ConnectionResetError):  # the host is gone
            exit_now(1)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            exit_now(1)
        exit_now(0)

    def bury(self) -> None:
        while self.workers:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            before, self.starvations = self.starvations, kin.starvations()
            number = self.workers.pop(pid, None)
            if number is not None:
                self.scribe.finish(number)
                self.say_ended(number, kin.ending(status, used.ru_maxrss, self.starvations > before))

    def say_ended(self, number: int, cause: str) -> None:
        """Tell the host that a worker is gone, or was never there."""
        text = cause.encode()[:4000]
        with contextlib.suppress(OSError):
            self.link.sendall(RECORD.pack(ENDED, number, len(text)) + text)
