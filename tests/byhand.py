"""A node started by hand, and a caller that says to it what a driver would, one message at a time."""

import asyncio
import contextlib
import itertools
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import uvloop
from casty import TLS, Askable, Client, Runtime

from skyward.actors.tls import Authority, Identity
from skyward.calls.completion import Answer
from skyward.remote.blobs import Blob
from skyward.remote.node import gateway
from skyward.remote.node_config import CONFIG_FILE, NodeConfig
from skyward.remote.node_messages import NodeMessage, NodeStarted, decode
from skyward.remote.protocol import COMPRESSION, LIMITS, Assign, Assigned, Batch, Beat, Collect, Collected, Outcome
from skyward.remote.serialization import call_codec
from skyward.remote.serialization.packer import Packer

SOON = 60.0
"""Seconds in which anything that a test waits for has happened, or never will."""

POOL = Authority.create("by hand")


@dataclass
class Node:
    """A node that runs: `numbers` of commands and batches, and `after`, the last outcome acknowledged."""

    folder: Path
    process: subprocess.Popen[str]
    port: int
    slots: int
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    after: int = 0

    @property
    def zygote(self) -> int:
        """The pid of the process that the slots are forked from, and of the group of all but the parent process."""
        return int((self.folder / "pids").read_text().split()[1])

    @property
    def host(self) -> int:
        """The pid of the process with the actors."""
        return next(each.pid for each in psutil.Process(self.process.pid).children() if each.pid != self.zygote)

    def processes(self) -> list[psutil.Process]:
        """All processes of the node."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def says(self) -> NodeMessage | None:
        """Wait for the next message on its standard output."""
        assert self.process.stdout is not None
        return decode(self.process.stdout.readline())[1]


def files(name: str, **given: Any) -> dict[str, bytes]:
    """What a supervisor writes into the folder of the node of this name."""
    usual = NodeConfig(name, 0, 1, 1, "process", lease=300.0, first_contact=300.0, stdin=True)
    identity = POOL.issue(name, server=True)
    pems = {"cert.pem": identity.cert, "key.pem": identity.key, "ca.pem": identity.ca}
    return {CONFIG_FILE: replace(usual, **given).encode(), **pems}


@contextlib.contextmanager
def node(folder: Path, *, also: Mapping[str, bytes] | None = None, **given: Any) -> Iterator[Node]:
    """Start a node in this folder, which is made; end it as a driver does, and see that it leaves nothing."""
    folder.mkdir(mode=0o700)
    for name, content in {**files(folder.name, **given), **(also or {})}.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    with subprocess.Popen(
        [sys.executable, "-m", "skyward.remote.node", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            _, said = decode(process.stdout.readline())
            assert isinstance(said, NodeStarted)
            started = Node(folder, process, said.port, said.slots)
            processes = started.processes()
            yield started
            if process.poll() is None:
                processes += started.processes()
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SOON)
            process.kill()
    assert ended(processes)


def ended(processes: list[psutil.Process]) -> bool:
    """Wait for all of these to end. Whether somebody has buried them does not matter."""
    deadline = time.monotonic() + SOON
    return all(_ended(process, deadline) for process in processes)


def _ended(process: psutil.Process, deadline: float) -> bool:
    try:
        end = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        ready, _, _ = select.select([end], [], [], max(0.0, deadline - time.monotonic()))
        return bool(ready) or not process.is_running()  # another one may have its pid now
    finally:
        os.close(end)


class Caller:
    """What a driver's link to a node is, without its patience: each message is sent once and has to be answered.

    Parameters
    ----------
    node
        The node to call.
    identity
        Who calls; by default the driver of the node's pool. None calls without any certificate.
    """

    def __init__(self, node: Node, folder: Path, identity: Identity | str | None = "driver") -> None:
        self._node, self._runner = node, asyncio.Runner(loop_factory=uvloop.new_event_loop)
        shown = POOL.issue("driver", server=False) if isinstance(identity, str) else identity
        files = None if shown is None else shown.write(folder)
        self._address = f"127.0.0.1:{node.port}"
        self._client = Client(
            seeds=(self._address,),
            name=node.folder.name,
            tls=None if files is None else TLS(cert=str(files.cert), key=str(files.key), ca=str(files.ca)),
            compression=COMPRESSION,
            limits=LIMITS,
            ask_timeout=timedelta(days=1),
            sync_every=timedelta(seconds=1),
            observer=lambda _: None,
            runtime=Runtime(threads=1),
        )

    def connect(self, within: float = SOON) -> Self:
        """Connect, or raise `TimeoutError`."""

        async def open() -> None:
            async with asyncio.timeout(within):
                await self._client.__aenter__()

        try:
            self._runner.run(open())
        except BaseException:
            self._runner.close()
            raise
        self._gateway = gateway.ref(self._client, self._address)
        return self

    def ask[R](self, message: Askable[R]) -> R:
        """Send a message, and return the answer."""

        async def asked() -> R:
            async with asyncio.timeout(SOON):
                return await self._gateway.ask(message)  # type: ignore[arg-type]

        return self._runner.run(asked())

    def ask_in_vain(self, message: Askable[Any]) -> bool:
        """Whether a message gets no answer before one that is sent after it does."""

        async def asked() -> bool:
            ask: Callable[..., Coroutine[Any, Any, Any]] = self._gateway.ask
            vain = asyncio.ensure_future(ask(message))
            await asyncio.sleep(0)  # it is sent now
            await ask(Beat())
            return not vain.done() and vain.cancel()

        return self._runner.run(asked())

    def ask_twice[R](self, message: Askable[R], then: Askable[Any]) -> list[R]:
        """Ask the same twice, then say something else, and return both answers."""

        async def asked() -> list[R]:
            ask: Callable[..., Coroutine[Any, Any, Any]] = self._gateway.ask
            twice: list[asyncio.Future[R]] = [asyncio.ensure_future(ask(message)) for _ in range(2)]
            await asyncio.sleep(0)  # they are sent now
            await ask(then)
            async with asyncio.timeout(SOON):
                return await asyncio.gather(*twice)

        return self._runner.run(asked())

    def batch(self, fn: Callable[..., object], *args: object, timeout: float | None = None) -> Batch:
        """Make a batch of the call `fn(*args)`."""
        packed = Packer(share=False).pack(fn, args, {})
        return Batch(next(self._node.numbers), packed.payload, timeout=timeout)

    def assign(
        self, *batches: Batch, functions: Mapping[str, bytes] | None = None, forget: tuple[str, ...] = ()
    ) -> Assign:
        """Assign these batches, and return the message that did."""
        message = Assign(next(self._node.numbers), batches, functions or {}, forget)
        assert self.ask(message) == Assigned()
        return message

    def collect(self, count: int) -> list[Outcome]:
        """Wait for so many outcomes, in the order they became ready, and acknowledge all but the last answer."""
        outcomes: list[Outcome] = []
        while len(outcomes) < count:
            news: Collected = self.ask(Collect(self._node.after, SOON))
            outcomes += news.outcomes
            self._node.after = news.number
        assert len(outcomes) == count
        return outcomes

    def run(self, *batches: Batch) -> list[Outcome]:
        """Assign these, and return their outcomes in the order of the batches."""
        self.assign(*batches)
        outcomes = {outcome.batch: outcome for outcome in self.collect(len(batches))}
        return [outcomes[batch.id] for batch in batches]

    def call(self, fn: Callable[..., object], *args: object) -> object:
        """Run `fn(*args)`, and return its value or raise what it raised."""
        return value_of(self.run(self.batch(fn, *args))[0])

    def close(self) -> None:
        """Let go of the connection."""
        self._runner.run(self._client.__aexit__(None, None, None))
        del self._gateway
        self._runner.close()

    def __enter__(self) -> Self:
        return self.connect()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def value_of(outcome: Outcome) -> object:
    """Open an outcome of user code."""
    match outcome.status:
        case "returned" | "raised" as status:
            result = None if outcome.large is None else Blob.adopt(outcome.large).view()
            value, error = call_codec.open_outcome(status, Answer(outcome, 0, result=result).parts())
        case _:
            raise AssertionError(f"{outcome.status}: {outcome.payload.decode()}")
    if error is not None:
        raise error
    return value
