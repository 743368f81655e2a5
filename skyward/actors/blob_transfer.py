"""The second line to a node: large buffers go in chunks, a few at a time, and nothing short waits for them."""

import asyncio
import contextlib
import errno
from collections.abc import Callable, Coroutine
from typing import Any

from casty import Askable

from skyward.actors.blob_cache import BlobCache
from skyward.actors.connection import NodeConnection
from skyward.errors import Unreachable
from skyward.remote.blobs import Blob
from skyward.remote.protocol import CHUNK_BYTES, Drop, Fetch, Outcome, Store

MAX_CHUNKS_IN_FLIGHT = 4
"""Chunks on their way to a node at once, and as many on their way from it."""

CHUNK_TIMEOUT_S = 60.0
"""Seconds after which a chunk that was not answered is sent again."""


class BlobTransfer:
    """The road for large buffers to and from one node. It is opened when it is first needed.

    Parameters
    ----------
    line
        A line to the node's store that nobody else uses.
    limit
        Bytes that the store may hold.
    """

    def __init__(self, line: NodeConnection, limit: int) -> None:
        self._line = line
        self._watching: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._there, self._back = _ChunkPipeline(), _ChunkPipeline()
        self._round = 0
        self.stock = BlobCache(limit)

    async def put(self, blob: Blob) -> str:
        """Bring a blob to the node, and make room for it there; return why the node could not keep it, else nothing."""
        problems: list[str] = []
        self._round += 1
        if gone := self.stock.admit(blob.name, blob.size):
            await self._ask(Drop(gone, (), self._round))

        async def send(at: int) -> None:
            if not any(problems):
                data = await asyncio.to_thread(blob.read, at, CHUNK_BYTES)
                stored = await self._ask(Store(blob.name, blob.size, at, data, self._round))
                problems.append(stored.problem)

        await self._there.carry(range(0, blob.size, CHUNK_BYTES), send)
        if not any(problems):
            self.stock.arrived()
            return ""
        await self._ask(Drop((blob.name,), (), self._round))
        self.stock.failed(blob.name)
        return max(problems)

    async def fetch(self, outcome: Outcome, wanted: Callable[[], bool]) -> memoryview | None:
        """Return the large result of an outcome; None when the node has it no more, or it is not `wanted` any more.

        Raises
        ------
        OSError
            There is no memory for it.
        """
        assert outcome.large is not None
        size = outcome.large.size
        whole: memoryview | None = None
        complete = fits = True

        async def receive(at: int) -> None:
            nonlocal whole, complete, fits
            complete &= wanted()
            if not complete:
                return
            if whole is None:  # it takes no memory while others are fetched
                try:
                    whole = memoryview(bytearray(size))
                except MemoryError:
                    complete = fits = False
                    return
            chunk = await self._ask(Fetch(outcome.batch, at))
            complete &= len(chunk.data) == min(CHUNK_BYTES, size - at)
            if complete:
                whole[at : at + CHUNK_BYTES] = chunk.data

        await self._back.carry(range(0, size, CHUNK_BYTES), receive)
        await self._ask(Drop((), (outcome.batch,)))
        if not fits:
            raise OSError(errno.ENOMEM, f"no memory here for {size:,} bytes")
        return whole if complete else None

    async def close(self) -> None:
        """Let go of the connection."""
        if self._watching is not None:
            self._watching.cancel()
        await self._line.close()

    async def _ask[R](self, message: Askable[R]) -> R:
        async with self._opening:
            while self._watching is None:
                with contextlib.suppress(Unreachable):  # the node is silent, or about to be lost: others decide that
                    await self._line.open(CHUNK_TIMEOUT_S)
                    self._watching = asyncio.create_task(self._line.watch())
        return await self._line.ask(message, CHUNK_TIMEOUT_S)


class _ChunkPipeline:
    """Moves chunks, `MAX_CHUNKS_IN_FLIGHT` at a time: those of one buffer after those of the one before."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._free = asyncio.Semaphore(MAX_CHUNKS_IN_FLIGHT)

    async def carry(self, offsets: range, move: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        """Move the chunk at each offset."""

        async with asyncio.TaskGroup() as moving, self._turn:
            for at in offsets:
                await self._free.acquire()
                moving.create_task(move(at)).add_done_callback(lambda _: self._free.release())
