"""Large buffers in anonymous memory: other processes of this user on this machine map them, and nobody copies them.

A `Blob` lives for as long as somebody in its process holds it; there is no file to be left behind. Another process
finds it by its `Ref`, and keeps what it has mapped for as long as it likes. Linux only (`memfd_create`).

The path of a `Ref` names a descriptor, and a descriptor's number is used again once its file is closed. So each blob
has a random tag in the name of its file, which no other file has, and is sealed when it is complete: whoever opens a
`Ref` checks the tag, the seals and the size, and finds these bytes or an error, never others.
"""

import ctypes
import errno
import fcntl
import functools
import mmap
import os
import secrets
import sys
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

AVAILABLE = sys.platform == "linux"
"""Whether this system has such memory. Where it has not, everything travels inside of messages."""

ALIGNMENT = 64
"""Bytes: parts of one blob begin at multiples of it, as arrays like them."""

_FILE_NAME = "skyward-"

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

type Buffer = bytes | memoryview


class BlobError(OSError):
    """A blob cannot be opened: it is gone, its place is another file's now, or there is no descriptor or memory."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Where a blob is found: a path, the tag that no other file has, and its size in bytes."""

    path: str
    tag: str
    size: int


MISSING_BLOB = Ref("", "", 0)
"""Where a blob is that the process does not have. It cannot be opened."""


class _Descriptor:
    """An open file, closed once; then it has no number any more, which another file could have got."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        number, self.number = self.number, -1
        os.close(number)


class Blob:
    """A buffer of fixed size in anonymous memory of this process. It is written, then sealed, then opened by others.

    Blobs of one `name` have the same content; without one it has the name of its tag.
    """

    def __init__(self, size: int, name: str = "") -> None:
        tag = secrets.token_hex(16)
        number = os.memfd_create(f"{_FILE_NAME}{tag}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._own(number, tag, size, name)
        os.ftruncate(number, size)

    @classmethod
    def of(cls, parts: Iterable[Buffer]) -> Self:
        """Return a sealed blob that holds these parts, each at a multiple of `ALIGNMENT`."""
        views = [memoryview(part).cast("B") for part in parts]
        sizes = [view.nbytes for view in views]
        blob = cls(starts(sizes)[-1] if views else 0)
        for start, view in zip(starts(sizes), views, strict=False):
            blob.write(start, view)
        blob.seal()
        return blob

    @classmethod
    def adopt(cls, ref: Ref) -> Self:
        """Return a blob of another process as one of this, which no longer needs the other.

        Raises
        ------
        BlobError
            It cannot be opened.
        """
        blob = cls.__new__(cls)
        blob._own(_opened(ref), ref.tag, ref.size, "")
        return blob

    def _own(self, number: int, tag: str, size: int, name: str) -> None:
        self.name, self.size, self._charged = name or tag, size, False
        self.ref = Ref(f"/proc/{os.getpid()}/fd/{number}", tag, size)
        self._mapping: memoryview | None = None
        self._descriptor = _Descriptor(number)
        # not __del__: while that runs, a weak reference still finds the object and may revive it
        weakref.finalize(self, self._descriptor.close).atexit = False

    def charge(self) -> int:
        """Return its size the first time, then 0: among those who share it, one counts its bytes."""
        charged, self._charged = self._charged, True
        return 0 if charged else self.size

    def write(self, at: int, data: Buffer) -> None:
        """Write these bytes at an offset."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor.number, view, at)
            view, at = view[written:], at + written

    def seal(self) -> None:
        """Make it complete: from now on nobody can change it, and others can open it."""
        fcntl.fcntl(self._descriptor.number, fcntl.F_ADD_SEALS, _SEALS)

    def read(self, at: int, size: int) -> bytes:
        """Return at most `size` bytes from an offset."""
        return os.pread(self._descriptor.number, size, at)

    def view(self) -> memoryview:
        """Return all of it, to be read and written; what is written is seen here only."""
        return _mapped(self._descriptor.number, self.size, mmap.PROT_READ | mmap.PROT_WRITE)

    def equals(self, content: memoryview) -> bool:
        """Return whether it holds exactly these bytes (contiguous). Comparing 100 MB takes about 20 ms."""
        if content.nbytes != self.size or self._descriptor.number < 0:
            return False
        mapping = self._mapping  # held until the end: another thread may put another one there
        if mapping is None:
            mapping = self._mapping = _mapped(self._descriptor.number, self.size, mmap.PROT_READ)
        return not self.size or not _libc().memcmp(address(content), address(mapping), self.size)


def view(ref: Ref, *, private: bool = False) -> memoryview:
    """Return a blob of another process, to be read only; or, if `private`, to be written, which nobody else sees.

    Raises
    ------
    BlobError
        It cannot be opened.
    """
    number = _opened(ref)
    try:
        if private:
            return _mapped(number, ref.size, mmap.PROT_READ | mmap.PROT_WRITE)
        return _mapped(number, ref.size, mmap.PROT_READ).toreadonly()
    except OSError as error:
        raise _refusal(ref, error) from error
    finally:
        os.close(number)


def address(content: memoryview) -> int:
    """Return where these bytes (contiguous) are in memory; they stay there for as long as `content` is held."""
    found = _PyBuffer()
    _python().PyObject_GetBuffer(content, ctypes.byref(found), 0)
    _python().PyBuffer_Release(ctypes.byref(found))
    return found.buf or 0


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
    try:
        # neither waits nor has an effect if the place is that of a pipe or a terminal now
        number = os.open(ref.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _refusal(ref, error) from error
    try:
        if not os.readlink(f"/proc/self/fd/{number}").startswith(f"/memfd:{_FILE_NAME}{ref.tag} "):
            raise OSError(errno.ESTALE, "another file is in its place")
        if fcntl.fcntl(number, fcntl.F_GET_SEALS) & _SEALS != _SEALS or os.fstat(number).st_size != ref.size:
            raise OSError(errno.ESTALE, "it is not complete")
    except OSError as error:
        os.close(number)
        raise _refusal(ref, error) from error
    return number


def _refusal(ref: Ref, error: OSError) -> BlobError:
    why = f"{error.strerror or error}"
    if error.errno == errno.EMFILE:
        why += "; the process has as many files open as it may (ulimit -n)"
    return BlobError(f"a large buffer ({ref.size:,} bytes at {ref.path or 'no place'}) cannot be opened: {why}")


class _PyBuffer(ctypes.Structure):
    """CPython's Py_buffer, which is part of its stable ABI."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("format", "shape", "strides", "suboffsets", "internal")),
    )


@functools.cache
def _python() -> Any:
    python = ctypes.PyDLL(None)
    python.PyObject_GetBuffer.argtypes = (ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
    python.PyBuffer_Release.argtypes = (ctypes.c_void_p,)
    return python


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return libc


def _mapped(number: int, size: int, protection: int) -> memoryview:
    """Map all of it, until nobody looks at it any more.

    Python's own `mmap` keeps a descriptor for each mapping: a thousand results would be all that a process may have.
    """
    if not size:
        return memoryview(b"")
    libc = _libc()
    found = libc.mmap(None, size, protection, mmap.MAP_PRIVATE, number, 0)
    if found == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    mapped = (ctypes.c_ubyte * size).from_address(found)
    weakref.finalize(mapped, libc.munmap, found, size).atexit = False
    return memoryview(mapped).cast("B")
