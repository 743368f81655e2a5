"""The scratch folders of local nodes: who uses one, and what is done with one that nobody uses any more.

A folder is used for as long as a process holds a shared `flock` on its file `lock`: the driver until it has removed
the folder, and the leash of the node. The kernel takes the lock away when a process dies in whatever way, and the lock
counts in containers that share the file system as well, where a pid would mean another process.
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

LOCK = "lock"
"""The file in a scratch folder whose lock says that the folder is used; `skyward.remote.node` takes it as well."""

ATTEMPTS = 100
"""How often a folder is emptied in which new files appear, before it is called one that cannot be removed."""

NAME = re.compile(r"skyward-(?P<pool>\d{8}-[0-9a-f]{8})-\d+-\d+")
"""The name of a scratch folder; the pool's name has the time at which it began, and a random number."""


def lock(folder: Path) -> int:
    """Make the lock of a new folder, and return the descriptor that holds it."""
    new = folder / f".{LOCK}"
    held = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # the file is not made if there is no descriptor
    try:
        with contextlib.suppress(OSError):  # a file system without locks: nobody can tell that it is not used
            fcntl.flock(held, fcntl.LOCK_SH)
            new.rename(folder / LOCK)  # so that nobody ever sees it without its lock
    except BaseException:
        os.close(held)
        raise
    return held


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, also while what is about to end still writes into it.

    Raises
    ------
    OSError
        Something of it, perhaps a key, cannot be removed.
    """

    def fail(_: object, path: str, error: BaseException) -> None:
        if not isinstance(error, FileNotFoundError):  # the leash may remove it at the same time
            raise error

    for attempt in range(ATTEMPTS):
        try:
            shutil.rmtree(folder, onexc=fail)
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or attempt == ATTEMPTS - 1:
                raise


def clear_abandoned(root: Path, pool: str) -> Iterator[tuple[Path, OSError | None]]:
    """Remove the folders of other pools of this user whose driver and leash are dead, and end what is left there.

    Whatever is not certainly such a folder is not touched. Each is yielded, with the reason if it cannot be removed.
    """
    for folder in sorted(root.glob("skyward-*")):
        match = NAME.fullmatch(folder.name)
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
    """Whether the folder is ours and nobody uses it; nobody else can begin to while the context is open."""
    with contextlib.ExitStack() as stack:
        try:
            there = folder.lstat()
            ours = stat.S_ISDIR(there.st_mode) and there.st_uid == os.getuid() and not there.st_mode & 0o077
            if ours:
                held = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                stack.callback(os.close, held)
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ours = os.path.samestat(os.fstat(held), os.stat(folder / LOCK, follow_symlinks=False))
        except OSError:  # there is no lock, somebody holds it, or it cannot be looked at: it may be used
            ours = False
        yield ours


def _kill_all(folder: Path) -> None:
    """Kill the processes of the folder's node: all that begin as it does are forks of its leash."""
    command = f"skyward.remote.node\0{folder}\0".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is somebody else's
            if entry.stat().st_uid == os.getuid() and (entry / "cmdline").read_bytes().endswith(command):
                os.kill(int(entry.name), signal.SIGKILL)
