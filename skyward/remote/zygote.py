"""The parent of the slots' worker processes.

A zygote is forked from the node before the node imports casty, so nothing here ever holds a socket of the cluster. It
imports what the tasks will need, once, and then forks workers, which share that memory. It ends when the host (the
process with the foreman) does, and takes its workers with it.

Host and zygote exchange records of nine bytes: what, which worker (a number the host chose), and a value.
"""

import contextlib
import gc
import importlib
import os
import selectors
import signal
import socket
import struct
import sys
from typing import NoReturn

from skyward.remote import kin, looking, modules, pen, wire
from skyward.remote.scribe import Scribe
from skyward.remote.worker import Hooks, Setting, Worker, exit_now

RECORD = struct.Struct("<Bii")
FORK, KILL, ENDED = range(3)


def serve(link: socket.socket, setting: Setting) -> NoReturn:
    """Import what the tasks need, then fork and bury workers until the host is gone. Never returns."""
    problem = ""
    hooks: tuple[Hooks, ...] = ()
    try:
        modules.install(setting.folder, setting.modules)
        for module in setting.preload:
            importlib.import_module(module)
        hooks = wire.load_hooks(setting.hooks)
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}"
    pen.flush_lines()
    gc.collect()
    gc.freeze()  # what is shared stays shared: the collector does not touch it any more
    try:
        _Zygote(link, setting, hooks, problem).run()
    finally:
        os._exit(0)


class _Zygote:
    def __init__(self, link: socket.socket, setting: Setting, hooks: tuple[Hooks, ...], problem: str) -> None:
        self.link, self.setting, self.hooks, self.problem = link, setting, hooks, problem
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
            data, fds, _, _ = socket.recv_fds(self.link, RECORD.size, 4)
        except ConnectionError:
            return False
        if len(data) < RECORD.size:
            return False
        what, number, value = RECORD.unpack(data)
        if what == FORK and self.problem:
            for fd in fds:
                os.close(fd)
            text = self.problem.encode()[:4000]
            self.link.sendall(RECORD.pack(ENDED, number, len(text)) + text)
        elif what == FORK:
            self.fork(number, value, fds)
        else:
            for pid in [pid for pid, worker in self.workers.items() if worker == number]:
                kin.kill(pid)
        return True

    def fork(self, number: int, slot: int, fds: list[int]) -> None:
        pens = self.scribe.open(number, slot)
        pid = os.fork()
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
                text = kin.ending(status, used.ru_maxrss, self.starvations > before).encode()
                with contextlib.suppress(OSError):
                    self.link.sendall(RECORD.pack(ENDED, number, len(text)) + text)
