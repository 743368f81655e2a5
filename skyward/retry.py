"""Retries: the delays between attempts, and the loop that makes the attempts."""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator

log = logging.getLogger("skyward")

FIRST_RETRY_DELAY_S = 0.2
"""Seconds before the first retry, if nothing else is said."""

MAX_RETRY_DELAY_S = 3.0
"""Seconds between two attempts, at most."""


def backoff(
    first: float = FIRST_RETRY_DELAY_S, longest: float = MAX_RETRY_DELAY_S, factor: float = 2.0
) -> Iterator[float]:
    """Yield delays without end, each `factor` times the one before but no longer than `longest`."""
    delay = first
    while True:
        yield delay
        delay = min(factor * delay, longest)


def jittered(delays: Iterable[float], luck: Callable[[], float] = random.random) -> Iterator[float]:
    """Shorten each delay at random by up to a half, so that callers that failed together do not return together."""
    return (delay * (0.5 + luck() / 2) for delay in delays)


async def retry[T](
    attempt: Callable[[], Awaitable[T]],
    *,
    on: type[Exception] | Callable[[Exception], bool],
    delays: Iterator[float],
    within: float = math.inf,
) -> T:
    """Return what `attempt` returns; while it raises what may pass, wait and call it again.

    Parameters
    ----------
    on
        The kind of errors that may pass, or what says so of an error. Any other error is raised.
    delays
        Seconds to wait before each retry.
    within
        Seconds, from now on, after which no retry begins: the last error is raised instead, without a wait.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + within
    while True:
        try:
            return await attempt()
        except Exception as error:
            if not (isinstance(error, on) if isinstance(on, type) else on(error)):
                raise
            delay = next(delays)
            if clock() + delay > until:
                raise
            log.debug("retrying in %.2f s: %s", delay, error)
        await asyncio.sleep(delay)
