"""The host's connection to a worker process, and the messages that come over it."""

import asyncio
import contextlib
import marshal
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from skyward.remote.node.worker import HEAD
from skyward.remote.protocol import Outcome


@dataclass(slots=True)
class WorkerLink:
    """One worker process: its socket, the slots that count on it, the functions it was sent, what it died of.

    `tokens` is the pipe that holds a byte for each batch it was given and has not begun; either end takes one to begin
    it, or to keep it from being begun. `tray` is the end of a pipe where it leaves outcomes while others are to follow
    at once; there they outlast it. It writes its stacks to `page` when it gets a signal; its slots' threads have these
    `idents`. `ended` are outcomes by slot of which the slot was not yet told. It is `used` once it was given a batch,
    `started` is set once it has started or ended, and `gone` once it has ended.
    """

    number: int
    slots: set[int] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)
    useless: str = ""
    transport: asyncio.Transport | None = None
    tokens: tuple[int, int] | None = None
    tray: int | None = None
    page: int | None = None
    pid: int | None = None
    idents: dict[int, int] = field(default_factory=dict)
    ended: dict[int, list[Outcome]] = field(default_factory=dict)
    used: bool = False
    started: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: list[bytes] = field(default_factory=list)
    silent: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, *message: Any) -> None:
        data = marshal.dumps(message)
        data = HEAD.pack(len(data)) + data
        if self.transport is None:
            self.waiting.append(data)
        elif not self.transport.is_closing():  # else it has just died, which its slots are about to hear
            self.transport.write(data)

    def take_back(self) -> int:
        """Take every token that is left, and return how many that were."""
        if self.tokens is None:
            return 0
        try:
            return len(os.read(self.tokens[0], 4096))
        except BlockingIOError:
            return 0

    def left(self) -> bytes:
        """Take what lies in the tray."""
        found = b""
        with contextlib.suppress(BlockingIOError):
            while self.tray is not None and (more := os.read(self.tray, 1 << 16)):
                found += more
        return found

    def close(self) -> None:
        """Let go of the pipes and the page."""
        for end in (*(self.tokens or ()), self.tray, self.page):
            if end is not None:
                os.close(end)
        self.tokens = self.tray = self.page = self.pid = None


class Frames(asyncio.Protocol):
    """Hears what a worker says, and keeps the part of a message that has not come whole."""

    def __init__(self, worker: WorkerLink, hear: Callable[[WorkerLink, bytes], int]) -> None:
        self._worker, self._hear = worker, hear
        self._part = b""

    def data_received(self, data: bytes) -> None:
        data = self._part + data
        self._part = data[self._hear(self._worker, data) :]

    def connection_lost(self, exc: Exception | None) -> None:
        self._worker.silent.set()


def messages(data: bytes) -> Iterator[memoryview]:
    """Cut what a worker wrote into messages, as far as they are whole."""
    at, head, view = 0, HEAD.size, memoryview(data)
    while len(data) - at >= head:
        end = at + head + HEAD.unpack_from(data, at)[0]
        if end > len(data):
            return
        yield view[at + head : end]
        at = end
