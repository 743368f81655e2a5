"""Which file systems two processes share: each mount has tokens, and equal tokens stand for the same files.

A driver may hand a node the path of a file instead of its content if both have the mount that the path lies on.
"""

import contextlib
import hashlib
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

COHERENT = frozenset(["ceph", "lustre"])
"""File systems on which what one machine writes into mapped memory is seen by the others."""

NETWORK = frozenset(["nfs", "nfs4"])
"""File systems that have the same files on every machine, but where two machines overwrite each other's pages."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Differs between machines, and between two boots of one (Linux)."""

MOUNTS = Path("/proc/self/mountinfo")
"""The mounts of this process (Linux)."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


def machine() -> str:
    """Return a name that no other machine has; after a boot it is another one."""
    with contextlib.suppress(OSError):
        return BOOT_ID.read_text().strip()
    return socket.gethostname()


@dataclass(frozen=True, slots=True)
class Mount:
    """The tokens of a mount: who has the first may write into mapped files, who has either may read them."""

    write: str
    read: str


def mounted() -> Mapping[str, Mount]:
    """Return the mounts of this process by the folders that they are mounted on."""
    try:
        text = MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return {"/": Mount(_token(machine()), _token(machine()))}
    return parsed(text, machine())


def tokens() -> list[str]:
    """Return all tokens of the mounts of this process."""
    return sorted({token for mount in mounted().values() for token in (mount.write, mount.read)})


def mount_of(path: str) -> Mount:
    """Return the mount that a path lies on."""
    mounts = mounted()
    folder = os.path.realpath(path)
    while folder not in mounts and folder != "/":
        folder = os.path.dirname(folder)
    return mounts.get(folder, Mount("", ""))


@lru_cache(maxsize=1)
def parsed(text: str, machine: str) -> Mapping[str, Mount]:
    """Return the mounts in the text of `mountinfo` on this machine; the last on a folder hides the others there."""
    found: dict[str, Mount] = {}
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        _, _, device, root, folder, *_ = head.split(" ")
        kind, source, *_ = tail.split(" ")
        here, anywhere = _token(machine, device, root, folder), _token(kind, source, root, folder)
        path = _ESCAPED.sub(lambda escape: chr(int(escape[1], 8)), folder)
        found[path] = Mount(
            write=anywhere if kind in COHERENT else here, read=anywhere if kind in COHERENT | NETWORK else here
        )
    return found


def _token(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]
