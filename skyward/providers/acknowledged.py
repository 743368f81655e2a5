"""What the other end of a TCP connection says to have received: what was sent may still lie in buffers on this side."""

import socket
import struct
from typing import Any

BYTES_ACKED = 120
"""Where Linux has it in `struct tcp_info`, as an unsigned 64-bit integer (linux/tcp.h)."""


def acknowledged(connection: Any) -> int:
    """Return the bytes of a TCP connection that the other end has received; 0 for what is no TCP connection of Linux.

    Parameters
    ----------
    connection
        A socket, or what an event loop gives as one.
    """
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED + 8)
        (count,) = struct.unpack_from("=Q", info, BYTES_ACKED)
    except (AttributeError, OSError, struct.error):
        return 0
    return int(count)
