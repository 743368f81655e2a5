"""Detect dead TCP connections by the byte counts of the kernel."""

import asyncio
import socket
import struct
from typing import Any, NamedTuple

KEEPALIVE_INTERVAL_S, MAX_MISSED_KEEPALIVES = 2, 3
"""Seconds between two keepalives, and how many may be missed: a dead connection is noticed after 8 s."""

MIN_BUSY_BYTES = 16 << 10
"""Bytes acknowledged between two checks that show that a connection is alive; keepalives are fewer."""

COUNTS_OFFSET = 120
"""The offset of `tcpi_bytes_acked` and `tcpi_bytes_received` in Linux's `struct tcp_info`, each a `__u64`."""


class Traffic(NamedTuple):
    """Bytes that the other end has acknowledged, and bytes received from it."""

    acknowledged: int
    received: int


def traffic(connection: Any) -> Traffic | None:
    """Return the byte counts of a socket, or None if it is not a TCP connection on Linux."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, COUNTS_OFFSET + 16)
        return Traffic(*struct.unpack_from("=QQ", info, COUNTS_OFFSET))
    except (AttributeError, OSError, ValueError, struct.error):  # uvloop raises ValueError for a closed socket
        return None


async def closed(connection: Any) -> None:
    """Wait until a connection of asyncssh is closed, and close it when it is dead."""

    async def end_when_dead() -> None:
        await silence(connection.get_extra_info("socket"))
        connection.abort()

    watching = asyncio.create_task(end_when_dead())
    try:
        await connection.wait_closed()
    finally:
        watching.cancel()


async def silence(connection: Any) -> None:
    """Wait until a connection with a keepalive every `KEEPALIVE_INTERVAL_S` seconds is dead.

    On a slow connection keepalives wait behind other data, so it counts as alive while data is acknowledged. If the
    byte counts are not known, wait forever.
    """
    missed, before = 0, traffic(connection)
    while before is None or missed < MAX_MISSED_KEEPALIVES:
        await asyncio.sleep(KEEPALIVE_INTERVAL_S)
        now = traffic(connection)
        if before is not None and now is not None:
            moved = now.received > before.received or now.acknowledged - before.acknowledged >= MIN_BUSY_BYTES
            missed = 0 if moved else missed + 1
        before = now
