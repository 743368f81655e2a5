"""Free what a closed pool would leave behind: casty 0.30.2 never frees a system or a client that was entered.

Each of them holds itself, its event loop (250 kB of uvloop's), its observer, its runtime (a thread and three
descriptors) and the definitions of its actors. So runtimes are lent to one pool after another, what was entered is
entered once more, in a small event loop, which makes it let go of the first one, and definitions hold a pool `weakly`.
"""

import asyncio
import contextlib
import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from casty import ActorSystem, Client, Runtime

log = logging.getLogger("skyward")

SETTLE_TIMEOUT_S = 1.0
"""Seconds that the tasks of a runtime have to end; they need about a millisecond."""

LOOP_TURN_S = 0.001
"""Seconds in which an event loop takes its turn, and hears what has come from other threads."""

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


def weakly[**P, R](method: Callable[P, R]) -> Callable[P, R]:
    """Return a bound method that does not keep its object."""
    held = weakref.WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        alive = held()
        assert alive is not None, "an actor runs after its pool is gone"
        return alive(*args, **kwargs)

    return call


def reclaim(system: ActorSystem, clients: Iterable[Client], runtime: Runtime) -> None:
    """Have a system and clients that have ended let go of the event loop that they were in, which has ended as well.

    Nobody else may use the runtime that the clients were in.
    """
    try:
        asyncio.run(_reenter(system, clients, runtime))
    except Exception as error:  # noqa: BLE001 - the pool has ended, and only memory is at stake
        log.debug("the memory of this pool is not freed: %s: %s", type(error).__name__, error)


async def _reenter(system: ActorSystem, clients: Iterable[Client], runtime: Runtime) -> None:
    async with system:
        pass
    for client in clients:
        entering = asyncio.ensure_future(client.__aenter__())
        await asyncio.sleep(0)  # it begins, and does not come as far as to connect
        entering.cancel()
        await asyncio.wait({entering})
    await _settle(runtime)


async def _settle(runtime: Any) -> None:
    """Hear what the thread of the runtime has yet to say: a loop that ends before leaves a socket behind."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE_TIMEOUT_S
    while runtime._tasks() and loop.time() < deadline:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(LOOP_TURN_S)
    await asyncio.sleep(LOOP_TURN_S)
