"""Large results are fetched a few chunks at a time, whatever number of them waits."""

import asyncio
from collections import deque
from typing import Any

from skyward.actors.blob_transfer import MAX_CHUNKS_IN_FLIGHT, BlobTransfer
from skyward.remote.blobs import Ref
from skyward.remote.protocol import CHUNK_BYTES, Chunk, Drop, Fetch, Outcome, Stored

PARTS = 6


class Held:
    """A line to a store that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: deque[tuple[Fetch, asyncio.Future[Chunk]]] = deque()

    async def open(self, timeout: float) -> None: ...

    async def watch(self) -> None: ...

    async def close(self) -> None: ...

    async def ask(self, message: Any, deadline: float) -> Any:
        if isinstance(message, Drop):
            return Stored()
        self.asked.append((message, asyncio.get_running_loop().create_future()))
        return await self.asked[-1][1]


def large(batch: int, size: int) -> Outcome:
    return Outcome(batch, "returned", b"", 1.0, 0, large=Ref("", "", size))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_results_are_fetched_one_after_the_other_and_a_few_chunks_at_once() -> None:
    async def fetch_three() -> tuple[list[int], int, list[memoryview | None]]:
        line, order, most = Held(), [], 0
        bulk = BlobTransfer(line, 1 << 30)  # type: ignore[arg-type]
        fetching = [
            asyncio.create_task(bulk.fetch(large(batch, PARTS * CHUNK_BYTES), lambda: True)) for batch in range(3)
        ]
        await settle()
        while line.asked:
            most = max(most, len(line.asked))
            message, answer = line.asked.popleft()
            order.append(message.batch)
            answer.set_result(Chunk(bytes([message.batch]) * CHUNK_BYTES))
            await settle()
        results = await asyncio.gather(*fetching)
        await bulk.close()
        return order, most, results

    order, most, results = asyncio.run(fetch_three())

    assert order == sorted(order)
    assert len(order) == 3 * PARTS
    assert most == MAX_CHUNKS_IN_FLIGHT
    assert [result and (result[0], result[-1], len(result)) for result in results] == [
        (batch, batch, PARTS * CHUNK_BYTES) for batch in range(3)
    ]


def test_a_result_that_nobody_wants_any_more_takes_no_time_of_others() -> None:
    async def lose_interest() -> tuple[list[int], memoryview | None]:
        line, order, wanted = Held(), [], [True]
        bulk = BlobTransfer(line, 1 << 30)  # type: ignore[arg-type]
        first = asyncio.create_task(bulk.fetch(large(0, PARTS * CHUNK_BYTES), lambda: wanted[0]))
        second = asyncio.create_task(bulk.fetch(large(1, CHUNK_BYTES), lambda: True))
        await settle()
        wanted[0] = False
        while line.asked:
            message, answer = line.asked.popleft()
            order.append(message.batch)
            answer.set_result(Chunk(bytes(CHUNK_BYTES)))
            await settle()
        results = await first, await second
        await bulk.close()
        assert results[1] is not None
        return order, results[0]

    order, lost = asyncio.run(lose_interest())

    assert order == [0] * MAX_CHUNKS_IN_FLIGHT + [1]
    assert lost is None
