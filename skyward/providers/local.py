"""Nodes on this machine: real node processes, for development, for tests, and for using all its cores."""

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
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, PrivateAttr

from skyward.config.validation import StrictModel, existing_folder, refused
from skyward.errors import ProvisioningError, explain
from skyward.providers import health_checks, scratch
from skyward.providers.health_checks import Finding, Needs
from skyward.providers.provider import Content, Instance, Order
from skyward.providers.streams import merged

log = logging.getLogger("skyward")

TERMINATE_TIMEOUT_S = 2.0
"""Seconds that a node has to shut itself down before it is killed."""

_SPAWNING = threading.Lock()


def _writable(value: object) -> object:
    """Return the folder for scratch folders, None for that of temporary files; this user may write there."""
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

    @property
    def name(self) -> str:
        """`local`."""
        return "local"

    @property
    def bare(self) -> bool:
        """No: they have what this program has."""
        return False

    @property
    def _root(self) -> Path:
        return (self.folder or Path(tempfile.gettempdir())).absolute()

    @property
    def notices(self) -> str:
        """None."""
        return ""

    async def launch(self, order: Order) -> Instance:
        """Make the scratch folder, which is all that the machine of a local node consists of."""
        if order.pool not in self._pools:
            self._pools.add(order.pool)
            await asyncio.to_thread(self._clear_abandoned, order.pool)
        path = self._root / f"skyward-{order.node}"
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
            with contextlib.suppress(OSError):  # it is empty, and this needs no descriptor
                path.rmdir()
            raise ProvisioningError(f"cannot write into the folder of a local node: {explain(error)}") from error
        return Instance(str(path), order.pool, order.node, socket.gethostname())

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
        return LocalHost(Path(instance.id))

    async def find(self, pool: str) -> Sequence[Instance]:
        """Return the nodes of the pool whose folder is there: it has a key in it, whether the node lives or not."""
        host = socket.gethostname()
        paths = sorted(self._root.glob(f"skyward-{pool}-*"))
        return [Instance(str(path), pool, path.name.removeprefix("skyward-"), host) for path in paths]

    async def examine(self, needs: Needs) -> Mapping[str, Sequence[Finding]]:
        """Say whether this machine can have nodes."""
        text = health_checks.script(needs, str(self._root))
        ran = await _spawned("/bin/sh", "-c", text, stdout=asyncio.subprocess.PIPE)
        told, _ = await ran.communicate()
        return {"here": health_checks.judged(told.decode(errors="replace"), needs, bare=False)}

    async def terminate(self, instance: Instance) -> None:
        """Ask the node's leash to stop the node, kill the node after two seconds, and remove its folder.

        Raises
        ------
        OSError
            It may still be running, or its folder cannot be removed.
        """
        path = Path(instance.id)
        leash, group = _pids(path)
        if leash is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(leash, signal.SIGTERM)
            await _has_ended(leash)
            for kill, pid in ((os.killpg, group), (os.kill, leash)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(pid, signal.SIGKILL)
            if not await _has_ended(leash):
                raise TimeoutError(f"process {leash}, the leash of a local node, may still be running")
        scratch.remove(path)
        if (held := self._locks.pop(str(path), None)) is not None:
            os.close(held)

    async def clear(self, pool: str) -> Sequence[str]:
        """Do nothing: nodes share nothing that has to be removed."""
        return ()


class LocalHost:
    """This machine as the host of one node."""

    tethered = True
    shares_memory = sys.platform == "linux"

    def __init__(self, path: Path) -> None:
        self.folder = str(path)
        self.python = sys.executable
        self._path = path
        self._processes: list[asyncio.subprocess.Process] = []

    async def write(self, files: Mapping[str, Content]) -> None:
        """Write files into the scratch folder, which must be there; names may have folders in them."""
        await asyncio.to_thread(self._write, files)

    def _write(self, files: Mapping[str, Content]) -> None:
        for name, data in files.items():
            path = self._path / name
            for folder in reversed(Path(name).parents[:-1]):  # not the scratch folder itself, which may just be removed
                (self._path / folder).mkdir(mode=0o700, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)

    async def start(self, command: Sequence[str]) -> "LocalProcess":
        """Start a command in a session of its own, so that Ctrl-C here does not reach it; it imports what we can."""
        process = await _spawned(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            start_new_session=True,
            limit=1 << 20,
        )
        self._processes.append(process)
        return LocalProcess(process)

    async def tunnel(self, port: int) -> int:
        """Return the port itself."""
        return port

    async def close(self) -> None:
        """Close the standard input of what was started, by which a node knows that its driver is done with it."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()


class LocalProcess:
    """A command running on this machine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def lines(self) -> AsyncIterator[tuple[str, str]]:
        """Yield what it prints, line by line, until it ends."""
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None
        assert stderr is not None
        return merged({"stdout": partial(_line, stdout), "stderr": partial(_line, stderr)})

    async def wait(self) -> int:
        """Return its exit code, once it has ended."""
        return await self._process.wait()


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or as much of a very long one as the reader holds."""
    try:
        return await stream.readuntil()
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.read(error.consumed)


async def _spawned(*command: str, **how: Any) -> asyncio.subprocess.Process:
    """Start a process. uvloop cannot do that in two loops at a time: the one that is second leaks its pipes."""
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


def _pids(path: Path) -> tuple[int | None, int]:
    """The pids of a node's leash and of its process group, once it has started."""
    try:
        leash, group = (path / "pids").read_text().split()
        return int(leash), int(group)
    except (FileNotFoundError, ValueError):
        return None, 0


async def _has_ended(pid: int) -> bool:
    """Wait until a process has ended; false if it has not within `TERMINATE_TIMEOUT_S`."""
    deadline = asyncio.get_running_loop().time() + TERMINATE_TIMEOUT_S
    while _alive(pid):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def _alive(pid: int) -> bool:
    """Whether the process may still run: it has ended only if it was seen to be gone, or to wait for its parent."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it has just gone, there is no /proc, or no descriptor is left to look: the next look says more
        return True
