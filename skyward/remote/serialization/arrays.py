"""Pickle NumPy arrays with their type, layout and attributes, and with their memory out of band.

NumPy itself does that for plain contiguous arrays only. A `numpy.memmap` is pickled as a place in its file if the
receiver can access the file, so that tasks can write into it. NumPy is not imported here: if there is an array, it has
been imported.
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
"""Returns whether the receiver has the mount with this token (see `mounts`), and so can access the files on it."""

type Reducer = Callable[[object], Any]
"""Reduces an array for pickle; None for other objects, and if NumPy's own way is right (see `reduce`)."""

type Mode = Literal["r", "c", "r+"]
"""What tasks may do with large arrays: read them, write into copies of their own, or write into one shared copy."""

type File = tuple[str, str, int, int]
"""A file: its path, the machine, and its device and inode there."""


class NotReachable(TypeError):
    """A memory map of a file that the receiver cannot access; `fix` says what to do about it."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


def reduce(
    obj: object, reaches: Reaches | None, together: "Together | None" = None, kept: list[Any] | None = None
) -> Any:
    """Reduce an array for pickle. Return None for other objects, and if NumPy's own way is right.

    Parameters
    ----------
    obj
        The object to pickle.
    reaches
        Returns which files the receiver can access; None: always pickle the content.
    together
        The copies of large arrays that tasks share for writing; None: they do not.
    kept
        A list to which objects are added that must be kept alive until the receiver has unpickled.

    Raises
    ------
    NotReachable
        It is a writable memory map of a file that the receiver cannot access.
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
    """Reduce an array with its content; see `reduce`."""
    return reduce(obj, None)


def attributes(array: object) -> dict[str, object]:
    """Return the attributes of an array of a subclass, without its memory map, if any."""
    return _without_maps(getattr(array, "__dict__", {}))


def _without_maps(held: Mapping[str, object]) -> dict[str, object]:
    """Return a copy without memory maps, also in nested dicts, in which masked arrays keep attributes of their data."""
    return {
        name: _without_maps(value) if type(value) is dict else value
        for name, value in held.items()
        if not isinstance(value, mmap.mmap)
    }


def restored(kind: type, array: Any, held: Mapping[str, object]) -> Any:
    """Return a plain array as an array of a subclass, with these attributes."""
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
        The file, and the mode of the map.
    start, size
        The part of it, in bytes.
    layout
        The shape and type of the array, the offset of its first item in the part, and its strides.
    writeable
        Whether it may be written, if the mode allows it.

    Raises
    ------
    NotPortable
        The file does not exist here, or is another file.
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
    """Return a writable copy of `numpy.ndarray(*layout)`."""
    numpy: Any = sys.modules["numpy"]
    return numpy.ndarray(*layout).copy(order="K")


def _read_only(*layout: Any) -> Any:
    """Return `numpy.ndarray(*layout)`, read-only even if its memory is writable."""
    numpy: Any = sys.modules["numpy"]
    array = numpy.ndarray(*layout)
    array.flags.writeable = False
    return array


# ---------------------------------------------------------------- arrays that tasks share for writing


class Together:
    """Copies of large arrays in memory that all processes of this machine can map: tasks see each other's writes.

    An array has one copy as long as it lives. The copy lives as long as its array, or longer if it is referenced.

    Parameters
    ----------
    threshold
        Bytes from which an array is large.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._copies: dict[tuple[object, ...], tuple[weakref.ref[Any], Any]] = {}

    def takes(self, array: Any) -> bool:
        """Return whether an array is large and contains no references to objects."""
        return bool(array.nbytes >= self._threshold and not array.dtype.hasobject)

    def reduce(self, array: Any, reaches: Reaches | None, kept: list[Any] | None) -> Any:
        """Reduce an array to its copy.

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
                'Use mmap_mode="c", which gives each task its own copy, or return the values to write.',
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
        file = open(os.memfd_create("skyward-together"), "w+b")  # noqa: SIM115 - closed with the copy
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
    """Return whether a class of arrays defines how it is pickled, except masked arrays, whose reducer copies them."""
    if kind in copyreg.dispatch_table:
        return True
    masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", numpy.ndarray)
    return kind.__reduce_ex__ is not numpy.ndarray.__reduce_ex__ or not any(
        kind.__reduce__ is known.__reduce__ and kind.__setstate__ is known.__setstate__
        for known in (numpy.ndarray, masked)
    )


def _by_buffer(array: Any, numpy: Any, build: Callable[..., Any]) -> Any:
    """Reduce a plain array to its memory; None if NumPy does that itself, or the items are references."""
    dtype = array.dtype
    if dtype.kind == "T":  # `StringDType`, which NumPy pickles item by item
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
    """Return the memory of an array as a C-contiguous array; None if it has gaps, or if items overlap."""
    if array.ndim:
        array = array[tuple(slice(None, None, -1 if step < 0 else 1) for step in array.strides)]
        array = array.transpose(sorted(range(array.ndim), key=lambda axis: -array.strides[axis]))
    return array if array.flags.c_contiguous else None


def _extent(array: Any) -> tuple[int, int]:
    """Return the beginning and the end of an array's memory, in bytes relative to its first item."""
    steps = [(length - 1) * step for length, step in zip(array.shape, array.strides, strict=True)]
    return sum(step for step in steps if step < 0), sum(step for step in steps if step > 0) + array.itemsize


# ---------------------------------------------------------------- arrays in files

FILE_CHECK_INTERVAL_S = 0.05
"""Seconds between two checks of a mapped file.

A system call lets other threads run and may take up to 5 ms (`sys.getswitchinterval`), too long for each task of a
call. The node that opens the file checks it again.
"""


@dataclass(frozen=True, slots=True)
class _MappedFile:
    """The file of a memory map, with its mount and its length in bytes when it was checked."""

    file: File
    mount: mounts.Mount
    length: int
    checked: float


_MAPPED_FILES: weakref.WeakKeyDictionary[mmap.mmap, _MappedFile] = weakref.WeakKeyDictionary()
"""The file of each memory map."""


def _mapped(array: Any, numpy: Any) -> Any:
    """Return the `numpy.memmap` to which the memory of an array belongs, or None."""
    while isinstance(base := array.base, numpy.ndarray):
        array = base
    return array if isinstance(base, mmap.mmap) and isinstance(array, numpy.memmap) else None


def _by_file(array: Any, mapped: Any, reaches: Reaches | None) -> Any:
    """Reduce an array to a place in its file; None if its content must be pickled."""
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
        kind = array.dtype.str if array.dtype.isbuiltin == 1 else array.dtype  # a string pickles faster
        layout = array.shape, kind, -below, array.strides
        return reopened, (type(array), known.file, "r+" if mode == "w+" else mode, start, size, layout, writeable)
    if reaches is not None and writeable and mode != "c":
        problem = "that has been removed or replaced" if known is None else "that not every node can write into"
        raise NotReachable(
            f"it is a writable memory map of a file {problem} ({name}): what tasks write into it would be lost",
            "Return the values and write them here, or run all nodes on one machine with the file.",
        )
    return None


def _is_reached(known: _MappedFile, reaches: Reaches, writes: bool) -> bool:
    if reaches(known.mount.write):
        return True
    if writes or not reaches(known.mount.read):
        return False
    with open(known.file[0], "rb") as file:
        os.fsync(file.fileno())  # sends what was written here to the file server
    return True


def _file_of(mapped: Any) -> _MappedFile | None:
    """Return the file of a memory map; None if its path now leads to another file."""
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
    except (OSError, ValueError):  # removed, or empty
        return None
    return known


def _is_mapped_from(path: str, address: int) -> bool:
    """Return whether the memory at an address is mapped from the file that is now at `path`.

    The kernel's list of mappings may have other numbers for devices and inodes than `os.stat`, so the file is mapped
    again, and the entries of both maps are compared.
    """
    numpy: Any = sys.modules["numpy"]
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ) as again:
        view = numpy.frombuffer(again, "u1")
        other = _address(view)
        del view  # otherwise the map cannot be closed
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
    """Return whether no page of a private map at this address has been written."""
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
