"""Pickle NumPy arrays: their type, layout and attributes are kept, and their memory is sent out of band.

NumPy itself hands out the memory of plain contiguous arrays only. A `numpy.memmap` travels as the place in its file
where the other end reaches that file, so that tasks can write into it. NumPy is never imported here: what is no array
needs none, and an array has imported it.
"""

import copyreg
import mmap
import os
import pickle
import sys
import time
import weakref
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from skyward.errors import NotPortable
from skyward.remote import mounts

type Reaches = Callable[[str], bool]
"""Says whether the other end has the mount with this token (see `mounts`), so that it reaches the files on it."""

type Reducer = Callable[[object], Any]
"""Says how to pickle an array; None for all else, and where NumPy knows (see `reduce`)."""

type Mode = Literal["r", "c", "r+"]
"""What tasks may do with large arrays: read them, write into a copy of their own, or write into one copy together."""

type File = tuple[str, str, int, int]
"""A file: its path, the machine, and its device and inode there."""


class NotReachable(TypeError):
    """A memory map of a file that the other end cannot use; `fix` says what to do about it."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


def reduce(
    obj: object, reaches: Reaches | None, together: "Together | None" = None, kept: list[Any] | None = None
) -> Any:
    """Return how to pickle `obj` if it is an array that NumPy does not pickle well; None for everything else.

    Parameters
    ----------
    obj
        What is to be pickled.
    reaches
        Says which files the other end reaches; None where it needs the content only.
    together
        Has the copies of large arrays that tasks write together; None where they do not.
    kept
        To this is added what must live until the other end has opened the pickle.

    Raises
    ------
    NotReachable
        It is a writable memory map of a file that the other end does not reach.
    """
    numpy = sys.modules.get("numpy")
    ndarray = getattr(numpy, "ndarray", None)
    if numpy is None or ndarray is None or not isinstance(obj, ndarray):
        return None
    kind = type(obj)
    if kind is ndarray or kind is numpy.memmap:
        mapped = _mapped(obj, numpy)
        if mapped is not None and obj.nbytes:
            reduced = _by_file(obj, mapped, reaches)
            if reduced is not None:
                return reduced
        if together is not None and mapped is None and together.takes(obj):
            return together.reduce(obj, reaches, kept)
        if kind is ndarray:
            if mapped is None or mapped.mode not in "rc":
                return _by_buffer(obj, numpy, ndarray)
            return _by_buffer(obj, numpy, _private if obj.flags.writeable else _read_only)
    if _has_its_own_reducer(kind, numpy):
        return None
    return restored, (kind, ndarray.view(obj, ndarray), attributes(obj))


def by_content(obj: object) -> Any:
    """Return how to pickle an array wherever it goes; see `reduce`."""
    return reduce(obj, None)


def attributes(array: object) -> dict[str, object]:
    """Return the attributes of an array of a subclass, but for the memory map that it may lie in."""
    return _without_maps(getattr(array, "__dict__", {}))


def _without_maps(held: Mapping[str, object]) -> dict[str, object]:
    """Return a copy without memory maps; a masked array has the attributes of what it was made of in such dicts."""
    return {
        name: _without_maps(value) if type(value) is dict else value
        for name, value in held.items()
        if not isinstance(value, mmap.mmap)
    }


def restored(kind: type, array: Any, held: Mapping[str, object]) -> Any:
    """Return a plain array as one of a subclass with these attributes."""
    found = array.view(kind)
    if held:
        vars(found).update(held)
    return found


def reopened(kind: type, file: File, mode: str, start: int, size: int, layout: tuple[Any, ...], writeable: bool) -> Any:
    """Return an array of `kind` on a part of a file.

    Parameters
    ----------
    kind
        `numpy.memmap`, or `numpy.ndarray` for a view of one.
    file, mode
        The file, and how it is mapped.
    start, size
        The part of it, in bytes.
    layout
        Its shape and type, the bytes from the start of the part to its first item, and its strides.
    writeable
        Whether it may be written, if the mode allows it.

    Raises
    ------
    NotPortable
        The file is not there, or is another one.
    """
    numpy: Any = sys.modules["numpy"]
    path, machine, device, inode = file
    try:
        opened = open(path, "rb" if mode in "rc" else "r+b")  # noqa: SIM115 - closed below
    except OSError as error:
        raise NotPortable(f"numpy.memmap of {path}: the file cannot be opened here: {error.strerror}") from error
    with opened:
        found = os.fstat(opened.fileno())
        if found.st_ino != inode or (found.st_dev != device and machine == mounts.machine()):
            raise NotPortable(f"numpy.memmap of {path}: the file here is not the one that the program opened")
        if found.st_size < start + size:
            raise NotPortable(f"numpy.memmap of {path}: the file ends at byte {found.st_size}, not at {start + size}")
        part = numpy.memmap(opened, "u1", mode, start, (size,))
    shape, dtype, first, strides = layout
    if kind is numpy.memmap:
        array = numpy.ndarray.__new__(
            kind, shape, dtype, part.base, start % mmap.ALLOCATIONGRANULARITY + first, strides
        )
        vars(array).update(vars(part))
    else:
        array = kind(shape, dtype, part, first, strides)
    if not writeable:
        array.flags.writeable = False
    return array


def _private(*layout: Any) -> Any:
    """Return a copy of what `numpy.ndarray(*layout)` is, which may be written."""
    numpy: Any = sys.modules["numpy"]
    return numpy.ndarray(*layout).copy(order="K")


def _read_only(*layout: Any) -> Any:
    """Return what `numpy.ndarray(*layout)` is, also where its memory may be written."""
    numpy: Any = sys.modules["numpy"]
    array = numpy.ndarray(*layout)
    array.flags.writeable = False
    return array


# ---------------------------------------------------------------- arrays that are written together


class Together:
    """Copies of large arrays, in memory that all processes of this machine can map: tasks see what others write.

    An array that comes again has the same copy for as long as it lives. A copy lives for as long as its array does, or
    somebody keeps it.

    Parameters
    ----------
    threshold
        Bytes from which on an array is large.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._copies: dict[tuple[object, ...], tuple[weakref.ref[Any], Any]] = {}

    def takes(self, array: Any) -> bool:
        """Whether an array is large, and its items lie in it."""
        return bool(array.nbytes >= self._threshold and not array.dtype.hasobject)

    def reduce(self, array: Any, reaches: Reaches | None, kept: list[Any] | None) -> Any:
        """Return how to pickle the copy of an array.

        Raises
        ------
        NotReachable
            There are nodes on other machines.
        """
        copy = self._copy(array)
        if kept is not None:
            kept.append(copy)
        try:
            return _by_file(copy, copy, reaches)
        except NotReachable:
            raise NotReachable(
                'with mmap_mode="r+" tasks write into one copy of it, which nodes on other machines cannot share',
                'Use mmap_mode="c", by which each task has its own copy, or return what is to be written.',
            ) from None

    def _copy(self, array: Any) -> Any:
        numpy: Any = sys.modules["numpy"]
        owner = array
        while isinstance(owner.base, numpy.ndarray):
            owner = owner.base
        key = _address(array), array.shape, array.strides, array.dtype.str
        known = self._copies.get(key)
        if known is not None and known[0]() is owner:
            return known[1]
        file = open(os.memfd_create("skyward-together"), "w+b")  # noqa: SIM115 - it lives as long as the copy
        file.truncate(array.nbytes)
        copy = numpy.memmap(file, array.dtype, "r+", 0, array.shape, "F" if array.flags.fnc else "C")
        copy[...] = array
        copy.filename = f"/proc/{os.getpid()}/fd/{file.fileno()}"
        weakref.finalize(copy, file.close)
        self._copies[key] = weakref.ref(owner, partial(_forget, weakref.ref(self), key)), copy
        return copy


def _forget(together: weakref.ref[Together], key: tuple[object, ...], _: object) -> None:
    if (alive := together()) is not None:
        alive._copies.pop(key, None)


# ---------------------------------------------------------------- arrays in memory


def _has_its_own_reducer(kind: Any, numpy: Any) -> bool:
    """Whether a class of arrays says itself how it is pickled; what masked arrays say copies them into the pickle."""
    if kind in copyreg.dispatch_table:
        return True
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", numpy.ndarray)
    return kind.__reduce_ex__ is not numpy.ndarray.__reduce_ex__ or not any(
        kind.__reduce__ is known.__reduce__ and kind.__setstate__ is known.__setstate__
        for known in (numpy.ndarray, masked)
    )


def _by_buffer(array: Any, numpy: Any, build: Callable[..., Any]) -> Any:
    """Reduce a plain array to its memory; None where NumPy does that itself, or the items lie elsewhere."""
    dtype = array.dtype
    if dtype.kind == "T":  # strings of any length, which NumPy pickles one by one
        return pickle.loads, (pickle.PickleBuffer(pickle.dumps(array, 5)),)
    if dtype.hasobject or not array.nbytes:
        return None
    contiguous = array.flags.forc
    if contiguous and build is numpy.ndarray and dtype.kind not in "mMV":
        return None
    block = _block(array)
    if block is None:
        writeable = array.flags.writeable
        array = array.copy(order="K")
        array.flags.writeable = writeable
        return _by_buffer(array, numpy, build) or array.__reduce_ex__(5)
    first = -_extent(array)[0]
    layout = array.shape, dtype, pickle.PickleBuffer(block.reshape(-1).view("u1")), first, array.strides
    return build, layout


def _block(array: Any) -> Any:
    """Return the memory of an array as a C-contiguous one; None if it has gaps, or holds several items twice."""
    if array.ndim:
        array = array[tuple(slice(None, None, -1 if step < 0 else 1) for step in array.strides)]
        array = array.transpose(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    return array if array.flags.c_contiguous else None


def _extent(array: Any) -> tuple[int, int]:
    """Return where the memory of an array begins and ends, in bytes from its first item."""
    steps = [(length - 1) * step for length, step in zip(array.shape, array.strides, strict=True)]
    return sum(step for step in steps if step < 0), sum(step for step in steps if step > 0) + array.itemsize


# ---------------------------------------------------------------- arrays in files

FILE_CHECK_INTERVAL_S = 0.05
"""Seconds for which what was found of a mapped file is trusted.

To ask the system lets other threads of the driver run, and to go on after that takes up to 5 ms
(`sys.getswitchinterval`): too long for each task of a call. The node that opens the file compares it again.
"""


@dataclass(frozen=True, slots=True)
class _MappedFile:
    """The file that a memory map was found in, with its mount and its length in bytes at that time."""

    file: File
    mount: mounts.Mount
    length: int
    checked: float


_MAPPED_FILES: weakref.WeakKeyDictionary[mmap.mmap, _MappedFile] = weakref.WeakKeyDictionary()
"""The file of each memory map that was found in it."""


def _mapped(array: Any, numpy: Any) -> Any:
    """Return the `numpy.memmap` that holds the memory of an array; None if there is none."""
    while isinstance(base := array.base, numpy.ndarray):
        array = base
    return array if isinstance(base, mmap.mmap) and isinstance(array, numpy.memmap) else None


def _by_file(array: Any, mapped: Any, reaches: Reaches | None) -> Any:
    """Reduce an array to a place in its file; None where its content has to travel."""
    name, mode, writeable = mapped.filename or "a file without a name", mapped.mode, array.flags.writeable
    below, above = _extent(array)
    address, size = _address(array) + below, above - below
    start = mapped.offset + address - _address(mapped) - _extent(mapped)[0]
    known = _file_of(mapped)
    if (length := mapped.base.size() if known is None else known.length) < start + size:
        raise NotReachable(
            f"it is a memory map of {name} up to byte {start + size}, but that has been cut to {length} bytes",
            "Do not shorten a file that is in use, or map it again.",
        )
    if mode == "c" and not _is_untouched(address, size):
        return None
    if reaches is not None and known is not None and _is_reached(known, reaches, writeable and mode != "c"):
        kind = array.dtype.str if array.dtype.isbuiltin == 1 else array.dtype  # a string is pickled faster
        layout = array.shape, kind, -below, array.strides
        return reopened, (type(array), known.file, "r+" if mode == "w+" else mode, start, size, layout, writeable)
    if reaches is not None and writeable and mode != "c":
        problem = "that has been removed or replaced" if known is None else "that not every node can write into"
        raise NotReachable(
            f"it is a writable memory map of a file {problem} ({name}): what tasks write into it would be lost",
            "Return what is to be written and write it here, or have all nodes on one machine with the file.",
        )
    return None


def _is_reached(known: _MappedFile, reaches: Reaches, writes: bool) -> bool:
    if reaches(known.mount.write):
        return True
    if writes or not reaches(known.mount.read):
        return False
    with open(known.file[0], "rb") as file:
        os.fsync(file.fileno())  # what was written here, and not yet sent to the server
    return True


def _file_of(mapped: Any) -> _MappedFile | None:
    """Return the file that an array is a memory map of; None if its path leads elsewhere by now."""
    memory, path = mapped.base, mapped.filename
    known, now = _MAPPED_FILES.get(memory), time.monotonic()
    if known is not None and now < known.checked + FILE_CHECK_INTERVAL_S:
        return known
    if path is None:
        return None
    path = os.fspath(path)
    try:
        found = os.stat(path)
        if known is not None and known.file[2:] == (found.st_dev, found.st_ino):
            file, mount = known.file, known.mount
        elif _is_mapped_from(path, _address(mapped)):
            file, mount = (path, mounts.machine(), found.st_dev, found.st_ino), mounts.mount_of(path)
        else:
            return None
        known = _MAPPED_FILES[memory] = _MappedFile(file, mount, memory.size(), now)
    except (OSError, ValueError):  # it is gone, or empty
        return None
    return known


def _is_mapped_from(path: str, address: int) -> bool:
    """Whether the memory at an address is mapped from the file that is at `path` now.

    The kernel's list of mappings may name devices and inodes otherwise than `os.stat` does, so the file is mapped once
    more, to compare what the list says of both.
    """
    numpy: Any = sys.modules["numpy"]
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ) as again:
        view = numpy.frombuffer(again, "u1")
        other = _address(view)
        del view  # or the map cannot be closed
        try:
            with open("/proc/self/maps", "rb") as listed:
                lines = listed.read().splitlines()  # in the order of their addresses
        except OSError:
            return True  # this system has no such list
    files = []
    for place in (address, other):
        line = lines[bisect_right(lines, place, key=lambda line: int(line[: line.index(b"-")], 16)) - 1]
        _, _, _, device, inode, *_ = line.split(maxsplit=5)
        files.append((device, inode))
    return files[0] == files[1]


def _is_untouched(address: int, size: int) -> bool:
    """Whether a private map has, at this address, what its file has: no page of it has been written."""
    numpy: Any = sys.modules["numpy"]
    first, last = address // mmap.PAGESIZE, -(-(address + size) // mmap.PAGESIZE)
    try:
        with open("/proc/self/pagemap", "rb") as pages:
            pages.seek(first * 8)
            entries = numpy.frombuffer(pages.read((last - first) * 8), "u8")
    except (OSError, ValueError):
        return False
    exists, is_of_file = entries >> 62 != 0, entries >> 61 & 1 != 0  # as the kernel's `pagemap.rst` says
    return bool(len(entries) == last - first and not (exists & ~is_of_file).any())


def _address(array: Any) -> int:
    found: int = array.__array_interface__["data"][0]
    return found
