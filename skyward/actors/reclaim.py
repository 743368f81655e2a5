"""What an ended pool would leave behind, as casty 0.30.2 never frees a system or a client that was entered.

Each of them holds itself, its event loop (250 kB of uvloop's), its observer and its runtime (a thread and three
descriptors). So runtimes are lent to one pool after another, and what was entered is entered once more, in a small
event loop, which makes it let go of the first one.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable, Iterator

from casty import ActorSystem, Client, Runtime

log = logging.getLogger("skyward")

_FREE: dict[int, list[Runtime]] = {}
"""Runtimes that no pool uses, by the process that made them: a forked child does not have their threads."""


@contextlib.contextmanager
def lend_runtime() -> Iterator[Runtime]:
    """Lend a runtime with one thread; there are as many as pools have been open at the same time."""
    free = _FREE.setdefault(os.getpid(), [])
    try:
        runtime = free.pop()
    except IndexError:
        runtime = Runtime(threads=1)
    try:
        yield runtime
    finally:
        free.append(runtime)


def reclaim(system: ActorSystem, clients: Iterable[Client]) -> None:
    """Have a system and clients that have ended let go of the event loop that they were in, which has ended as well."""
    try:
        asyncio.run(_reenter(system, clients))
    except Exception as error:  # noqa: BLE001 - the pool has ended, and only memory is at stake
        log.debug("the memory of this pool is not freed: %s: %s", type(error).__name__, error)


async def _reenter(system: ActorSystem, clients: Iterable[Client]) -> None:
    async with system:
        pass
    for client in clients:
        entering = asyncio.ensure_future(client.__aenter__())
        await asyncio.sleep(0)  # it begins, and does not come as far as to connect
        entering.cancel()
        await asyncio.wait({entering})
