"""The actor process's connection to a worker process, and the messages that come over it."""

import asyncio
import contextlib
import marshal
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from skyward.remote.node.worker import FRAME_HEADER
from skyward.remote.protocol import Outcome


@dataclass(slots=True)
class WorkerLink:
    """One worker process: its socket, the slots that use it, the functions it was sent, why it is useless.

    `tokens` is the pipe that holds a byte for each batch it was given and has not begun: the worker takes one to begin
    a batch, the executor to take one back. `outcome_pipe` is the end of a pipe where the worker leaves outcomes while
    others are to follow at once; there they outlast it. It writes its stacks to `stack_file` at a signal; its slots'
    threads have these `idents`. `ended` are outcomes by slot of which the slot was not yet told. The worker is `used`
    once it was given a batch. `started` is set once it has started or exited, `disconnected` once its connection is
    closed, and `gone` once it has exited.
    """

    number: int
    slots: set[int] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)
    useless: str = ""
    transport: asyncio.Transport | None = None
    tokens: tuple[int, int] | None = None
    outcome_pipe: int | None = None
    stack_file: int | None = None
    pid: int | None = None
    idents: dict[int, int] = field(default_factory=dict)
    ended: dict[int, list[Outcome]] = field(default_factory=dict)
    used: bool = False
    started: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: list[bytes] = field(default_factory=list)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, *message: Any) -> None:
        data = marshal.dumps(message)
        data = FRAME_HEADER.pack(len(data)) + data
        if self.transport is None:
            self.waiting.append(data)
        elif not self.transport.is_closing():  # else it has just died, which its slots are about to be told
            self.transport.write(data)

    def take_back(self) -> int:
        """Take every token that is left, and return how many that were."""
        if self.tokens is None:
            return 0
        try:
            return len(os.read(self.tokens[0], 4096))
        except BlockingIOError:
            return 0

    def read_outcomes(self) -> bytes:
        """Read what the worker left in the pipe of outcomes."""
        found = b""
        with contextlib.suppress(BlockingIOError):
            while self.outcome_pipe is not None and (more := os.read(self.outcome_pipe, 1 << 16)):
                found += more
        return found

    def close(self) -> None:
        """Close the pipes and the file of stacks."""
        for end in (*(self.tokens or ()), self.outcome_pipe, self.stack_file):
            if end is not None:
                os.close(end)
        self.tokens = self.outcome_pipe = self.stack_file = self.pid = None


class Frames(asyncio.Protocol):
    """Receives the messages of a worker, and keeps the part of one that is not complete."""

    def __init__(self, worker: WorkerLink, receive: Callable[[WorkerLink, bytes], int]) -> None:
        self._worker, self._receive = worker, receive
        self._part = b""

    def data_received(self, data: bytes) -> None:
        data = self._part + data
        self._part = data[self._receive(self._worker, data) :]

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.disconnected.set()


def messages(data: bytes) -> Iterator[memoryview]:
    """Split what a worker wrote into messages, as far as they are complete."""
    at, head, view = 0, FRAME_HEADER.size, memoryview(data)
    while len(data) - at >= head:
        end = at + head + FRAME_HEADER.unpack_from(data, at)[0]
        if end > len(data):
            return
        yield view[at + head : end]
        at = end
