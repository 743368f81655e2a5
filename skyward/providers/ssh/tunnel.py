"""A tunnel to one machine: an SSH connection for commands, files and port forwards that reconnects when it is lost."""

import asyncio
import contextlib
import logging
import math
import shlex
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self

import asyncssh
from asyncssh.constants import OPEN_ADMINISTRATIVELY_PROHIBITED

from skyward.errors import Unreachable
from skyward.providers.batching import side_by_side
from skyward.providers.provider import Content
from skyward.providers.ssh import scripts, sftp
from skyward.providers.ssh.forward import Forward, RelayEnd
from skyward.providers.ssh.login import login
from skyward.providers.ssh.remote_command import END_TIMEOUT_S, RemoteProcess, begin
from skyward.providers.ssh.target import Lost as Lost
from skyward.providers.ssh.target import Ran as Ran
from skyward.providers.ssh.target import Refused as Refused
from skyward.providers.ssh.target import Target as Target
from skyward.providers.ssh.tcp_info import closed, traffic
from skyward.retry import backoff, jittered, retry

log = logging.getLogger("skyward")

WINDOW_BYTES = 2 << 20
"""Receive window of a channel, the same as OpenSSH's. In `python -m bench tunnel`, 1, 2 and 8 MiB are equally fast, but
a larger window costs memory when the receiver is slow. At a round trip of 80 ms it limits a channel to 26 MB/s."""

MAX_PACKET_BYTES = 128 << 10
"""Largest packet that sshd may send. In `python -m bench tunnel`, the usual 32 KiB reached 0.74 times the speed of
`ssh -L`, and 64 to 224 KiB about 0.9 times. In the other direction sshd sets the limit: 32 KiB."""

MAX_SESSIONS = 8
"""Commands and file transfers at the same time; sshd allows 10 per connection by default."""

RECONNECT_S = 10.0
"""Seconds that a command waits while the connection is down."""

CLOSE_S = 1.0
"""Seconds that `close` waits for commands to end, and then for the connection to close."""

FORWARD_WAIT_S = 1.0
"""Seconds that a client of a forwarded port waits while the connection is down."""


class Tunnel:
    """An SSH connection to a machine. Until `close`, it is opened again whenever it is lost.

    Parameters
    ----------
    to
        The machine.
    changed
        Called with the reason when the connection is lost, and with None when it is up again.
    """

    def __init__(self, to: Target, *, changed: Callable[[str | None], object] = lambda _: None) -> None:
        self.to = to
        self._changed = changed
        self._connection: asyncssh.SSHClientConnection | None = None
        self._over: Unreachable | None = None
        self._settled = asyncio.Event()  # connected, or given up
        self._sessions = asyncio.Semaphore(MAX_SESSIONS)
        self._processes: set[RemoteProcess] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._forwards: dict[int, Forward] = {}
        self._forwarding = asyncio.Lock()

    async def open(self, patience: float = 0.0) -> Self:
        """Connect, retrying temporary failures for `patience` seconds. From then on, a lost connection is reopened.

        Raises
        ------
        Refused
            Retrying would not help.
        Unreachable
            The machine does not answer.
        """
        self._connection = await self._login(jittered(backoff()), patience)
        self._settled.set()
        self._keeper = asyncio.create_task(self._keep(self._connection))
        return self

    def acknowledged(self) -> int:
        """Return the number of bytes that the machine has acknowledged on this connection; 0 if unknown."""
        counts = None if self._connection is None else traffic(self._connection.get_extra_info("socket"))
        return 0 if counts is None else counts.acknowledged

    async def up(self, within: float = RECONNECT_S) -> None:
        """Wait for the connection. Raise `Lost` if it is not up in time, `Refused` if it will not be opened again."""
        await self._current(within)

    async def run(self, command: str | Sequence[str], *, stdin: bytes = b"", within: float = RECONNECT_S) -> Ran:
        """Run a command, given as a shell command line or a list of words, and wait for it. Cancelling kills it.

        Raises
        ------
        Lost
            The connection was lost, or was not up within `within` seconds.
        """
        process = await self.start(command, stdin=stdin, within=within)
        try:
            with self._losing():
                return await process.ran()
        finally:
            process.close()

    async def start(
        self, command: str | Sequence[str], *, stdin: bytes = b"", within: float = RECONNECT_S
    ) -> RemoteProcess:
        """Start a command whose output is read line by line. Its standard input is `stdin`.

        If the connection is lost, the command goes on, but its output is lost as well.

        Raises
        ------
        Lost
            The connection was lost, or was not up within `within` seconds.
        """
        line = command if isinstance(command, str) else shlex.join(command)
        asked: list[asyncio.Future[asyncssh.SSHClientProcess[bytes]]] = []

        async def ask(connection: asyncssh.SSHClientConnection) -> asyncssh.SSHClientProcess[bytes]:
            asked[:] = [asyncio.ensure_future(begin(connection, line))]
            return await asyncio.shield(asked[0])

        await self._sessions.acquire()
        try:
            process = self._wrap(await self._opened(ask, within))
        except BaseException:
            if asked:  # sshd may still start it
                asked[0].add_done_callback(self._forget)
            else:
                self._sessions.release()
            raise
        process.feed(stdin)
        return process

    async def put(self, folder: str, files: Mapping[str, Content], *, within: float = RECONNECT_S) -> None:
        """Write files into a folder, given by its absolute path, readable only by this user. Each write is atomic.

        Names may contain folders. The folder and its parents are created if needed, with mode 0700. Without SFTP,
        shell commands write the files.

        Raises
        ------
        Lost
            The connection was lost, or was not up within `within` seconds.
        OSError
            The files cannot be written: the disk is full, or other users have access to the folder.
        """
        try:
            async with self._sessions:
                client = await self._opened(sftp.begin, within)
                with self._losing():
                    async with client:
                        await sftp.put(client, folder, files)
        except sftp.NoSFTP as missing:
            log.debug("%s: writing files with shell commands: %s", self.to, missing)
            await self._checked(scripts.make(sftp.folders(folder, files)), b"", within)
            await side_by_side(
                *(
                    self._checked(scripts.write(f"{folder}/{name}", len(data)), data[:], within)
                    for name, data in files.items()
                )
            )

    async def forward(self, port: int) -> int:
        """Return a port of 127.0.0.1 here that forwards to `port` of 127.0.0.1 there, also after a reconnect.

        Connecting to it always succeeds; if nothing listens there, the connection is closed immediately.
        """

        async def through(session: Callable[[], RelayEnd]) -> None:
            try:
                connection = await self._current(FORWARD_WAIT_S)
                made: Any = session  # it has the methods of `asyncssh.SSHTCPSession`, but not the base class
                await connection.create_connection(
                    made, "127.0.0.1", port, window=WINDOW_BYTES, max_pktsize=MAX_PACKET_BYTES
                )
            except (asyncssh.Error, Unreachable) as error:
                raise ConnectionError(str(error)) from error

        async with self._forwarding:
            if port not in self._forwards:
                self._forwards[port] = await Forward(through).open()
        return self._forwards[port].port

    async def probe(self) -> float:
        """Return the round trip time to the machine in seconds.

        Raises
        ------
        PermissionError
            sshd does not allow port forwarding.
        """
        connection = await self._current(RECONNECT_S)
        began = asyncio.get_running_loop().time()
        try:
            with self._losing():
                _, writer = await connection.open_connection("127.0.0.1", 1)  # where nothing normally listens
            writer.close()
        except Lost as lost:
            if (refused := self._refused(lost)) is None:
                raise
            if refused.code == OPEN_ADMINISTRATIVELY_PROHIBITED:
                raise PermissionError(f"{self.to}: sshd does not forward connections") from refused
        return asyncio.get_running_loop().time() - began

    async def has_sftp(self) -> bool:
        """Return whether `put` can use SFTP."""
        async with self._sessions:
            try:
                client = await self._opened(sftp.begin, RECONNECT_S)
            except sftp.NoSFTP:
                return False
            client.exit()
            return True

    async def close(self) -> None:
        """Close the connection and its forwards, and kill its commands; detached commands continue."""
        for process in [*self._processes]:
            process.close()
        if self._processes and self._connection is not None:
            await asyncio.wait([asyncio.create_task(each.closed()) for each in self._processes], timeout=CLOSE_S)
        self._over = self._over or Lost(f"{self.to}: the tunnel was closed")
        self._settled.set()
        if self._keeper is not None:
            self._keeper.cancel()
        for forward in self._forwards.values():
            await forward.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(connection.wait_closed(), CLOSE_S)
            connection.abort()

    async def _checked(self, command: str, stdin: bytes, within: float) -> None:
        ran = await self.run(command, stdin=stdin, within=within)
        if ran.code:
            raise OSError(f"{self.to}: {ran.stderr.strip() or f'exit code {ran.code}'}")

    def _wrap(self, process: asyncssh.SSHClientProcess[bytes]) -> RemoteProcess:
        wrapped = RemoteProcess(process, self.to, self._signal, self._ended)
        self._processes.add(wrapped)
        return wrapped

    def _forget(self, asked: asyncio.Future[asyncssh.SSHClientProcess[bytes]]) -> None:
        """Kill a command whose caller was cancelled while it was being started."""
        if asked.cancelled() or asked.exception() is not None:
            self._sessions.release()
        else:
            self._wrap(asked.result()).close()

    def _ended(self, process: RemoteProcess) -> None:
        self._processes.discard(process)
        self._sessions.release()

    async def _signal(self, script: str) -> None:
        """Run a shell command that kills another command; it does not count towards `MAX_SESSIONS`."""
        session = await self._opened(lambda connection: connection.create_process(script), END_TIMEOUT_S)
        try:
            await session.wait()
        finally:
            session.close()

    async def _opened[T](self, opening: Callable[[asyncssh.SSHClientConnection], Awaitable[T]], within: float) -> T:
        """Open a session; retry if sshd refuses another one, as it may still count those that have just ended."""

        async def attempt() -> T:
            connection = await self._current(within)
            with self._losing():
                return await opening(connection)

        return await retry(
            attempt,
            on=lambda error: isinstance(error, Lost) and self._refused(error) is not None,
            delays=jittered(backoff()),
            within=within,
        )

    def _refused(self, error: Exception) -> asyncssh.ChannelOpenError | None:
        """Return sshd's refusal to open a channel, or None if the connection was lost."""
        is_open = self._connection is not None and not self._connection.is_closed()
        return error.__cause__ if is_open and isinstance(error.__cause__, asyncssh.ChannelOpenError) else None

    async def _login(self, delays: Iterator[float], within: float = math.inf) -> asyncssh.SSHClientConnection:
        """Connect; retry temporary failures for `within` seconds."""
        return await retry(
            partial(login, self.to),
            on=lambda error: isinstance(error, Unreachable) and not isinstance(error, Refused),
            delays=delays,
            within=within,
        )

    async def _current(self, within: float) -> asyncssh.SSHClientConnection:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), within)
        if self._over is not None:
            raise self._over
        if self._connection is None:
            raise Lost(f"{self.to}: no connection within {within:g} s")
        return self._connection

    async def _keep(self, connection: asyncssh.SSHClientConnection) -> None:
        """Reconnect whenever the connection is lost."""
        try:
            await self._kept(connection)
        except Exception as error:
            log.exception("%s: the tunnel failed", self.to)
            self._over = Unreachable(f"{self.to}: the tunnel failed: {type(error).__name__}: {error}")
            self._settled.set()
            if self._connection is not None:
                self._connection.abort()
                self._connection = None
            self._changed(str(self._over))

    async def _kept(self, connection: asyncssh.SSHClientConnection) -> None:
        while self._over is None:
            await closed(connection)
            self._connection = None
            self._settled.clear()
            log.info("%s: the connection was lost", self.to)
            self._changed("the connection was lost")
            delays = jittered(backoff())
            await asyncio.sleep(next(delays))
            try:
                self._connection = connection = await self._login(delays)
            except Refused as refused:
                self._over = refused
            self._settled.set()
            log.info("%s: %s", self.to, self._over or "connected again")
            self._changed(str(self._over) if self._over else None)

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        """Raise errors of asyncssh as `Lost`, or as `OSError` if the machine refuses a file operation."""
        try:
            yield
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
            raise Lost(f"{self.to}: {error}") from error
        except asyncssh.SFTPError as error:
            raise OSError(f"{self.to}: {error}") from error
        except (asyncssh.Error, ConnectionError) as error:
            raise Lost(f"{self.to}: {error}") from error
