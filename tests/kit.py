"""What several tests share: looking for what a pool left behind, killing parts of it, hearing when a call runs."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from typing import Self

import psutil
from pydantic import PrivateAttr

import skyward as sky
from skyward.providers.local import LocalHost
from skyward.providers.provider import Instance, Order, Quote
from tests import work

SOON = 60.0
"""Seconds in which anything that a test waits for has happened, or never will."""

HOUR = 3600.0


class Dear(sky.Local):
    """Machines of this computer for a dollar a second each."""

    _launching: asyncio.Lock = PrivateAttr(default_factory=asyncio.Lock)

    async def launch(self, order: Order) -> Instance:
        assert order.purse is not None
        async with self._launching:  # what one costs counts before the next one is checked
            order.purse.check(Quote("this computer", "here", 1, HOUR))
            machine = replace(await super().launch(order), hourly=HOUR)
            order.purse.begin(machine.id, HOUR)
        return machine


class Apart(sky.Local):
    """Local nodes that are talked to as if each were on a machine of its own: no memory is shared with them."""

    async def reach(self, instance: Instance) -> LocalHost:
        host = await super().reach(instance)
        host.shares_memory = False
        return host


def pids(node: sky.Node) -> tuple[int, int]:
    """The pids of a local node's parent process and of its zygote, which leads the group of all its other processes."""
    parent, group = (Path(node.instance) / "pids").read_text().split()
    return int(parent), int(group)


def host(node: sky.Node) -> int:
    """The pid of a local node's host, which holds the foreman."""
    parent, zygote = pids(node)
    return next(child.pid for child in psutil.Process(parent).children() if child.pid != zygote)


def tree(folder: Path) -> list[psutil.Process]:
    """Every process of the local nodes whose scratch folders are in `folder`."""
    parents = [each for each in psutil.process_iter() if _is_parent(each, folder)]
    return parents + [child for parent in parents for child in parent.children(recursive=True)]


def _is_parent(process: psutil.Process, folder: Path) -> bool:
    try:
        command, parent = process.cmdline(), process.parent()
        child_of_a_node = parent is not None and "skyward.remote.node" in parent.cmdline()
    except psutil.Error:
        return False
    return "skyward.remote.node" in command and command[-1].startswith(f"{folder}/") and not child_of_a_node


def assert_nothing_left(folder: Path, processes: list[psutil.Process]) -> None:
    """No process of these lives, none of the folder's nodes does, and the folder is empty."""
    _, alive = psutil.wait_procs([*processes, *tree(folder)], timeout=SOON)
    assert not alive
    assert not list(folder.iterdir())


def kill(pid: int) -> None:
    """End a process as a power cut would."""
    os.kill(pid, signal.SIGKILL)


def interrupted(running: subprocess.Popen[str], after: str) -> str:
    """Send a program Ctrl-C after its first line, and return what it writes to its standard error until it ends."""
    assert running.stdout is not None
    assert running.stdout.readline() == after
    running.send_signal(signal.SIGINT)
    try:
        return running.communicate(timeout=SOON)[1]
    finally:
        running.kill()


class Bell:
    """Where the calls of `work.ring` report that they run, so that no test sleeps until they do."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._server = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._server.settimeout(SOON)
        self.port: int = self._server.getsockname()[1]

    def answer(self) -> "Line":
        """Wait for the next one."""
        line = self._stack.enter_context(self._server.accept()[0])
        line.settimeout(SOON)
        return Line(line)

    def is_silent(self) -> bool:
        """Whether nobody has rung since."""
        self._server.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            self._server.accept()[0].close()
            return False
        self._server.settimeout(SOON)
        return True

    def is_heard_from_all_slots(self, compute: sky.Compute) -> bool:
        """Whether as many calls as the pool has slots can run at once, each in a process of its own."""
        waiting = [compute.submit(work.ring, self.port) for _ in range(compute.slots)]
        lines = [self.answer() for _ in waiting]
        for line in lines:
            line.release()
        done, _ = futures.wait(waiting, SOON)
        return len(done) == len({line.pid for line in lines}) == compute.slots

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


class Line:
    """The line to a call of `work.ring` that runs in the process `pid`."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self.pid = int(line.recv(100))

    def release(self, text: bytes = b"on") -> None:
        """Let the call return `text`."""
        self._line.sendall(text)
        self._line.close()

    def hears_the_end(self) -> bool:
        """Wait for the process to die."""
        with contextlib.suppress(ConnectionResetError):
            return self._line.recv(1) == b""
        return True


def repeated(threads: int, seconds: float, work: Callable[[int], Generator[str]]) -> tuple[list[str], list[int]]:
    """Have threads go on with `work` of their number for a while; it yields, step by step, what was wrong or nothing.

    Return what was wrong, and how many steps each thread made.
    """
    wrong, steps = list[str](), [0] * threads
    deadline = time.monotonic() + seconds

    def run(thread: int) -> None:
        try:
            with contextlib.closing(work(thread)) as found:
                while time.monotonic() < deadline and not wrong:
                    if said := next(found):
                        wrong.append(said)
                    steps[thread] += 1
        except BaseException as error:  # noqa: BLE001 - the test says it
            wrong.append(repr(error))

    with futures.ThreadPoolExecutor(threads) as executor:
        list(executor.map(run, range(threads)))
    return wrong, steps


def until(true: Callable[[], object], seconds: float = SOON) -> None:
    """Look until it is true; for what happens in another process and tells nobody."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
