"""What the executor orders of the zygote, sends to workers and tells slots, with a test at the other ends."""

import asyncio
import marshal
import os
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from skyward.providers import local
from skyward.providers.ssh import scripts
from skyward.remote.blobs import Ref
from skyward.remote.node import executor, parent_process, zygote
from skyward.remote.node.executor import SHARED_WORKER, Executor
from skyward.remote.node.slot_state import Finished, SlotEvent, WorkerExited, WorkerStarted
from skyward.remote.node.worker import FRAME_HEADER
from skyward.remote.protocol import Batch, Opening, Outcome
from tests.kit import SOON

FUNCTIONS = {"f": b"code of f", "g": b"code of g"}


class Worker:
    """The other end of a worker's connection and of its pipes."""

    def __init__(self, number: int, slot: int, fds: list[int]) -> None:
        self.number, self.slot, self.fds = number, slot, fds
        self.link = socket.socket(fileno=fds.pop(0))
        self.link.setblocking(False)

    async def heard(self) -> tuple[Any, ...]:
        """Return the next message."""
        loop = asyncio.get_running_loop()
        data, wanted = b"", FRAME_HEADER.size
        while len(data) < wanted:
            data += await loop.sock_recv(self.link, wanted - len(data))
            if len(data) == FRAME_HEADER.size:
                wanted += FRAME_HEADER.unpack(data)[0]
        message: tuple[Any, ...] = marshal.loads(data[FRAME_HEADER.size :])
        return message

    def say(self, *message: Any) -> None:
        self.link.send(framed(*message))

    def leave(self, *message: Any) -> None:
        """Leave a message in the last pipe."""
        os.write(self.fds[-1], framed(*message))

    def close(self) -> None:
        self.link.close()
        for fd in self.fds:
            os.close(fd)


class Node:
    """An executor, what it told whom, and the zygote's end of its link."""

    def __init__(self, *, threads: bool = False) -> None:
        ours, self.zygote = socket.socketpair()
        self.told: asyncio.Queue[tuple[int, SlotEvent]] = asyncio.Queue()
        self.kept: list[tuple[Outcome, Opening | None]] = []
        self.lost = asyncio.Event()
        self.executor = Executor(
            ours,
            threads=threads,
            preload=False,
            functions=FUNCTIONS,
            places=lambda batch: {name: Ref("/path", "tag", 5) for name in batch.blobs},
            keep=lambda outcome, result, opening: self.kept.append((outcome, opening)),
            lost=self.lost.set,
        )
        self.workers: list[Worker] = []

    def ordered(self) -> tuple[int, int, int, list[int]]:
        """Return the next order: what, which worker, a value, and file descriptors."""
        data, fds, _, _ = socket.recv_fds(self.zygote, zygote.RECORD.size, 4)
        what, number, value = zygote.RECORD.unpack(data)
        return what, number, value, fds

    def start(self, slot: int) -> None:
        self.executor.start(slot, lambda event: self.told.put_nowait((slot, event)))

    async def fork(self, slot: int) -> Worker:
        """Have a worker start, as the zygote forks it."""
        self.start(slot)
        what, number, value, fds = self.ordered()
        assert what == zygote.FORK
        worker = Worker(number, value, fds)
        self.workers.append(worker)
        assert await worker.heard() == ("start", slot)
        worker.say("up", slot, os.getpid(), 1)
        assert await self.told.get() == (slot, WorkerStarted())
        return worker

    def bury(self, worker: Worker, cause: str) -> None:
        """Have a worker end, as the zygote says it."""
        worker.link.close()
        self.zygote.send(zygote.RECORD.pack(zygote.ENDED, worker.number, len(cause)) + cause.encode())


def framed(*message: Any) -> bytes:
    data = marshal.dumps(message)
    return FRAME_HEADER.pack(len(data)) + data


def run(check: Callable[[Node], Awaitable[None]], *, threads: bool = False) -> None:
    async def main() -> None:
        node = Node(threads=threads)
        try:
            async with asyncio.timeout(SOON):
                await check(node)
        finally:
            asyncio.get_running_loop().remove_reader(node.executor._link)
            node.zygote.close()
            for worker in node.workers:
                worker.close()

    asyncio.run(main())


def done(batch: int, slot: int = 0, *, last: bool = True, opening: object = None) -> tuple[Any, ...]:
    return "done", slot, batch, "returned", b"value", 0.5, opening, last


def test_each_slot_has_a_worker_of_its_own_with_its_pipes() -> None:
    async def check(node: Node) -> None:
        first, second = await node.fork(0), await node.fork(1)
        assert (first.slot, second.slot) == (0, 1)
        assert first.number != second.number
        assert len(first.fds) == 3

    run(check)


def test_slots_that_are_threads_share_a_worker() -> None:
    async def check(node: Node) -> None:
        worker = await node.fork(0)
        assert (worker.slot, len(worker.fds)) == (SHARED_WORKER, 1)
        node.start(1)
        assert await worker.heard() == ("start", 1)
        node.executor.stop(1)
        assert await worker.heard() == ("stop", 1)
        worker.say("stopped", 1)
        assert await node.told.get() == (1, WorkerExited("stopped"))

    run(check, threads=True)


def test_a_call_goes_to_the_worker_with_the_functions_that_it_has_not_seen() -> None:
    async def check(node: Node) -> None:
        worker = await node.fork(0)
        batch = Batch(1, b"call", ("f", "imports:x", "missing"), buffers=("b",), blobs=("large",))
        node.executor.send(0, [batch])
        call = (1, b"call", ("f", "missing"), ("b",), {"large": ("/path", "tag", 5)})
        assert await worker.heard() == ("run", 0, {"f": b"code of f"}, False, [call])
        node.executor.send(0, [Batch(2, b"call", ("f", "g"))])
        *_, functions, _, _ = await worker.heard()
        assert functions == {"g": b"code of g"}
        assert 0 in node.executor.given

    run(check)


def test_an_outcome_is_kept_before_its_slot_is_told() -> None:
    async def check(node: Node) -> None:
        worker = await node.fork(0)
        worker.say(*done(1, opening=(0.2, {"numpy": 0.1})))
        assert await node.told.get() == (0, Finished((1,), seconds=0.5))
        assert node.kept == [(Outcome(1, "returned", b"value", 0.5, 0), Opening(0.2, {"numpy": 0.1}))]

    run(check)


def test_a_slot_is_told_of_several_outcomes_together() -> None:
    async def check(node: Node) -> None:
        worker = await node.fork(0)
        worker.leave(*done(1, last=False))
        worker.leave(*done(2, last=False))
        worker.say(*done(3))
        assert await node.told.get() == (0, Finished((1, 2, 3), seconds=1.5))
        worker.leave(*done(4, last=False))
        worker.say("nothing more", 0)
        assert await node.told.get() == (0, Finished((4,), seconds=0.5))

    run(check)


def test_what_a_worker_has_not_begun_is_taken_back_and_what_it_has_ended_is_told() -> None:
    async def check(node: Node) -> None:
        worker = await node.fork(0)
        node.executor.send(0, [Batch(number, b"call") for number in (1, 2, 3, 4)])
        os.read(worker.fds[1], 2)
        worker.leave(*done(1, last=False))
        assert node.executor.take_back(0) == 2
        assert node.told.get_nowait() == (0, Finished((1,), last=False, seconds=0.5))
        assert node.executor.take_back(0) == 0

    run(check)


def test_a_worker_that_is_stopped_is_killed_and_its_slot_is_told_what_had_not_begun() -> None:
    async def check(node: Node) -> None:
        worker = await node.fork(0)
        node.executor.send(0, [Batch(1, b"call"), Batch(2, b"call")])
        os.read(worker.fds[1], 1)
        node.executor.stop(0)
        assert node.ordered()[:2] == (zygote.KILL, worker.number)
        node.bury(worker, "a signal")
        assert await node.told.get() == (0, WorkerExited("a signal", 1))

    run(check)


def test_a_worker_that_a_plugin_makes_useless_says_why() -> None:
    async def check(node: Node) -> None:
        worker = await node.fork(0)
        worker.say("useless", 0, "Plugin.worker raised ValueError: no")
        node.bury(worker, "exit code 1")
        assert await node.told.get() == (0, WorkerExited("Plugin.worker raised ValueError: no"))

    run(check)


def test_closing_lets_the_workers_leave_and_starts_no_others() -> None:
    async def check(node: Node) -> None:
        worker = await node.fork(0)
        closing = asyncio.create_task(node.executor.close(busy=()))
        assert await asyncio.get_running_loop().sock_recv(worker.link, 1) == b""
        node.bury(worker, "exit code 0")
        await closing
        assert await node.told.get() == (0, WorkerExited("exit code 0"))
        node.start(0)
        node.zygote.setblocking(False)
        with pytest.raises(BlockingIOError):
            node.ordered()

    run(check)


@pytest.mark.parametrize("threads", [False, True])
def test_closing_waits_for_an_idle_worker_and_hardly_for_a_busy_one(
    monkeypatch: pytest.MonkeyPatch, threads: bool
) -> None:
    monkeypatch.setattr(executor, "WORKER_EXIT_TIMEOUT_S", 0.0)
    monkeypatch.setattr(executor, "IDLE_WORKER_EXIT_TIMEOUT_S", SOON)

    async def check(node: Node) -> None:
        await node.fork(0)
        await node.executor.close(busy={0})
        closing = asyncio.create_task(node.executor.close(busy={1}))
        assert await asyncio.wait({closing}, timeout=0.05) == (set(), {closing})
        node.bury(node.workers[0], "exit code 0")
        await closing

    run(check, threads=threads)


def test_closing_gives_up_a_worker_that_stays_or_is_not_up_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "WORKER_EXIT_TIMEOUT_S", 0.0)

    async def check(node: Node) -> None:
        node.start(0)
        node.workers.append(Worker(*node.ordered()[1:]))
        await node.executor.close(busy=())
        monkeypatch.setattr(executor, "IDLE_WORKER_EXIT_TIMEOUT_S", 0.0)
        node.executor._closing = False
        await node.fork(1)
        await node.executor.close(busy=())

    run(check)


def test_each_limit_on_the_end_of_a_node_is_longer_than_those_within_it() -> None:
    turns = re.search(r'"\$turns" -lt (\d+) \] && lives "\$parent"', scripts.finish("node"))
    assert turns is not None
    within_an_ssh_machine = int(turns[1]) * 0.05
    own = executor.WORKER_EXIT_TIMEOUT_S + executor.IDLE_WORKER_EXIT_TIMEOUT_S
    assert own + 1 < parent_process.EXIT_TIMEOUT_S
    assert min(local.TERMINATE_TIMEOUT_S, within_an_ssh_machine) > parent_process.EXIT_TIMEOUT_S + 1


def test_the_end_of_the_zygote_is_noticed() -> None:
    async def check(node: Node) -> None:
        await node.fork(0)
        node.zygote.shutdown(socket.SHUT_RDWR)
        await node.lost.wait()

    run(check)


def test_a_slot_that_fails_ends_the_node(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(_: SlotEvent) -> None:
        raise ZeroDivisionError

    async def check(node: Node) -> None:
        ended = asyncio.Event()
        monkeypatch.setattr(os, "_exit", lambda code: ended.set())
        worker = await node.fork(0)
        node.executor._callbacks[0] = fail
        worker.say(*done(1))
        await ended.wait()

    run(check)
    assert "an actor of the node failed: ZeroDivisionError" in capfd.readouterr().err
