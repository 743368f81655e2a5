"""A machine reached by SSH as the host of one node: its commands and their output outlive the connection."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence

from skyward.errors import Unreachable
from skyward.providers.provider import Content
from skyward.providers.ssh import scripts
from skyward.providers.ssh.tunnel import Lost, Tunnel

LOST_EXIT_CODE = -1
"""Reported for a command whose exit code was lost."""

RECONNECT_TIMEOUT_S = 3600.0
"""Seconds of one wait for a lost connection; the supervisor decides when to give up."""

OUTPUT_RETRY_DELAY_S = 0.05
"""Seconds before output is followed again after the connection was lost, so that the tunnel notices the loss first."""


class RemoteHost:
    """A machine behind a tunnel, on which only this node uses `folder`."""

    tethered = False
    shares_memory = False

    def __init__(self, tunnel: Tunnel, folder: str, python: str) -> None:
        self.folder, self.python = folder, python
        self._tunnel = tunnel
        self._commands = 0

    async def write(self, files: Mapping[str, Content]) -> None:
        """Write files into the folder, readable only by this user."""
        await self._tunnel.put(self.folder, files)

    async def start(self, command: Sequence[str]) -> "DetachedProcess":
        """Start a command in its own session, so that it continues when the connection is lost."""
        self._commands += 1
        token = secrets.token_hex(8)
        ran = await self._tunnel.run(scripts.start(self.folder, self._commands, token, command))
        if ran.code:
            raise Unreachable(f"{self._tunnel.to}: a command cannot be started: {ran.stderr.strip()}")
        return DetachedProcess(self._tunnel, self.folder, self._commands, token)

    def acknowledged(self) -> int:
        """Return the number of bytes that the machine has acknowledged on this connection."""
        return self._tunnel.acknowledged()

    async def tunnel(self, port: int) -> int:
        """Return a local port on 127.0.0.1 that forwards to `port` on 127.0.0.1 there."""
        return await self._tunnel.forward(port)

    async def close(self) -> None:
        """Release the machine. What runs on it continues to run."""
        await self._tunnel.close()


class DetachedProcess:
    """A command on the machine. Its output is followed over as many connections as needed."""

    def __init__(self, tunnel: Tunnel, folder: str, number: int, token: str) -> None:
        self._tunnel, self._folder, self._number = tunnel, folder, number
        self._last = f"{scripts.END_MARK} {token} "
        self._code: int | None = None

    async def lines(self) -> AsyncIterator[tuple[str, str]]:
        """Yield its output, line by line, until it ends."""
        seen = {"stdout": 0, "stderr": 0}
        open_streams = set(seen)
        blank = dict.fromkeys(seen, False)  # an empty line is held back: the last one is not the command's
        while open_streams:
            try:
                await self._tunnel.up(RECONNECT_TIMEOUT_S)
                follower = await self._tunnel.start(
                    scripts.follow(self._folder, self._number, seen["stdout"], seen["stderr"])
                )
            except Lost:
                await asyncio.sleep(OUTPUT_RETRY_DELAY_S)
                continue
            try:
                async for stream, text in follower.lines():
                    seen[stream] += 1
                    if text.startswith(self._last):
                        self._code = int(text.removeprefix(self._last))
                        open_streams.discard(stream)
                        if not open_streams:
                            return
                        continue
                    if blank[stream]:
                        yield stream, ""
                    blank[stream] = not text
                    if text:
                        yield stream, text
                await follower.wait()
            except Lost:
                await asyncio.sleep(OUTPUT_RETRY_DELAY_S)
                continue
            finally:
                follower.close()
            if self._code is None:
                self._code = LOST_EXIT_CODE
            return

    async def wait(self) -> int:
        """Return its exit code, once it has ended."""
        if self._code is None:
            async for _ in self.lines():
                pass
        assert self._code is not None
        return self._code


async def settled(tunnel: Tunnel, node: str) -> str:
    """Make the node's folder on the machine, and return its path."""
    ran = await tunnel.run(scripts.settle(node))
    folder = ran.stdout.strip().splitlines()
    if ran.code or not folder:
        raise Unreachable(f"{tunnel.to}: no folder can be made for the node: {ran.stderr.strip() or 'no reason given'}")
    return folder[0]


async def shut(tunnel: Tunnel) -> None:
    """Close a tunnel, even if the calling task is cancelled."""
    await asyncio.shield(tunnel.close())
