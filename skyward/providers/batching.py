"""Do in one go what several callers request at about the same time; and do several things side by side."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, overload

GATHER = 0.02
"""Seconds for which the first waits for others."""

POLL_INTERVAL_S = 0.5
"""Seconds between looks whether something is still wanted."""


class RequestCoalescer[K, V]:
    """Does `work` for all keys that came meanwhile; one after another, so that it never runs beside itself.

    `work` says for each key what came of it; an exception is raised where that key was asked for, and one that `work`
    raises is raised for all. Whoever stops waiting changes nothing for the others.
    """

    def __init__(self, work: Callable[[Sequence[K]], Awaitable[Mapping[K, V | Exception]]]) -> None:
        self._work = work
        self._waiting: dict[K, asyncio.Future[V]] = {}
        self._running: asyncio.Task[None] | None = None

    async def do(self, key: K) -> V:
        """Have it done for a key."""
        if key not in self._waiting:
            self._waiting[key] = asyncio.get_running_loop().create_future()
        future = self._waiting[key]
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await asyncio.shield(future)

    async def idle(self) -> None:
        """Wait until nothing is being done."""
        if self._running is not None:
            await asyncio.wait({self._running})

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER)
            waiting, self._waiting = self._waiting, {}
            try:
                done = await self._work(list(waiting))
            except Exception as error:  # noqa: BLE001 - it is raised where somebody waits
                done = dict.fromkeys(waiting, error)
            for key, future in waiting.items():
                outcome = done[key]
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                    future.exception()  # perhaps nobody waits any more
                else:
                    future.set_result(outcome)


class Attempts:
    """Attempts that are under way at the same time, each in a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """Count the current task as an attempt, for the length of the block."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def settle(self, seconds: float) -> None:
        """Wait for the end of the tasks whose attempts are under way now, for so many seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)


@overload
async def side_by_side[A, B](one: Coroutine[Any, Any, A], other: Coroutine[Any, Any, B], /) -> tuple[A, B]: ...


@overload
async def side_by_side[A](*works: Coroutine[Any, Any, A]) -> tuple[A, ...]: ...


async def side_by_side(*works: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """Return what each gives. The first error is raised once the others have been stopped: nothing goes on unseen."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return tuple(task.result() for task in tasks)


async def while_wanted[A](work: Coroutine[Any, Any, A], wanted: Callable[[], bool]) -> A | None:
    """Return what the work gives; None, and stop it, once it is not wanted any more."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait({task}, timeout=POLL_INTERVAL_S))[0]:
            if not wanted():
                return None
        return task.result()
    finally:
        task.cancel()
