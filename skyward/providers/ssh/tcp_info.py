"""What gets through a TCP connection, by the kernel: what was sent may still be in buffers on this side."""

import asyncio
import socket
import struct
from typing import Any, NamedTuple

KEEPALIVE_INTERVAL_S, MAX_MISSED_KEEPALIVES = 2, 3
"""Seconds between signs of life, and how many may be missing: what is dead is noticed after 8 s."""

MIN_LIVE_BYTES = 16 << 10
"""Bytes that get through meanwhile below which a connection is not busy: signs of life come to less."""

COUNTS = 120
"""Where Linux has the bytes acknowledged and received in `struct tcp_info`, as `__u64` (linux/tcp.h)."""


class Traffic(NamedTuple):
    """Bytes of a connection that the other end has acknowledged to have received, and that have come from it."""

    acknowledged: int
    received: int


def traffic(connection: Any) -> Traffic | None:
    """Return what has got through; None for what is no TCP connection of Linux.

    Parameters
    ----------
    connection
        A socket, or what an event loop gives as one.
    """
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, COUNTS + 16)
        return Traffic(*struct.unpack_from("=QQ", info, COUNTS))
    except (AttributeError, OSError, ValueError, struct.error):  # ValueError: it is closed, says uvloop
        return None


async def closed(connection: Any) -> None:
    """Wait until a connection of asyncssh is closed; one that is dead is."""

    async def end_when_dead() -> None:
        await silence(connection.get_extra_info("socket"))
        connection.abort()

    watching = asyncio.create_task(end_when_dead())
    try:
        await connection.wait_closed()
    finally:
        watching.cancel()


async def silence(connection: Any) -> None:
    """Return once a connection on which there are signs of life each `KEEPALIVE_INTERVAL_S` seconds is dead.

    On a slow one they wait behind what else is sent: it is alive while that gets through. Never returns for what
    `traffic` knows nothing of.
    """
    missed, before = 0, traffic(connection)
    while before is None or missed < MAX_MISSED_KEEPALIVES:
        await asyncio.sleep(KEEPALIVE_INTERVAL_S)
        now = traffic(connection)
        if before is not None and now is not None:
            moved = now.received > before.received or now.acknowledged - before.acknowledged >= MIN_LIVE_BYTES
            missed = 0 if moved else missed + 1
        before = now
