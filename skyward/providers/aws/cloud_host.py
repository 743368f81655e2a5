"""A cloud machine as the host of one node: the driver renews its lease over SSH, or the machine shuts itself down."""

import asyncio
import itertools
import secrets
from collections.abc import Callable
from functools import partial

from skyward.errors import Unreachable
from skyward.providers.aws.userdata import renewal
from skyward.providers.ssh.remote_host import RemoteHost
from skyward.providers.ssh.target import Refused
from skyward.providers.ssh.tunnel import Tunnel
from skyward.renewal import keep_renewing
from skyward.retry import retry

LOGIN_GRACE_S = 60.0
"""Seconds, from when a machine runs, in which a refused login is retried: sshd may still be starting."""

LOGIN_RETRY_DELAY_S = 0.5
"""Seconds before a refused login is retried."""


class CloudHost(RemoteHost):
    """A machine behind a tunnel. This object renews its lease, from the first contact until `close`.

    `left` returns the seconds after which the machine must shut itself down even if it hears from the driver, because
    the budget will be spent; None: never.

    This connection renews it and not the node, so that it is renewed while the node is being installed, too. When the
    driver is gone or cut off, both leases expire: that of the node, and with it or right after it that of the machine.
    """

    def __init__(
        self, tunnel: Tunnel, folder: str, python: str, lease: float, left: Callable[[], float | None]
    ) -> None:
        super().__init__(tunnel, folder, python)
        self._renewing = asyncio.create_task(keep_renewing(partial(_renew, tunnel, lease, left), lease))

    async def close(self) -> None:
        """Release the machine: it shuts itself down when the lease expires, if nobody terminates it before."""
        self._renewing.cancel()
        await super().close()


async def _renew(tunnel: Tunnel, lease: float, left: Callable[[], float | None]) -> None:
    await tunnel.run(renewal(secrets.token_hex(8), left()), within=lease)


async def first_login(tunnel: Tunnel) -> None:
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
        The script that would shut the machine down does not run.
    """
    ran = await tunnel.run(renewal(secrets.token_hex(4)))
    if ran.code:
        raise Unreachable(f"{tunnel.to}: its lease script did not start at boot: {ran.stderr.strip()}")
