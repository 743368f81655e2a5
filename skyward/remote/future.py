"""The future of a call: a standard future that can also be awaited."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Generator
from concurrent import futures
from typing import Any

WAIT_SLICE_S = 1.0
"""Seconds after which a wait starts again: Python misses a Ctrl-C that arrives just before it begins to wait."""


def result_of[T](future: futures.Future[T]) -> T:
    """Wait for a future however long it takes, and hear of Ctrl-C meanwhile."""
    while True:
        try:
            return futures.Future.result(future, WAIT_SLICE_S)
        except TimeoutError:
            if future.done():
                return futures.Future.result(future, 0)


def wait_for_all(pending: Collection[futures.Future[Any]], until: str = futures.ALL_COMPLETED) -> None:
    """Do what `concurrent.futures.wait` does, and hear of Ctrl-C meanwhile."""
    failed = False
    while pending and not failed:
        done, pending = futures.wait(pending, WAIT_SLICE_S, until)
        failed = until == futures.FIRST_EXCEPTION and any(each.cancelled() or each.exception() for each in done)


class Future[T](futures.Future[T]):
    """The result of a call on the pool: a standard future that can also be awaited.

    `cancel` also reaches the nodes: a queued call never starts, a call running in a process slot is killed, and one in
    a thread slot is asked to stop. It returns False only if the call has finished.

    Attributes
    ----------
    batch
        The number of the call in its pool.
    duration
        Seconds that the call ran on its slot, without unpickling it and importing modules; None until it has finished
        there.
    node, slot
        Where it ran; None until then.
    """

    def __init__(self, batch: int, cancelled: Callable[[int], None]) -> None:
        super().__init__()
        self.batch = batch
        self.duration: float | None = None
        self.node: int | None = None
        self.slot: int | None = None
        self._cancelled = cancelled

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result and return it. Raise `TimeoutError` if it is not there within `timeout` seconds."""
        return result_of(self) if timeout is None else super().result(timeout)

    def cancel(self) -> bool:
        """Stop the call wherever it is; see the class."""
        if self.cancelled():
            return True
        if not super().cancel():
            return False
        with contextlib.suppress(futures.InvalidStateError, RuntimeError):
            self.set_running_or_notify_cancel()  # so that `wait` and `as_completed` hear of it
        self._cancelled(self.batch)
        return True

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()
