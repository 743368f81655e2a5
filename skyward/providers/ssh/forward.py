"""A local port that is forwarded to a machine, and that stays the same when the SSH connection is opened again.

It uses the methods that asyncio's transports and asyncssh's channels have in common.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Self

type Through = Callable[[Callable[[], "RelayEnd"]], Awaitable[object]]
"""Opens a channel to the remote port, with a session made by the function that it is given, or raises OSError."""


class RelayEnd(asyncio.Protocol):
    """One end of a forwarded connection: a protocol of asyncio, or a session of asyncssh.

    Data from one end is written to the other. While the other end is slow, this one is not read.
    """

    pipe: Any = None
    other: "RelayEnd | None" = None

    def connection_made(self, pipe: Any) -> None:
        """Take the transport, or the channel."""
        self.pipe = pipe

    def session_started(self) -> None:
        """Do nothing; asyncssh calls this."""

    def data_received(self, data: bytes, datatype: object = None) -> None:
        """Write data to the other end."""
        if self.other is not None and self.other.pipe is not None:
            self.other.pipe.write(data)

    def eof_received(self) -> bool:
        """Pass on the end of the data; the other direction stays open."""
        if self.other is not None and self.other.pipe is not None:
            with contextlib.suppress(OSError):  # it may have been closed just now
                self.other.pipe.write_eof()
        return True

    def pause_writing(self) -> None:
        """Stop reading from the other end."""
        if self.other is not None and self.other.pipe is not None:
            self.other.pipe.pause_reading()

    def resume_writing(self) -> None:
        """Read from the other end again."""
        if self.other is not None and self.other.pipe is not None:
            self.other.pipe.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Close the other end after its data, or at once if this one failed."""
        self.pipe, other, self.other = None, self.other, None
        if other is not None and other.pipe is not None:
            other.other = None
            if error is None:
                other.pipe.close()
            else:
                other.pipe.abort()

    def connect(self, other: "RelayEnd") -> "RelayEnd":
        """Make these two the ends of one connection; return the other one."""
        self.other, other.other = other, self
        return other


class Forward:
    """A port of 127.0.0.1. For each connection to it, `through` opens a channel.

    Attributes
    ----------
    port
        The port.
    """

    def __init__(self, through: Through) -> None:
        self._through = through
        self._nears: set[_Near] = set()
        self._opening: set[asyncio.Task[None]] = set()

    async def open(self) -> Self:
        """Listen on a free port."""
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._server = await asyncio.get_running_loop().create_server(lambda: _Near(self), sock=listening)
        self.port: int = listening.getsockname()[1]
        return self

    async def close(self) -> None:
        """Stop listening, and abort all connections."""
        self._server.close()
        for task in self._opening:
            task.cancel()
        for near in self._nears:
            near.pipe.abort()

    def arrived(self, near: "_Near") -> None:
        """Open a channel for a new connection."""
        self._nears.add(near)
        task = asyncio.create_task(self._connect(near))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def left(self, near: "_Near") -> None:
        """Forget a connection that was closed."""
        self._nears.discard(near)

    async def _connect(self, near: "_Near") -> None:
        """Open a channel and pass on what was received meanwhile, or close the connection if that fails."""
        with contextlib.suppress(OSError):
            await self._through(lambda: near.connect(RelayEnd()))
        if near.pipe is None:
            if near.other is not None:
                near.other.pipe.abort()
        elif near.other is None:
            near.pipe.close()
        else:
            near.begin()


class _Near(RelayEnd):
    """The end at the local port. Data is held until the channel is open: uvloop reads even if paused right away."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._held: list[bytes] | None = []
        self._ended = False

    def connection_made(self, pipe: Any) -> None:
        super().connection_made(pipe)
        self._forward.arrived(self)

    def data_received(self, data: bytes, datatype: object = None) -> None:
        if self._held is None:
            super().data_received(data)
        else:
            self._held.append(data)
            self.pipe.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        return True if self._held is not None else super().eof_received()

    def begin(self) -> None:
        """Pass on the data that was held, and go on reading."""
        held, self._held = self._held or [], None
        if held:
            self.pipe.resume_reading()  # before writing, which may pause it again
        for data in held:
            super().data_received(data)
        if self._ended:
            super().eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._forward.left(self)
