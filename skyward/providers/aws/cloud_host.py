"""A cloud machine as the host of one node: the driver renews its lease over SSH, or the machine shuts itself down."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Callable
from functools import partial

from skyward.errors import Unreachable
from skyward.providers.aws.userdata import renewal
from skyward.providers.ssh.remote_host import RemoteHost
from skyward.providers.ssh.target import Refused
from skyward.providers.ssh.tunnel import Tunnel
from skyward.retry import retry

OFTEN = 0.1
"""After which share of the lease the driver says again that it is there: a cut may last for the rest of it."""

LOGIN_GRACE_S = 60.0
"""Seconds, from when a machine runs, in which a login that is refused is tried again: it may still be starting."""

LOGIN_RETRY_DELAY_S = 0.5
"""Seconds before a login that was refused is tried again."""


class CloudHost(RemoteHost):
    """A machine behind a tunnel whose lease is renewed from here, from the first contact until `close`.

    `left` returns the seconds after which the machine must shut itself down even if it hears from the driver, because
    the budget will be spent; None: never.

    It is held by this connection and not by the node, so that it is held while the node is being made, too. Both go the
    same way: when the driver is gone or cut off, the node ends after its lease, and with it or right after the machine.
    """

    def __init__(
        self, tunnel: Tunnel, folder: str, python: str, lease: float, left: Callable[[], float | None]
    ) -> None:
        super().__init__(tunnel, folder, python)
        self._holding = asyncio.create_task(_hold(tunnel, lease, left))

    async def close(self) -> None:
        """Release the machine: it shuts itself down when the lease expires, if nobody terminates it before."""
        self._holding.cancel()
        await super().close()


async def _hold(tunnel: Tunnel, lease: float, left: Callable[[], float | None]) -> None:
    for turn in itertools.count():
        with contextlib.suppress(Unreachable):  # the connection is down: again as soon as it is up
            await tunnel.run(renewal(f"{secrets.token_hex(4)}-{turn}", left()), within=lease)
        await asyncio.sleep(lease * OFTEN)


async def enter(tunnel: Tunnel) -> None:
    """Log in for the first time; retry a refused login while the machine may still be starting."""
    clock = asyncio.get_running_loop().time
    until = clock() + LOGIN_GRACE_S
    await retry(
        partial(tunnel.open, 3600.0),  # others decide how long is too long
        on=lambda error: isinstance(error, Refused) and clock() <= until,
        delays=itertools.repeat(LOGIN_RETRY_DELAY_S),
    )


async def touch(tunnel: Tunnel) -> None:
    """Renew the lease for the first time.

    Raises
    ------
    Unreachable
        The machine has no leash: the script that would shut it down does not run.
    """
    ran = await tunnel.run(renewal(secrets.token_hex(4)))
    if ran.code:
        raise Unreachable(f"{tunnel.to}: its leash was not armed at boot: {ran.stderr.strip()}")
