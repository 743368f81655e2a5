"""The large buffers of a pool's calls, kept by content: the same array is there once, whoever hands it over."""

import contextlib
import hashlib
import math
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from skyward.remote.blobs import Blob, address

MAX_REMEMBERED = 8
"""How many large `bytes` a group remembers: unlike arrays, they cannot be followed to their end."""

SAMPLES = 64
"""Places at which a buffer is looked at to find one that may have the same content."""

PIECE = 256 << 10
"""Bytes that are hashed and written together, from a copy that stays in the CPU's cache."""


class BlobStore:
    """The buffers that are needed by calls on their way. A buffer leaves when nobody holds it any more.

    Parameters
    ----------
    by_content
        Says whether a new blob is named by its content, so that a node with a store of its own knows it when it comes
        again. A hash takes longer than the copy; where all nodes share this process's memory it is of no use.
    """

    def __init__(self, by_content: Callable[[], bool] = lambda: True) -> None:
        self._by_content = by_content
        self._by_name: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._by_sample: weakref.WeakValueDictionary[tuple[int, bytes], Blob] = weakref.WeakValueDictionary()
        # a garbage collection or a signal may run user code, which puts another buffer, while this thread holds it
        self._lock = threading.RLock()

    def put(self, content: memoryview) -> Blob:
        """Return the blob with this content (bytes, one dimension); it is copied unless it is here already.

        Raises
        ------
        OSError
            There is no room for it, or there are no file descriptors left.
        """
        sample = content.nbytes, _sample(content)
        with self._lock:
            known = self._by_sample.get(sample)
        if known is not None and known.equals(content):
            return known
        copy = _hashed_copy(content) if self._by_content() else _copy(content)
        with self._lock:
            blob = self._by_name.setdefault(copy.name, copy)
            self._by_sample[sample] = blob
        return blob


@dataclass(frozen=True, slots=True)
class _Known:
    """The blob of an array, the array, and when the last comparison of the two began, in nanoseconds."""

    blob: Blob
    array: weakref.ref[object]
    compared: int


class BufferCache:
    """What one group of calls has met: an array that comes again is compared with its blob, and not copied again.

    All of it is compared, for each call. Only calls that have waited to be packed share a comparison that began after
    they were all handed over: see `handed_over`.
    """

    def __init__(self, shelf: BlobStore) -> None:
        self._shelf = shelf
        self._arrays: dict[tuple[int, int], _Known] = {}
        self._bytes: OrderedDict[tuple[int, int], tuple[bytes, Blob]] = OrderedDict()
        self._lock = threading.RLock()  # as in `BlobStore`
        self._thread = threading.local()

    def put(self, content: memoryview) -> Blob:
        """Return the blob with this content; see `BlobStore.put`."""
        owner, place = content.obj, (address(content), content.nbytes)
        if type(owner) is bytes:
            return self._put_bytes(owner, content, place)
        known, began = self._arrays.get(place), time.monotonic_ns()
        if known is not None and known.array() is not None:
            if known.compared >= getattr(self._thread, "handed_over", math.inf):
                return known.blob
            blob = known.blob if known.blob.equals(content) else self._shelf.put(content)
        else:
            blob = self._shelf.put(content)
        with contextlib.suppress(TypeError):  # not everything can be followed to its end
            self._arrays[place] = _Known(
                blob, weakref.ref(_root(owner), partial(_forget, weakref.ref(self), place)), began
            )
        return blob

    def handed_over(self, at: int) -> "_HandedOver":
        """Pack a call in this thread that was handed over at a time of `time.monotonic_ns`.

        What its arrays held at any time since then is right.
        """
        return _HandedOver(self._thread, at)

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._arrays.clear()
            self._bytes.clear()

    def _put_bytes(self, owner: bytes, content: memoryview, place: tuple[int, int]) -> Blob:
        with self._lock:
            if (known := self._bytes.get(place)) is not None:
                self._bytes.move_to_end(place)
                return known[1]
        blob = self._shelf.put(content)
        with self._lock:
            self._bytes[place] = owner, blob
            if len(self._bytes) > MAX_REMEMBERED:
                self._bytes.popitem(last=False)
        return blob


class _HandedOver:
    """A context; one made by `contextlib` would take several times as long, for each call."""

    __slots__ = ("_at", "_thread")

    def __init__(self, thread: threading.local, at: int) -> None:
        self._thread, self._at = thread, at

    def __enter__(self) -> None:
        self._thread.handed_over = self._at

    def __exit__(self, *raised: object) -> None:
        del self._thread.handed_over


def _copy(content: memoryview) -> Blob:
    blob = Blob(content.nbytes)
    blob.write(0, content)
    blob.seal()
    return blob


def _hashed_copy(content: memoryview) -> Blob:
    """Copy a buffer into a blob, named by what is in the blob: another thread may write to the buffer meanwhile."""
    blob, digest = Blob(content.nbytes), hashlib.sha256()
    for at in range(0, content.nbytes, PIECE):
        piece = bytes(content[at : at + PIECE])
        digest.update(piece)
        blob.write(at, piece)
    blob.seal()
    blob.name = digest.hexdigest()
    return blob


def _forget(seen: weakref.ref[BufferCache], place: tuple[int, int], array: weakref.ref[object]) -> None:
    """Let go of an array that is gone, unless another one has its place now. No lock: this runs at any point."""
    if (alive := seen()) is not None and (known := alive._arrays.get(place)) is not None and known.array is array:
        alive._arrays.pop(place, None)


def _root(owner: object) -> object:
    """The array that the memory belongs to: `owner` may be a view made for pickling, and be gone at once."""
    while hasattr(base := getattr(owner, "base", None), "__array_interface__"):
        owner = base
    return owner


def _sample(content: memoryview) -> bytes:
    step = max(1, content.nbytes // SAMPLES)
    return b"".join(content[at : at + 64] for at in range(0, content.nbytes, step))
