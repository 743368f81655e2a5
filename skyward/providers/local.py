"""Nodes on this machine: real node processes, for development, for tests, and to use all its cores."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import stat
import sys
import tempfile
import threading
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, PrivateAttr

from skyward.config.validation import StrictModel, existing_folder, refused
from skyward.errors import ProvisioningError, explain
from skyward.providers import health_checks, scratch
from skyward.providers.health_checks import Finding, HostRequirements
from skyward.providers.provider import Content, Instance, Order
from skyward.providers.streams import merged_lines

log = logging.getLogger("skyward")

TERMINATE_TIMEOUT_S = 9.0
"""Seconds that a node has to shut itself down before it is killed: longer than the node gives its own processes."""

_SPAWNING = threading.Lock()


def _writable(value: object) -> object:
    """Return the folder for scratch folders, or None for the system's; check that this user may write there."""
    folder = existing_folder(value)
    if folder is None:
        try:
            tempfile.gettempdir()
        except FileNotFoundError:
            problem = "none of the usual folders for temporary files can be written (TMPDIR, /tmp, /var/tmp)"
            raise refused(problem, "set TMPDIR to a folder of your own, or give folder=") from None
    elif isinstance(folder, Path) and not os.access(folder, os.W_OK | os.X_OK):
        raise refused("you may not write into this folder")
    return folder


class Local(StrictModel):
    """Node processes on this machine, each a process group of its own with a scratch folder.

    Attributes
    ----------
    folder
        Folder for the scratch folders; by default the system's folder for temporary files.
    """

    synonyms: ClassVar[Mapping[str, str]] = {
        "folder": "path dir directory tmp tmpdir tempdir scratch root",
        "it is an argument of Compute: sky.Compute(nodes=...)": "nodes n count n_nodes",
        "it is an argument of Worker: sky.Worker(concurrency=...)": "slots concurrency cpus cores workers n_jobs",
    }

    folder: Annotated[Path | None, BeforeValidator(_writable)] = Field(
        default=None, validate_default=True, description="give a folder", examples=["'/tmp'"]
    )

    _locks: dict[str, int] = PrivateAttr(default_factory=dict)
    _pools: set[str] = PrivateAttr(default_factory=set)
    _commands: dict[str, list[asyncio.Task[Process]]] = PrivateAttr(default_factory=dict)

    @property
    def name(self) -> str:
        """`local`."""
        return "local"

    @property
    def bare(self) -> bool:
        """No: local nodes use the environment of this program."""
        return False

    @property
    def _root(self) -> Path:
        return (self.folder or Path(tempfile.gettempdir())).absolute()

    async def launch(self, order: Order) -> Instance:
        """Make the scratch folder of the node."""
        if order.pool not in self._pools:
            self._pools.add(order.pool)
            await asyncio.to_thread(self._clear_abandoned, order.pool)
        path = self._root / f"skyward-{order.name}"
        try:
            path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ProvisioningError(f"cannot make a folder for a local node: {explain(error)}") from error
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise ProvisioningError(f"{path} exists and is not a folder of this user alone")
        try:
            self._locks[str(path)] = scratch.lock(path)
        except OSError as error:
            with contextlib.suppress(OSError):  # which is empty; needs no descriptor
                path.rmdir()
            raise ProvisioningError(f"cannot write into the folder of a local node: {explain(error)}") from error
        return Instance(str(path), order.pool, order.name, socket.gethostname())

    def _clear_abandoned(self, pool: str) -> None:
        try:
            for path, error in scratch.clear_abandoned(self._root, pool):
                if error is None:
                    log.info("%s was left by a pool that was killed; it is removed", path)
                else:
                    log.warning("%s was left by a pool that was killed and cannot be removed: %s", path, error)
        except OSError as error:
            log.debug("cannot look for folders of pools that were killed: %s", error)

    async def reach(self, instance: Instance) -> "LocalHost":
        """Return this machine."""
        return LocalHost(Path(instance.id), self._commands.setdefault(instance.id, []))

    async def find(self, pool: str) -> Sequence[Instance]:
        """Return the nodes of the pool whose folder exists, running or not: there is a key in it."""
        host = socket.gethostname()
        paths = sorted(self._root.glob(f"skyward-{pool}-*"))
        return [Instance(str(path), pool, path.name.removeprefix("skyward-"), host) for path in paths]

    async def examine(self, needs: HostRequirements) -> Mapping[str, Sequence[Finding]]:
        """Check whether this machine can run nodes."""
        text = health_checks.script(needs, str(self._root))
        ran = await _spawned("/bin/sh", "-c", text, stdout=asyncio.subprocess.PIPE)
        told, _ = await ran.communicate()
        return {"here": health_checks.judged(told.decode(errors="replace"), needs, bare=False)}

    async def terminate(self, instance: Instance) -> None:
        """Ask the node to stop, kill it after `TERMINATE_TIMEOUT_S`, and remove its folder.

        Raises
        ------
        OSError
            It may still be running, or its folder cannot be removed.
        """
        path = Path(instance.id)
        processes = await _processes(self._commands.get(instance.id, ()))
        group = _group(path)
        for process in processes:
            _close_stdin(process)
            if group is not None:  # before that, a signal would end only one of the node's processes
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
        running = await _still_running(processes)
        if (group := group or _group(path)) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        if running := await _still_running([each for each in running if _kill(each)]):
            raise TimeoutError(f"process {running[0].pid} of a local node may still be running")
        scratch.remove(path)
        self._commands.pop(instance.id, None)
        if (held := self._locks.pop(str(path), None)) is not None:
            os.close(held)


class LocalHost:
    """This machine as the host of one node.

    Parameters
    ----------
    path
        The node's scratch folder.
    commands
        Where the commands that are started are noted, for whoever terminates them.
    """

    tethered = True
    shares_memory = sys.platform == "linux"

    def __init__(self, path: Path, commands: list[asyncio.Task[Process]]) -> None:
        self.folder = str(path)
        self.python = sys.executable
        self._path, self._commands = path, commands

    async def write(self, files: Mapping[str, Content]) -> None:
        """Write files into the scratch folder, which must exist; names may contain folders."""
        await asyncio.to_thread(self._write, files)

    def _write(self, files: Mapping[str, Content]) -> None:
        for name, data in files.items():
            path = self._path / name
            for folder in reversed(Path(name).parents[:-1]):  # not the scratch folder itself, which may be gone
                (self._path / folder).mkdir(mode=0o700, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)

    async def start(self, command: Sequence[str]) -> "LocalProcess":
        """Start a command with this program's import path, in a session of its own, out of reach of Ctrl-C here."""
        spawned = _spawned(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            start_new_session=True,
            limit=1 << 20,
        )
        self._commands.append(asyncio.create_task(spawned))
        return LocalProcess(await asyncio.shield(self._commands[-1]))  # a process that is half started cannot be ended

    async def tunnel(self, port: int) -> int:
        """Return the port itself."""
        return port

    async def close(self) -> None:
        """Close the standard input of what was started, which tells a node to end."""
        for process in await _processes(self._commands):
            _close_stdin(process)


class LocalProcess:
    """A command running on this machine."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def lines(self) -> AsyncIterator[tuple[str, str]]:
        """Yield its output, line by line, until it ends."""
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None
        assert stderr is not None
        return merged_lines({"stdout": partial(_line, stdout), "stderr": partial(_line, stderr)})

    async def wait(self) -> int:
        """Return its exit code, once it has ended."""
        return await self._process.wait()


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Return the next line, or as much of a very long one as the buffer holds."""
    try:
        return await stream.readuntil()
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.read(error.consumed)


async def _spawned(*command: str, **how: Any) -> Process:
    """Start a process. uvloop cannot do this in two loops at once: the second one leaks its pipes."""
    while not _SPAWNING.acquire(blocking=False):  # noqa: ASYNC110 - its holder may be of this loop
        await asyncio.sleep(0.001)
    try:
        return await asyncio.create_subprocess_exec(*command, **how)
    except OSError as error:
        if error.errno is not None and error.errno < 0:  # uvloop 0.23 loses the number when it cannot make a pipe
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error
        raise
    finally:
        _SPAWNING.release()


def _group(path: Path) -> int | None:
    """Return the process group of a node, once it has started."""
    try:
        _, group = (path / "pids").read_text().split()
        return int(group)
    except (FileNotFoundError, ValueError):
        return None


async def _processes(commands: Sequence[asyncio.Task[Process]]) -> list[Process]:
    """Return the processes of these commands, without those that could not be started."""
    if commands:
        await asyncio.wait(commands)
    return [each.result() for each in commands if not each.cancelled() and each.exception() is None]


async def _still_running(processes: Sequence[Process]) -> list[Process]:
    """Wait until these have ended; return those that have not after `TERMINATE_TIMEOUT_S`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TERMINATE_TIMEOUT_S):
            for process in processes:
                await process.wait()
    return [each for each in processes if each.returncode is None]


def _kill(process: Process) -> bool:
    """Kill a process; return False if it was already gone because other code of this program has waited for it."""
    try:
        process.kill()
    except ProcessLookupError:
        return False
    return True


def _close_stdin(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
