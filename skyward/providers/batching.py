"""Combine requests of several callers into one, and run coroutines concurrently."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, overload

GATHER_S = 0.02
"""Seconds that the first request waits for others."""

WANTED_CHECK_INTERVAL_S = 0.5
"""Seconds between two checks whether a result is still wanted."""


class RequestCoalescer[K, V]:
    """Calls `work` with all keys that have been requested meanwhile; never twice at the same time.

    `work` returns the result of each key. An exception as the result is raised where that key was requested; one that
    `work` raises is raised for all. Cancelling one caller does not affect the others.
    """

    def __init__(self, work: Callable[[Sequence[K]], Awaitable[Mapping[K, V | Exception]]]) -> None:
        self._work = work
        self._waiting: dict[K, asyncio.Future[V]] = {}
        self._running: asyncio.Task[None] | None = None

    async def do(self, key: K) -> V:
        """Request the result of a key."""
        if key not in self._waiting:
            self._waiting[key] = asyncio.get_running_loop().create_future()
        future = self._waiting[key]
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await asyncio.shield(future)

    async def idle(self) -> None:
        """Wait until no work is running."""
        if self._running is not None:
            await asyncio.wait({self._running})

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_S)
            waiting, self._waiting = self._waiting, {}
            try:
                done = await self._work(list(waiting))
            except Exception as error:  # noqa: BLE001 - it is raised where somebody waits
                done = dict.fromkeys(waiting, error)
            for key, future in waiting.items():
                outcome = done[key]
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                    future.exception()  # marks it as retrieved: perhaps no caller is left
                else:
                    future.set_result(outcome)


class Attempts:
    """Concurrent attempts, each in a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """Count the current task as an attempt while in the block."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def settle(self, seconds: float) -> None:
        """Wait until the tasks with current attempts have ended, for so many seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)


@overload
async def side_by_side[A, B](one: Coroutine[Any, Any, A], other: Coroutine[Any, Any, B], /) -> tuple[A, B]: ...


@overload
async def side_by_side[A](*works: Coroutine[Any, Any, A]) -> tuple[A, ...]: ...


async def side_by_side(*works: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """Return the results of all. The first error is raised after the others have been cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return tuple(task.result() for task in tasks)


async def while_wanted[A](work: Coroutine[Any, Any, A], wanted: Callable[[], bool]) -> A | None:
    """Return the result of the work, or cancel it and return None when it is no longer wanted."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=WANTED_CHECK_INTERVAL_S))[0]:
            if not wanted():
                return None
        return task.result()
    finally:
        task.cancel()
