"""The driver's side of a lease, without whose renewal a node or a machine ends by itself."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from skyward.errors import Unreachable

log = logging.getLogger("skyward")

RENEWAL_SHARE = 0.1
"""Share of a lease after which it is renewed: the connection may be down for the rest of it."""


async def keep_renewing(renew: Callable[[], Awaitable[object]], lease: float) -> None:
    """Renew a lease of so many seconds until cancelled; an attempt without a connection is followed by the next one."""
    while True:
        try:
            await renew()
        except (OSError, Unreachable) as error:
            log.debug("cannot renew a lease of %g s: %s", lease, error)
        await asyncio.sleep(lease * RENEWAL_SHARE)
