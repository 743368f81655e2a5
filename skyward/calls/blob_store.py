"""The large buffers of a pool's calls, identified by content, so that equal arrays are stored and sent once."""

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
"""Large `bytes` objects that a group remembers; unlike arrays, they cannot have weak references."""

SAMPLES = 64
"""Places at which a buffer is sampled to find one that may have the same content."""

PIECE_BYTES = 256 << 10
"""Bytes that are hashed and written at a time, from a copy that fits into the CPU's cache."""


class BlobStore:
    """The large buffers of calls that have not finished. A buffer is freed when no call refers to it.

    Parameters
    ----------
    by_content
        Whether a new blob is named by a hash of its content, so that nodes that have it are not sent it again. The hash
        takes longer than the copy, and is of no use if all nodes share this machine's memory.
    """

    def __init__(self, by_content: Callable[[], bool] = lambda: True) -> None:
        self._by_content = by_content
        self._by_name: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._by_sample: weakref.WeakValueDictionary[tuple[int, bytes], Blob] = weakref.WeakValueDictionary()
        # reentrant: garbage collection or a signal may run user code that calls `put` in the thread that holds it
        self._lock = threading.RLock()

    def put(self, content: memoryview) -> Blob:
        """Return the blob with this content (bytes, one dimension), which is copied if it is new.

        Raises
        ------
        OSError
            There is not enough memory, or no file descriptor is left.
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
    """The blob of an array, the array, and when their last comparison began, in nanoseconds."""

    blob: Blob
    array: weakref.ref[object]
    compared: int


class BufferCache:
    """The buffers of a group of calls: an array that is passed again is compared with its blob instead of copied.

    The whole array is compared, for each call. Only calls that waited to be packed share a comparison that began after
    all of them were submitted: see `handed_over`.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
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
            blob = known.blob if known.blob.equals(content) else self._store.put(content)
        else:
            blob = self._store.put(content)
        with contextlib.suppress(TypeError):  # an object without weak references
            self._arrays[place] = _Known(
                blob, weakref.ref(_root(owner), partial(_forget, weakref.ref(self), place)), began
            )
        return blob

    def handed_over(self, at: int) -> "_HandedOver":
        """Return a context in which to pack a call that was submitted at this time of `time.monotonic_ns`.

        The arrays of the call may be packed with the content of any time since then.
        """
        return _HandedOver(self._thread, at)

    def clear(self) -> None:
        """Forget all buffers."""
        with self._lock:
            self._arrays.clear()
            self._bytes.clear()

    def _put_bytes(self, owner: bytes, content: memoryview, place: tuple[int, int]) -> Blob:
        with self._lock:
            if (known := self._bytes.get(place)) is not None:
                self._bytes.move_to_end(place)
                return known[1]
        blob = self._store.put(content)
        with self._lock:
            self._bytes[place] = owner, blob
            if len(self._bytes) > MAX_REMEMBERED:
                self._bytes.popitem(last=False)
        return blob


class _HandedOver:
    """A context manager; one of `contextlib` would take several times as long, for each call."""

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
    """Copy a buffer into a blob and hash the copy: another thread may write to the buffer meanwhile."""
    blob, digest = Blob(content.nbytes), hashlib.sha256()
    for at in range(0, content.nbytes, PIECE_BYTES):
        piece = bytes(content[at : at + PIECE_BYTES])
        digest.update(piece)
        blob.write(at, piece)
    blob.seal()
    blob.name = digest.hexdigest()
    return blob


def _forget(seen: weakref.ref[BufferCache], place: tuple[int, int], array: weakref.ref[object]) -> None:
    """Forget an array that was freed, unless another one has its address now. No lock: this may run at any point."""
    if (alive := seen()) is not None and (known := alive._arrays.get(place)) is not None and known.array is array:
        alive._arrays.pop(place, None)


def _root(owner: object) -> object:
    """Return the array that owns the memory: `owner` may be a short-lived view made for pickling."""
    while hasattr(base := getattr(owner, "base", None), "__array_interface__"):
        owner = base
    return owner


def _sample(content: memoryview) -> bytes:
    step = max(1, content.nbytes // SAMPLES)
    return b"".join(content[at : at + 64] for at in range(0, content.nbytes, step))
