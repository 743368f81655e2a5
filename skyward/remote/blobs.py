"""Large buffers in anonymous memory: other processes of this user on this machine map them, and nobody copies them.

A `Blob` lives for as long as somebody in its process holds it; there is no file to be left behind. Another process
finds it by its `Ref`, and keeps what it has mapped for as long as it likes. Linux only (`memfd_create`).
"""

import ctypes
import mmap
import os
import sys
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

AVAILABLE = sys.platform == "linux"
"""Whether this system has such memory. Where it has not, everything travels inside of messages."""

ALIGNMENT = 64
"""Bytes: parts of one blob begin at multiples of it, as arrays like them."""

type Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Ref:
    """Where a blob is found: a path, the inode that tells it from a later one there, and its size in bytes."""

    path: str
    inode: int
    size: int


class Blob:
    """A buffer of fixed size in anonymous memory of this process."""

    def __init__(self, size: int, name: str = "") -> None:
        self.name, self.size, self._charged = name, size, False
        self._fd = os.memfd_create(f"skyward-{name[:32]}")
        try:
            os.ftruncate(self._fd, size)
        except BaseException:
            os.close(self._fd)
            raise

    @classmethod
    def of(cls, parts: Iterable[Buffer]) -> Self:
        """Return a blob that holds these parts, each at a multiple of `ALIGNMENT`."""
        views = [memoryview(part).cast("B") for part in parts]
        sizes = [view.nbytes for view in views]
        blob = cls(starts(sizes)[-1] if views else 0)
        for start, view in zip(starts(sizes), views, strict=False):
            blob.write(start, view)
        return blob

    @classmethod
    def adopt(cls, ref: Ref) -> Self:
        """Return a blob of another process as one of this, which no longer needs the other.

        Raises
        ------
        OSError
            It is gone.
        """
        blob = cls.__new__(cls)
        blob.name, blob.size, blob._charged = "", ref.size, False
        blob._fd = _opened(ref)
        return blob

    @property
    def ref(self) -> Ref:
        """How other processes find it."""
        return Ref(f"/proc/{os.getpid()}/fd/{self._fd}", os.fstat(self._fd).st_ino, self.size)

    def charge(self) -> int:
        """Return its size the first time, then 0: among those who share it, one counts its bytes."""
        charged, self._charged = self._charged, True
        return 0 if charged else self.size

    def write(self, at: int, data: Buffer) -> None:
        """Write these bytes at an offset."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, at)
            view, at = view[written:], at + written

    def read(self, at: int, size: int) -> bytes:
        """Return at most `size` bytes from an offset."""
        return os.pread(self._fd, size, at)

    def view(self) -> memoryview:
        """Return all of it, to be read and written; what is written is seen here only."""
        return _mapped(self._fd, self.size, mmap.PROT_READ | mmap.PROT_WRITE)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)


def view(ref: Ref, *, private: bool = False) -> memoryview:
    """Return a blob of another process, to be read only; or, if `private`, to be written, which nobody else sees.

    Raises
    ------
    OSError
        It is gone.
    """
    fd = _opened(ref)
    try:
        if private:
            return _mapped(fd, ref.size, mmap.PROT_READ | mmap.PROT_WRITE)
        return _mapped(fd, ref.size, mmap.PROT_READ).toreadonly()
    finally:
        os.close(fd)


def parted(whole: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    """Return the parts of which `Blob.of` made one, given their sizes in bytes."""
    return [whole[start : start + size] for start, size in zip(starts(sizes), sizes, strict=False)]


def starts(sizes: Sequence[int]) -> list[int]:
    """Return where parts of these sizes begin, and where the last one ends."""
    found, at = [], 0
    for size in sizes:
        found.append(at)
        at += size
        end, at = at, -(-at // ALIGNMENT) * ALIGNMENT
    return [*found, end] if found else [0]


def _opened(ref: Ref) -> int:
    fd = os.open(ref.path, os.O_RDONLY)
    if os.fstat(fd).st_ino != ref.inode:
        os.close(fd)
        raise FileNotFoundError(f"{ref.path} is not the buffer any more that it was")
    return fd


def _mapped(fd: int, size: int, protection: int) -> memoryview:
    """Map all of it, until nobody looks at it any more.

    Python's own `mmap` keeps a descriptor for each mapping: a thousand results would be all that a process may have.
    """
    if not size:
        return memoryview(b"")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    address = libc.mmap(None, size, protection, mmap.MAP_PRIVATE, fd, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    mapped = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(mapped, libc.munmap, address, size).atexit = False
    return memoryview(mapped).cast("B")
