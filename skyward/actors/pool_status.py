"""Whether a pool is open, has failed, or is closed."""

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator
from concurrent import futures

from skyward.actors.call_table import CallTable
from skyward.errors import PoolFailed

log = logging.getLogger("skyward")

type Guard = Callable[[str], contextlib.AbstractContextManager[None]]
"""Fails the pool when the actor of this name raises inside."""


class PoolStatus:
    """The life of a pool as its caller waits for it.

    Attributes
    ----------
    opened
        Done when enough nodes are ready, with an exception if that cannot be.
    closed
        Done with the names of what leaked when all machines are gone.
    """

    def __init__(self, calls: CallTable) -> None:
        self._calls = calls
        self.opened: futures.Future[None] = futures.Future()
        self.closed: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        """End the pool's work: who waits, now or later, gets `error`."""
        self._calls.fail(error)
        if not self.opened.done():
            self.opened.set_exception(error)

    def open(self) -> None:
        """Enough nodes are ready."""
        if not self.opened.done():
            self.opened.set_result(None)

    def close(self, leaked: tuple[str, ...]) -> None:
        """All machines are gone, but for those that leaked."""
        if not self.closed.done():
            self.closed.set_result(leaked)

    @contextlib.contextmanager
    def guard(self, actor: str) -> Iterator[None]:
        """Run an actor that must not fail: one that raised has lost what it knew, so the pool fails."""
        try:
            yield
        except Exception as error:
            log.exception("the %s failed, and so the pool failed", actor)
            failure = PoolFailed(f"the {actor} failed: {traceback.format_exception_only(error)[-1].strip()}")
            failure.__cause__ = error
            self.fail(failure)
            if not self.closed.done() and actor == "provisioner":
                self.closed.set_exception(failure)
