"""A tunnel to one machine: one SSH connection for commands, files and forwards, which comes back when it was cut.

The only file that imports asyncssh.
"""

import asyncio
import contextlib
import os
import random
import shlex
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self

import asyncssh

from skyward.errors import Unreachable
from skyward.providers.destination import Destination, pause

SESSIONS = 8
"""Commands and file transfers at once: sshd refuses the eleventh of a connection by default."""

WITHIN = 10.0
"""Seconds that a command waits for a connection that is down."""


class Lost(Unreachable):
    """The connection was cut, so it is not known what became of a command. The tunnel connects anew by itself."""


class Refused(Unreachable):
    """Trying again cannot help: the host key is unknown or has changed, or the login is not allowed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a command: its exit code (of one killed by a signal, minus its number), and what it printed."""

    code: int
    stdout: str
    stderr: str


class Tunnel:
    """One SSH connection to a machine, and a new one whenever it is lost, until `close`.

    Parameters
    ----------
    to
        The machine.
    changed
        Called with None when the connection is up again, and with the reason when it was lost.

    Attributes
    ----------
    to
        The machine.
    """

    def __init__(self, to: Destination, *, changed: Callable[[str | None], object] = lambda _: None) -> None:
        self.to = to
        self._changed = changed
        self._connection: asyncssh.SSHClientConnection | None = None
        self._up = asyncio.Event()
        self._refused: Refused | None = None
        self._sessions = asyncio.Semaphore(SESSIONS)
        self._keeper: asyncio.Task[None] | None = None
        self._servers: dict[int, asyncio.Server] = {}

    async def open(self, patience: float = 0.0) -> Self:
        """Connect; for `patience` seconds try again what may pass. From then on the connection is kept up.

        Raises
        ------
        Refused
            Trying again cannot help.
        Unreachable
            It does not answer.
        """
        clock = asyncio.get_running_loop().time
        until, attempt = clock() + patience, 0
        while True:
            try:
                self._connection = await _connect(self.to)
                break
            except Refused:
                raise
            except Unreachable:
                attempt += 1
                wait = pause(attempt, random.random())
                if clock() + wait > until:
                    raise
                await asyncio.sleep(wait)
        self._up.set()
        self._keeper = asyncio.create_task(self._keep())
        return self

    @property
    def is_up(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._up.is_set()

    async def up(self, within: float = WITHIN) -> None:
        """Wait until there is a connection.

        Raises
        ------
        Lost
            There is none within so many seconds.
        Refused
            There will be none.
        """
        await self._current(within)

    async def run(self, command: str | Sequence[str], *, stdin: bytes = b"", within: float = WITHIN) -> Ran:
        """Run a command, a line of shell or a list of words, to its end. Cancelling it lets go of it.

        Raises
        ------
        Lost
            The connection was cut, or there was none within so many seconds.
        """
        connection = await self._current(within)
        async with self._sessions:
            with _lost(self.to):
                done = await connection.run(_line(command), input=stdin, encoding=None)
        if done.returncode is None:
            raise Lost(f"{self.to}: the connection was lost during a command")
        return Ran(done.returncode, _text(done.stdout), _text(done.stderr))

    async def start(
        self, command: str | Sequence[str], *, stdin: bytes = b"", within: float = WITHIN
    ) -> "RemoteProcess":
        """Start a command whose output is read line by line. Its standard input is `stdin`, then ends.

        It is told nothing when the connection is lost; what it prints then is lost too.

        Raises
        ------
        Lost
            The connection was cut, or there was none within so many seconds.
        """
        connection = await self._current(within)
        await self._sessions.acquire()
        try:
            with _lost(self.to):
                process = await connection.create_process(_line(command), encoding=None)
                process.stdin.write(stdin)
                process.stdin.write_eof()
        except BaseException:
            self._sessions.release()
            raise
        return RemoteProcess(process, self.to, self._sessions.release)

    async def put(self, folder: str, files: Mapping[str, bytes], *, within: float = WITHIN) -> None:
        """Write files into a folder of that absolute path, readable by nobody else; each appears whole or not at all.

        Names may have folders in them. The folder is made with its parents if it is not there, as 0700.

        Raises
        ------
        Lost
            The connection was cut, or there was none within so many seconds.
        OSError
            The machine cannot write them: its disk is full, or the folder is not this user's alone.
        """
        connection = await self._current(within)
        async with self._sessions:
            with _lost(self.to):
                async with connection.start_sftp_client() as sftp:
                    folders = {PurePosixPath(folder, name).parent for name in files} | {PurePosixPath(folder)}
                    for each in sorted(folders):
                        await sftp.makedirs(str(each), asyncssh.SFTPAttrs(permissions=0o700), exist_ok=True)
                    for name, data in files.items():
                        path = str(PurePosixPath(folder, name))
                        async with sftp.open(path + ".part", "wb", asyncssh.SFTPAttrs(permissions=0o600)) as file:
                            await file.write(data)
                        await sftp.posix_rename(path + ".part", path)

    async def forward(self, port: int) -> int:
        """Return a port of 127.0.0.1 here that leads to `port` of 127.0.0.1 there, also after the connection was lost.

        Connecting to it always succeeds. If nothing listens over there, the connection ends at once: only an answer
        shows that something does.
        """

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncssh.Error, Unreachable):
                connection = await self._current(1.0)
                over, on = await connection.open_connection("127.0.0.1", port)
                await asyncio.gather(_pump(reader, on), _pump(over, writer))
            writer.transport.abort()

        if port not in self._servers:
            self._servers[port] = await asyncio.start_server(serve, "127.0.0.1", 0)
        return int(self._servers[port].sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Let go of the machine: connection and forwards are gone, what runs there goes on running."""
        if self._keeper is not None:
            self._keeper.cancel()
        for server in self._servers.values():
            server.close()
        if self._connection is not None:
            self._connection.abort()
            await self._connection.wait_closed()

    async def _current(self, within: float) -> asyncssh.SSHClientConnection:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._up.wait()
        if self._refused is not None:
            raise self._refused
        if self._connection is None or not self._up.is_set():
            raise Lost(f"{self.to}: no connection within {within:g} s")
        return self._connection

    async def _keep(self) -> None:
        attempt = 0
        while True:
            assert self._connection is not None
            await self._connection.wait_closed()
            self._up.clear()
            self._changed("the connection was lost")
            while not self._up.is_set():
                attempt += 1
                await asyncio.sleep(pause(attempt, random.random()))
                try:
                    self._connection = await _connect(self.to)
                    self._up.set()
                except Refused as refused:
                    self._refused = refused
                    self._changed(str(refused))
                    self._up.set()
                    return
                except Unreachable:
                    continue
            attempt = 0
            self._changed(None)


class RemoteProcess:
    """A command that runs on the machine, as `providers.provider.Process` wants it."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes], to: Destination, ended: Callable[[], object]) -> None:
        self._process, self._to = process, to
        self._end = asyncio.create_task(self._wait(ended))

    async def lines(self) -> AsyncIterator[tuple[str, str]]:
        """Yield what it prints, line by line, until it ends or the connection is lost."""
        queue: asyncio.Queue[tuple[str, str] | None] = asyncio.Queue(1000)

        async def pump(name: str, stream: asyncssh.SSHReader[bytes]) -> None:
            try:
                while data := await stream.readline():
                    await queue.put((name, _text(data).rstrip("\n")))
            finally:
                await queue.put(None)

        streams = {"stdout": self._process.stdout, "stderr": self._process.stderr}
        pumps = [asyncio.create_task(pump(name, stream)) for name, stream in streams.items()]
        try:
            for _ in pumps:
                while (line := await queue.get()) is not None:
                    yield line
        finally:
            for task in pumps:
                task.cancel()

    async def wait(self) -> int:
        """Return its exit code, once it has ended.

        Raises
        ------
        Lost
            The connection was cut before that.
        """
        return await asyncio.shield(self._end)

    async def _wait(self, ended: Callable[[], object]) -> int:
        await self._process.wait_closed()
        ended()
        if self._process.returncode is None:
            raise Lost(f"{self._to}: the connection was lost during a command")
        return self._process.returncode

    def close(self) -> None:
        """Let go of it; it is told nothing, but can print no more."""
        self._process.close()


class TunnelHost:
    """A machine at the end of a tunnel, as `providers.provider.Host` wants it."""

    tethered = False
    shares_memory = False

    def __init__(self, tunnel: Tunnel, folder: str, python: str) -> None:
        self.via, self.folder, self.python = tunnel, folder, python

    async def write(self, files: Mapping[str, bytes]) -> None:
        """Write files into the folder, readable by nobody else."""
        await self.via.put(self.folder, files)

    async def start(self, command: Sequence[str]) -> RemoteProcess:
        """Start a command."""
        return await self.via.start(command)

    async def tunnel(self, port: int) -> int:
        """Return a port of 127.0.0.1 here that leads to `port` of 127.0.0.1 there."""
        return await self.via.forward(port)

    async def close(self) -> None:
        """Let go of the machine. What runs on it goes on running."""
        await self.via.close()


async def _connect(to: Destination) -> asyncssh.SSHClientConnection:
    more: dict[str, Any] = {}
    if to.keys:
        more["client_keys"] = list(to.keys)
    if not to.agent:
        more["agent_path"] = None
    if to.jump is not None:
        more["tunnel"] = to.jump or None
    if to.alias is not None:
        more["host_key_alias"] = to.alias
    try:
        return await asyncssh.connect(
            to.host,
            to.port if to.port is not None else (),
            username=to.user if to.user is not None else (),
            config=list(to.config) if to.config is not None else (),
            known_hosts=to.trust.encode() if to.trust is not None else (),
            encryption_algs="^aes128-gcm@openssh.com,aes256-gcm@openssh.com",
            compression_algs=None,
            connect_timeout=5,
            login_timeout=15,
            keepalive_interval=2,
            keepalive_count_max=3,
            **more,
        )
    except (asyncssh.HostKeyNotVerifiable, asyncssh.PermissionDenied) as error:
        raise Refused(f"{to}: {error}") from error
    except (OSError, asyncssh.Error) as error:
        raise Unreachable(f"{to}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _lost(to: Destination) -> Any:
    try:
        yield
    except asyncssh.SFTPConnectionLost as error:
        raise Lost(f"{to}: {error}") from error
    except asyncssh.SFTPError as error:
        raise OSError(f"{to}: {error}") from error
    except (asyncssh.Error, ConnectionError) as error:
        raise Lost(f"{to}: {type(error).__name__}: {error}") from error


async def _pump(reader: Any, writer: Any) -> None:
    while data := await reader.read(1 << 18):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def _line(command: str | Sequence[str]) -> str:
    return command if isinstance(command, str) else shlex.join(command)


def _text(data: Any) -> str:
    return os.fsdecode(data) if isinstance(data, str) else bytes(data or b"").decode(errors="replace")
