"""The scratch folders of local nodes: whether one is in use, and removing those that are not.

A folder is in use while a process holds a shared `flock` on its file `lock`: the driver until it has removed the
folder, and the parent process of the node. The kernel releases the lock however a process dies, and the lock works
across containers that share the file system, where a pid would mean another process.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = "lock"
"""The file in a scratch folder that is locked while the folder is in use, also by `skyward.remote.node`."""

MAX_REMOVE_ATTEMPTS = 100
"""How often removing a folder is tried while new files appear in it."""

FOLDER_NAME = re.compile(r"skyward-(?P<pool>\d{8}-[0-9a-f]{8})-\d+-\d+")
"""The name of a scratch folder; the pool's name consists of its start time and a random number."""


def lock(folder: Path) -> int:
    """Create the lock file of a new folder, and return the descriptor that holds the lock."""
    new = folder / f".{LOCK_FILE}"
    held = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # without a descriptor left, there is no file
    try:
        with contextlib.suppress(OSError):  # a file system without locks: it always counts as in use
            fcntl.flock(held, fcntl.LOCK_SH)
            new.rename(folder / LOCK_FILE)  # so that it is never seen unlocked
    except BaseException:
        os.close(held)
        raise
    return held


def remove(folder: Path) -> None:
    """Remove a folder and its content, even while processes that are about to end still write into it.

    Raises
    ------
    OSError
        Something in it, perhaps a key, cannot be removed.
    """

    def fail(_: object, path: str, error: BaseException) -> None:
        if not isinstance(error, FileNotFoundError):  # the node may remove it at the same time
            raise error

    for attempt in range(MAX_REMOVE_ATTEMPTS):
        try:
            shutil.rmtree(folder, onexc=fail)
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or attempt == MAX_REMOVE_ATTEMPTS - 1:
                raise


def clear_abandoned(root: Path, pool: str) -> Iterator[tuple[Path, OSError | None]]:
    """Remove the folders of this user's other pools whose driver and node are dead, and kill what still runs there.

    Anything that is not certainly such a folder is left alone. Yield each folder, with the error if it could not be
    removed.
    """
    for folder in sorted(root.glob("skyward-*")):
        match = FOLDER_NAME.fullmatch(folder.name)
        if match is None or match["pool"] == pool:
            continue
        with _abandoned(folder) as abandoned:
            if abandoned:
                try:
                    _kill_all(folder)
                    remove(folder)
                except OSError as error:
                    yield folder, error
                else:
                    yield folder, None


@contextlib.contextmanager
def _abandoned(folder: Path) -> Iterator[bool]:
    """Whether the folder is this user's and not in use; while the context is open, nobody else can lock it."""
    with contextlib.ExitStack() as stack:
        try:
            there = folder.lstat()
            ours = stat.S_ISDIR(there.st_mode) and there.st_uid == os.getuid() and not there.st_mode & 0o077
            if ours:
                held = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                stack.callback(os.close, held)
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ours = os.path.samestat(os.fstat(held), os.stat(folder / LOCK_FILE, follow_symlinks=False))
        except OSError:  # no lock, locked by somebody, or not readable: it may be in use
            ours = False
        yield ours


def _kill_all(folder: Path) -> None:
    """Kill the processes of the folder's node: its forks have the same command line."""
    command = f"skyward.remote.node\0{folder}\0".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or belongs to somebody else
            if entry.stat().st_uid == os.getuid() and (entry / "cmdline").read_bytes().endswith(command):
                os.kill(int(entry.name), signal.SIGKILL)
