"""The two output streams of a command as one sequence of lines."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

BUFFERED_LINES = 1000
"""Lines that are read ahead of the consumer."""


async def merged_lines(streams: Mapping[str, Callable[[], Awaitable[bytes]]]) -> AsyncGenerator[tuple[str, str]]:
    """Yield the lines of several streams as they arrive, as `(stream, line)`, until all streams end.

    Parameters
    ----------
    streams
        By name, a function that reads the next line; no bytes mean the end.
    """
    queue: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue(BUFFERED_LINES)

    async def pump(name: str, read: Callable[[], Awaitable[bytes]]) -> None:
        try:
            while data := await read():
                await queue.put((name, data.decode(errors="replace").rstrip("\n")))
        finally:
            await queue.put(None)

    pumps = [asyncio.create_task(pump(name, read)) for name, read in streams.items()]
    try:
        for _ in pumps:
            while (line := await queue.get()) is not None:
                yield line
    finally:
        for task in pumps:
            task.cancel()
