"""A process that has imported modules for the workers that are forked from it.

The zygote imports nothing by itself that calls turn out to need: an import may fail, hang, or end its process. A child
imports the modules of one package instead. If it can still be forked from afterwards, it is the zygote's template:
workers are forked from it, and so is the child that imports the next package.

A template's child forks the process that was asked for, and exits. So that process becomes a child of the zygote, which
is the one that hears how it ends.
"""

import contextlib
import gc
import importlib
import importlib.util
import os
import socket
import struct
import sys
import threading
import time
import types
import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from skyward.remote.module_bundles import INSTALL_FOLDERS
from skyward.remote.node import process_tree

JOB = struct.Struct("<Bi")
"""What a process is forked for, and for which slot; text may follow."""

PID = struct.Struct("<i")

FORK_TIMEOUT_S = 10.0
"""Seconds within which a template says which process it has forked."""

JOB_SIZE = 1 << 16
"""The most bytes of a job."""

TIMES_SIZE = 4000
"""The most bytes of what is told of imports."""

MAX_NAMED_IMPORTS = 20
"""Modules whose imports are told one by one, those that took longest."""

MAX_FDS = 16
"""The most file descriptors that come with a job."""

type Job = tuple[int, int, bytes, list[int]]
"""What to do, for which slot, with which text and file descriptors."""


class Template:
    """The zygote's connection to a template, or to a process that may become one."""

    def __init__(self, link: socket.socket, pid: int) -> None:
        self.link = link
        self.pid: int | None = pid  # None once it was seen to have ended
        link.settimeout(FORK_TIMEOUT_S)

    def fork(self, what: int, slot: int, text: bytes, fds: list[int]) -> int | None:
        """Return the process that was forked for a job; None if there is none, and never will be."""
        try:
            socket.send_fds(self.link, [JOB.pack(what, slot) + text], fds)
            answer = self.link.recv(PID.size)
        except OSError:
            return None
        pid: int = PID.unpack(answer)[0] if len(answer) == PID.size else -1
        return pid if pid > 0 else None

    def times(self) -> str:
        """Return how long the imports took, as `times_in` reads; empty if the process cannot be forked from."""
        with contextlib.suppress(OSError):
            return self.link.recv(TIMES_SIZE).decode()
        return ""

    def dismiss(self) -> None:
        """Let the process end. What it has just forked may still be a child of its child, and lives on."""
        self.link.close()

    def kill(self) -> None:
        """End the process, unless it was seen to have ended."""
        if self.pid is not None:
            process_tree.kill(self.pid)
        self.link.close()


def serve(names: bytes, out: int, err: int, link: socket.socket) -> Job:
    """Import these modules, tell how long each took, and fork for each job. Returns in the process of a job only.

    What an import prints goes to the file descriptors `out` and `err`.
    """
    for end, descriptor in ((out, 1), (err, 2)):
        os.dup2(end, descriptor)
        os.close(end)
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        took = _import(names.decode().split())
    except BaseException:  # the task that needs the module will raise the same
        os._exit(1)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        sys.stderr.flush()
    if not _can_fork():
        os._exit(1)
    gc.collect()
    gc.freeze()
    link.send(_told(took).encode())
    while True:
        data, fds, flags, _ = socket.recv_fds(link, JOB_SIZE, MAX_FDS)
        if not data:  # the zygote is gone, or has another template
            os._exit(0)
        if flags & socket.MSG_CTRUNC:  # this process may not open so many files
            link.send(PID.pack(-1))
        elif not _fork(link):
            link.close()
            for fd in fds:
                os.set_inheritable(fd, False)
            what, slot = JOB.unpack_from(data)
            return what, slot, data[JOB.size :], fds
        for fd in fds:
            os.close(fd)


def _import(names: list[str]) -> dict[str, float]:
    """Import the modules of a package and return how long each took with what it imports itself.

    It has to be an installed package: the user's own may change.
    """
    spec = importlib.util.find_spec(names[0].partition(".")[0])
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    if not any(INSTALL_FOLDERS.intersection(Path(place).parts) for place in places):
        raise ModuleNotFoundError(names[0])
    gc.disable()
    times = [time.perf_counter()]
    for name in names:
        importlib.import_module(name)
        times.append(time.perf_counter())
    gc.enable()
    return {name: end - begin for name, (begin, end) in zip(names, pairwise(times), strict=True)}


def _told(took: Mapping[str, float]) -> str:
    """Return what took longest in a few lines, and the rest together, without a name."""
    longest = [name for name in sorted(took, key=lambda name: -took[name])[:MAX_NAMED_IMPORTS] if len(name) <= 100]
    rest = sum(seconds for name, seconds in took.items() if name not in longest)
    return "\n".join(
        f"{seconds:.6f} {name}" for name, seconds in (("", rest), *((each, took[each]) for each in longest))
    )


def times_in(told: str) -> dict[str, float]:
    """Return the seconds that each module took to import, and of the others together, under no name."""
    return {name: float(seconds) for seconds, _, name in (line.partition(" ") for line in told.splitlines())}


def _can_fork() -> bool:
    """Whether the import has left no thread behind, which a forked process would lack.

    Some libraries (OpenBLAS) end their threads before each fork, and start them again when they need them.
    """
    if threading.active_count() > 1:
        return False
    if _threads() == 1:
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    deadline = time.monotonic() + 0.5
    while _threads() > 1:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _fork(link: socket.socket) -> bool:
    """Fork a process that is no child of this one, and tell which; false in that process."""
    try:
        child = os.fork()
    except OSError:
        link.send(PID.pack(-1))
        return True
    if child:
        os.waitpid(child, 0)
        return True
    try:
        pid = os.fork()
    except OSError:
        pid = -1
    if pid:
        link.send(PID.pack(pid))
        os._exit(0)
    return False
