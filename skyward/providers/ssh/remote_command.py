"""A command on a machine, which is killed by its process group.

sshd ignores signals sent to a session of root, and keeps a session until its command has ended. So every command prints
its process group first, and another session sends the signal.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import asyncssh

from skyward.errors import Unreachable
from skyward.providers.ssh.target import Lost, Ran, Target
from skyward.providers.streams import merged_lines

log = logging.getLogger("skyward")

END_TIMEOUT_S = 10.0
"""Seconds to kill a command; after that, its session counts as free."""

_GROUP = "skyward-process-group "
"""Printed before the output of a command; its process group follows."""

_END = """
kill -TERM "-{group}" 2>/dev/null || exit 0
turns=0
while [ "$turns" -lt 10 ] && kill -0 "-{group}" 2>/dev/null; do
    sleep 0.05 2>/dev/null || sleep 1
    turns=$((turns + 1))
done
kill -KILL "-{group}" 2>/dev/null
"""
"""Kills a process group, within half a second if `sleep` accepts fractions."""


class RemoteProcess:
    """A command that runs on the machine; implements `providers.provider.Process`.

    Parameters
    ----------
    process
        The result of `begin`.
    to
        The machine, for error messages.
    signal
        Runs a shell command in another session.
    ended
        Called when sshd has released the session, or the connection is lost.
    """

    def __init__(
        self,
        process: asyncssh.SSHClientProcess[bytes],
        to: Target,
        signal: Callable[[str], Awaitable[None]],
        ended: Callable[["RemoteProcess"], object],
    ) -> None:
        self._process, self._to, self._signal, self._ended = process, to, signal, ended
        self._head = asyncio.create_task(self._read_head())
        self._head.add_done_callback(lambda head: head.cancelled() or head.exception())  # its error is raised elsewhere
        self._closed = asyncio.create_task(process.wait_closed())
        self._closed.add_done_callback(lambda _: self._ending or ended(self))
        self._ending: asyncio.Task[None] | None = None

    def feed(self, stdin: bytes) -> None:
        """Write the standard input and close it."""
        with contextlib.suppress(BrokenPipeError):  # it may have ended without reading it
            self._process.stdin.write(stdin)
            self._process.stdin.write_eof()

    async def ran(self) -> Ran:
        """Wait until it ends, and return its result.

        Raises
        ------
        Lost
            The connection was lost before that.
        """
        _, before = await asyncio.shield(self._head)
        done = await self._process.wait()
        return Ran(self._code(), _text(before) + _text(done.stdout), _text(done.stderr))

    async def lines(self) -> AsyncIterator[tuple[str, str]]:
        """Yield its output, line by line, until it ends or the connection is lost."""
        try:
            _, before = await asyncio.shield(self._head)
        except asyncssh.Error:
            return
        for line in before.splitlines():
            yield "stdout", _text(line)
        streams = {"stdout": partial(_line, self._process.stdout), "stderr": partial(_line, self._process.stderr)}
        async with contextlib.aclosing(merged_lines(streams)) as lines:
            async for each in lines:
                yield each

    async def wait(self) -> int:
        """Wait until it ends, and return its exit code.

        Raises
        ------
        Lost
            The connection was lost before that.
        """
        await asyncio.shield(self._closed)
        return self._code()

    def close(self) -> None:
        """Kill it if it is still running. `closed` waits for that."""
        if self._ending is None and not self._closed.done():
            self._ending = asyncio.create_task(self._end())

    async def closed(self) -> None:
        """Wait until it has ended, or could not be killed in time."""
        await asyncio.shield(self._ending or self._closed)

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                group, _ = await asyncio.shield(self._head)
                if group is not None and self._process.returncode is None:
                    await self._signal(_END.format(group=group))
                self._process.close()
                await self._process.wait_closed()
        except (asyncssh.Error, OSError, Unreachable) as error:  # TimeoutError is an OSError
            log.debug("%s: cannot kill a command: %s", self._to, error)
        finally:
            self._process.close()
            self._ended(self)

    async def _read_head(self) -> tuple[int | None, bytes]:
        """Return the process group and the output before it; None and all output if no group is printed."""
        before = b""
        while line := await self._process.stdout.readline():
            if line.startswith(_GROUP.encode()):
                return int(line.removeprefix(_GROUP.encode())), before
            before += line
        return None, before

    def _code(self) -> int:
        if self._process.returncode is None:  # the connection was lost
            raise Lost(f"{self._to}: the connection was lost during a command")
        return self._process.returncode


def begin(connection: asyncssh.SSHClientConnection, line: str) -> Awaitable[asyncssh.SSHClientProcess[bytes]]:
    """Start a shell command for a `RemoteProcess`."""
    return connection.create_process(f"echo {_GROUP}$$\n{line}", encoding=None)


async def _line(stream: asyncssh.SSHReader[bytes]) -> bytes:
    try:
        return await stream.readline()
    except asyncssh.Error:
        return b""  # the connection was lost; `wait` raises


def _text(data: Any) -> str:
    return bytes(data or b"").decode(errors="replace")
