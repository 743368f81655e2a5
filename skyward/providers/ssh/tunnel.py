"""A tunnel to one machine: one SSH connection for commands, files and forwards, which reconnects when it was cut.

With `login`, which makes the connection, `sftp`, which writes files, and `remote_command`, which runs commands, the
only one that imports asyncssh.
"""

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

WINDOW = 2 << 20
"""Bytes under way to us on one channel: as many as OpenSSH grants us. By `python -m bench tunnel`, alone on two cores,
1 and 8 MiB came to 0.88 times `ssh -L` of the same cipher, and this to 0.88 and 0.96 in two runs: no difference. More
has to be held for whoever does not read; 80 ms away it is a limit of 26 MB/s for each connection."""

PACKET = 128 << 10
"""Bytes that sshd may put into one packet to us. The usual 32 KiB came to 0.74 times `ssh -L` of the same cipher, 64 to
0.93, 128 to 0.88 and 0.96, and 224 to 0.90. What we may send is sshd's to say: 32 KiB."""

SESSIONS = 8
"""Commands and file transfers at once: sshd refuses the eleventh of a connection by default."""

WITHIN = 10.0
"""Seconds that a command waits for a connection that is down."""

GOODBYE_S = 1.0
"""Seconds that `close` waits for commands to end, and for the connection."""

HOLD = 1.0
"""Seconds that somebody who connects to a forward waits for it."""


class Tunnel:
    """One SSH connection to a machine, and a new one whenever it is lost, until `close`.

    Parameters
    ----------
    to
        The machine.
    changed
        Called with None when the connection is up again, and with the reason when it was lost.
    """

    def __init__(self, to: Target, *, changed: Callable[[str | None], object] = lambda _: None) -> None:
        self.to = to
        self._changed = changed
        self._connection: asyncssh.SSHClientConnection | None = None
        self._over: Unreachable | None = None
        self._settled = asyncio.Event()  # there is a connection, or there will be none
        self._sessions = asyncio.Semaphore(SESSIONS)
        self._processes: set[RemoteProcess] = set()
        self._keeper: asyncio.Task[None] | None = None
        self._forwards: dict[int, Forward] = {}
        self._forwarding = asyncio.Lock()

    async def open(self, patience: float = 0.0) -> Self:
        """Connect, retrying temporary failures for `patience` seconds. After that the connection is kept up.

        Raises
        ------
        Refused
            Trying again would not help.
        Unreachable
            It does not answer.
        """
        self._connection = await self._login(jittered(backoff()), patience)
        self._settled.set()
        self._keeper = asyncio.create_task(self._keep(self._connection))
        return self

    @property
    def is_up(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    def acknowledged(self) -> int:
        """Bytes that the machine has received over this connection, as far as is known."""
        told = None if self._connection is None else traffic(self._connection.get_extra_info("socket"))
        return 0 if told is None else told.acknowledged

    async def up(self, within: float = WITHIN) -> None:
        """Wait until there is a connection. Raise `Lost` if there is none in time, `Refused` if there will be none."""
        await self._current(within)

    async def run(self, command: str | Sequence[str], *, stdin: bytes = b"", within: float = WITHIN) -> Ran:
        """Run a command, a line of shell or a list of words, and wait for it. Cancelling this kills the command.

        Raises
        ------
        Lost
            The connection was cut, or there was none within so many seconds.
        """
        process = await self.start(command, stdin=stdin, within=within)
        try:
            with self._losing():
                return await process.ran()
        finally:
            process.close()

    async def start(self, command: str | Sequence[str], *, stdin: bytes = b"", within: float = WITHIN) -> RemoteProcess:
        """Start a command whose output is read line by line. Its standard input is `stdin`, then ends.

        It is not notified when the connection is lost, and its output during that time is lost as well.

        Raises
        ------
        Lost
            The connection was cut, or there was none within so many seconds.
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
            if asked:  # sshd may start it all the same
                asked[0].add_done_callback(self._forget)
            else:
                self._sessions.release()
            raise
        process.feed(stdin)
        return process

    async def put(self, folder: str, files: Mapping[str, Content], *, within: float = WITHIN) -> None:
        """Write files into a folder, given by its absolute path, readable only by this user; each appears whole or not
        at all.

        Names may contain folders. The folder is created with its parents if needed, with mode 0700. Without SFTP,
        commands write the files.

        Raises
        ------
        Lost
            The connection was cut, or there was none within so many seconds.
        OSError
            The machine cannot write them: its disk is full, or the folder is not this user's alone.
        """
        try:
            async with self._sessions:
                client = await self._opened(sftp.begin, within)
                with self._losing():
                    async with client:
                        await sftp.put(client, folder, files)
        except sftp.NoSFTP as missing:
            log.debug("%s: files are written by commands: %s", self.to, missing)
            await self._checked(scripts.make(sftp.folders(folder, files)), b"", within)
            await side_by_side(
                *(
                    self._checked(scripts.write(f"{folder}/{name}", len(data)), data[:], within)
                    for name, data in files.items()
                )
            )

    async def forward(self, port: int) -> int:
        """Return a local port on 127.0.0.1 that forwards to `port` on 127.0.0.1 there, also after a reconnect.

        Connecting to it always succeeds. If nothing listens there, the connection is closed at once: only an answer
        shows that something listens.
        """

        async def through(session: Callable[[], RelayEnd]) -> None:
            try:
                connection = await self._current(HOLD)
                made: Any = session  # a session of asyncssh but for its base class
                await connection.create_connection(made, "127.0.0.1", port, window=WINDOW, max_pktsize=PACKET)
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
            It does not forward connections, so `forward` cannot work.
        """
        connection = await self._current(WITHIN)
        began = asyncio.get_running_loop().time()
        try:
            with self._losing():
                _, writer = await connection.open_connection("127.0.0.1", 1)  # where nothing is wont to listen
            writer.close()
        except Lost as lost:
            refused = lost.__cause__
            if not isinstance(refused, asyncssh.ChannelOpenError) or connection.is_closed():
                raise
            if refused.code == OPEN_ADMINISTRATIVELY_PROHIBITED:
                raise PermissionError(f"{self.to}: sshd does not forward connections") from refused
        return asyncio.get_running_loop().time() - began

    async def has_sftp(self) -> bool:
        """Whether files go by SFTP, and not by commands."""
        async with self._sessions:
            try:
                client = await self._opened(sftp.begin, WITHIN)
            except sftp.NoSFTP:
                return False
            client.exit()
            return True

    async def close(self) -> None:
        """Close the connection, commands and forwards; detached commands continue."""
        for process in [*self._processes]:
            process.close()
        if self._processes and self._connection is not None:
            await asyncio.wait([asyncio.create_task(each.closed()) for each in self._processes], timeout=GOODBYE_S)
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
                async with asyncio.timeout(GOODBYE_S):
                    await connection.wait_closed()
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
        """Kill a command that nobody waits for any more, if it was started."""
        if asked.cancelled() or asked.exception() is not None:
            self._sessions.release()
        else:
            self._wrap(asked.result()).close()

    def _ended(self, process: RemoteProcess) -> None:
        self._processes.discard(process)
        self._sessions.release()

    async def _signal(self, script: str) -> None:
        """Run a line of shell that ends another command, beside the sessions that are counted."""
        session = await self._opened(lambda connection: connection.create_process(script), END_TIMEOUT_S)
        try:
            await session.wait()
        finally:
            session.close()

    async def _opened[T](self, opening: Callable[[asyncssh.SSHClientConnection], Awaitable[T]], within: float) -> T:
        """Open a session; again for a while if sshd has none left, as it may count those that have just ended."""
        clock, delays = asyncio.get_running_loop().time, jittered(backoff())
        until = clock() + within
        while True:
            connection = await self._current(within)
            try:
                with self._losing():
                    return await opening(connection)
            except Lost as error:
                full = isinstance(error.__cause__, asyncssh.ChannelOpenError) and not connection.is_closed()
                if not full or clock() > until:
                    raise
            await asyncio.sleep(next(delays))

    async def _login(self, delays: Iterator[float], within: float = math.inf) -> asyncssh.SSHClientConnection:
        """Connect, and try again for as long unless that cannot help."""
        return await retry(
            partial(login, self.to),
            on=lambda error: isinstance(error, Unreachable) and not isinstance(error, Refused),
            delays=delays,
            within=within,
        )

    async def _current(self, within: float) -> asyncssh.SSHClientConnection:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._settled.wait()
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
        """Tell a connection that was lost from a machine that cannot do what is asked."""
        try:
            yield
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection) as error:
            raise Lost(f"{self.to}: {error}") from error
        except asyncssh.SFTPError as error:
            raise OSError(f"{self.to}: {error}") from error
        except (asyncssh.Error, ConnectionError) as error:
            raise Lost(f"{self.to}: {error}") from error
