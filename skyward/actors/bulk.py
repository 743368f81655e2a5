"""The second casty Client of a node: large buffers go in chunks, a few at a time, and nothing short waits for them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from casty import Askable, Client, Ref, Unavailable

from skyward.actors.stock import Stock
from skyward.remote import store
from skyward.remote.blobs import Blob
from skyward.remote.protocol import CHUNK, Chunk, Drop, Fetch, Freight, Outcome, Store

AT_ONCE = 4
"""Chunks on their way at once."""

DEADLINE = 60.0
"""Seconds after which a chunk that was not answered is sent again."""

PAUSE = 0.2
"""Seconds before a chunk that failed at once is sent again."""


class Bulk:
    """The road for large buffers to and from one node. It is opened when it is first needed.

    Parameters
    ----------
    client
        A client of the node that nobody else uses.
    address
        What the node listens on over there.
    limit
        Bytes that the node's store may hold.
    """

    def __init__(self, client: Client, address: str, limit: int) -> None:
        self._client, self._address = client, address
        self._store: Ref[Freight] | None = None
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
            chunk: Chunk = await self._ask(Fetch(outcome.batch, at))
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
        if self._store is not None:
            await self._client.__aexit__(None, None, None)

    async def _ask(self, message: Askable[Any]) -> Any:
        """Ask until there is an answer; every message may be repeated."""
        async with self._opening:
            if self._store is None:
                await self._client.__aenter__()
                self._store = store.ref(self._client, self._address)
        while True:
            try:
                async with asyncio.timeout(DEADLINE):
                    return await self._store.ask(message)  # type: ignore[arg-type]
            except TimeoutError:
                pass
            except Unavailable:
                await asyncio.sleep(PAUSE)


async def _each(offsets: range, move: Callable[[int], Awaitable[None]]) -> None:
    """Move the chunk at each offset, `AT_ONCE` at a time."""
    left = iter(offsets)

    async def carrier() -> None:
        for at in left:
            await move(at)

    async with asyncio.TaskGroup() as carriers:
        for _ in range(AT_ONCE):
            carriers.create_task(carrier())
