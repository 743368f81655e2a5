"""A local port that leads through whatever connection there is: it stays the same when that one is lost.

Written against the few methods that asyncio's transports and SSH's channels have in common.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Self

type Through = Callable[[Callable[[], "RelayEnd"]], Awaitable[object]]
"""Opens a channel to the far port, whose session is made by the function it is given; or raises."""


class RelayEnd(asyncio.Protocol):
    """One end of a connection that passes through: a session of SSH, and a protocol of asyncio.

    What comes in goes out of the other end; if that one is slow, this one is not read.
    """

    pipe: Any = None
    other: "RelayEnd | None" = None

    def connection_made(self, pipe: Any) -> None:
        """Take the transport, or the channel."""
        self.pipe = pipe

    def session_started(self) -> None:
        """Do nothing: what SSH tells a session."""

    def data_received(self, data: bytes, datatype: object = None) -> None:
        """Pass it on."""
        if self.other is not None and self.other.pipe is not None:
            self.other.pipe.write(data)

    def eof_received(self) -> bool:
        """Pass it on; the other way stays open."""
        if self.other is not None and self.other.pipe is not None:
            with contextlib.suppress(OSError):  # it may be gone in this moment
                self.other.pipe.write_eof()
        return True

    def pause_writing(self) -> None:
        """Have the other end read no more."""
        if self.other is not None and self.other.pipe is not None:
            self.other.pipe.pause_reading()

    def resume_writing(self) -> None:
        """Have the other end read again."""
        if self.other is not None and self.other.pipe is not None:
            self.other.pipe.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """End the other end too: in order, or at once when this one was lost."""
        self.pipe, other, self.other = None, self.other, None
        if other is not None and other.pipe is not None:
            other.other = None
            if error is None:
                other.pipe.close()
            else:
                other.pipe.abort()

    def meet(self, other: "RelayEnd") -> "RelayEnd":
        """Make these two the ends of one connection."""
        self.other, other.other = other, self
        return other


class Forward:
    """A port of 127.0.0.1 for which `through` opens a channel whenever somebody connects.

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
        """Let connections in."""
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._server = await asyncio.get_running_loop().create_server(lambda: _Near(self), sock=listening)
        self.port: int = listening.getsockname()[1]
        return self

    async def close(self) -> None:
        """Let nobody in, and end the connections that there are."""
        self._server.close()
        for task in self._opening:
            task.cancel()
        for near in self._nears:
            near.pipe.abort()

    def arrived(self, near: "_Near") -> None:
        """Somebody has connected."""
        self._nears.add(near)
        task = asyncio.create_task(self._lead_on(near))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def left(self, near: "_Near") -> None:
        """Its connection has ended."""
        self._nears.discard(near)

    async def _lead_on(self, near: "_Near") -> None:
        """Open the way on, and let in what came meanwhile; if there is no way, the connection ends."""
        with contextlib.suppress(OSError):
            await self._through(lambda: near.meet(RelayEnd()))
        if near.pipe is None:
            if near.other is not None:
                near.other.pipe.abort()
        elif near.other is None:
            near.pipe.close()
        else:
            near.begin()


class _Near(RelayEnd):
    """The end at the local port. What comes before there is another end is held."""

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
        """Pass on what was held, and read on."""
        held, self._held = self._held or [], None
        if held:
            self.pipe.resume_reading()  # first: what is held may have it paused again
        for data in held:
            super().data_received(data)
        if self._ended:
            super().eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._forward.left(self)
