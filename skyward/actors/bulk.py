"""The second line to a node: large buffers go in chunks, a few at a time, and nothing short waits for them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from casty import Askable

from skyward.actors.line import Line
from skyward.actors.stock import Stock
from skyward.errors import Unreachable
from skyward.remote.blobs import Blob
from skyward.remote.protocol import CHUNK, Drop, Fetch, Outcome, Store

AT_ONCE = 4
"""Chunks on their way at once."""

DEADLINE = 60.0
"""Seconds after which a chunk that was not answered is sent again."""


class Bulk:
    """The road for large buffers to and from one node. It is opened when it is first needed.

    Parameters
    ----------
    line
        A line to the node's store that nobody else uses.
    limit
        Bytes that the store may hold.
    """

    def __init__(self, line: Line, limit: int) -> None:
        self._line = line
        self._watching: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self.stock = Stock(limit)

    async def put(self, blob: Blob) -> None:
        """Bring a blob to the node, and make room for it there."""
        if gone := self.stock.admit(blob.name, blob.size):
            await self._ask(Drop(gone, ()))

        async def send(at: int) -> None:
            data = await asyncio.to_thread(blob.read, at, CHUNK)
            await self._ask(Store(blob.name, blob.size, at, data))

        await _each(range(0, blob.size, CHUNK), send)
        self.stock.arrived()

    async def fetch(self, outcome: Outcome) -> memoryview | None:
        """Return the large result of an outcome; None when the node has it no more."""
        assert outcome.large is not None
        size = outcome.large.size
        whole = memoryview(bytearray(size))
        complete = True

        async def receive(at: int) -> None:
            nonlocal complete
            chunk = await self._ask(Fetch(outcome.batch, at))
            if complete := complete and len(chunk.data) == min(CHUNK, size - at):
                whole[at : at + CHUNK] = chunk.data

        await _each(range(0, size, CHUNK), receive)
        await self.drop(outcome.batch)
        return whole if complete else None

    async def drop(self, batch: int) -> None:
        """Tell the node that nobody will fetch the large result of a batch any more."""
        await self._ask(Drop((), (batch,)))

    async def close(self) -> None:
        """Let go of the connection."""
        if self._watching is not None:
            self._watching.cancel()
        await self._line.close()

    async def _ask[R](self, message: Askable[R]) -> R:
        async with self._opening:
            while self._watching is None:
                with contextlib.suppress(Unreachable):  # the node is silent, or about to be lost: others decide that
                    await self._line.open(DEADLINE)
                    self._watching = asyncio.create_task(self._line.watch())
        return await self._line.ask(message, DEADLINE)


async def _each(offsets: range, move: Callable[[int], Awaitable[None]]) -> None:
    """Move the chunk at each offset, `AT_ONCE` at a time."""
    left = iter(offsets)

    async def carrier() -> None:
        for at in left:
            await move(at)

    async with asyncio.TaskGroup() as carriers:
        for _ in range(AT_ONCE):
            carriers.create_task(carrier())
