"""The large buffers of a pool's calls, kept by content: the same array is there once, whoever hands it over."""

import contextlib
import hashlib
import threading
import weakref
from collections import OrderedDict
from functools import partial

from skyward.remote.blobs import Blob

KEPT = 8
"""How many large `bytes` a group remembers: unlike arrays, they cannot be followed to their end."""

SAMPLES = 64
"""Places at which an array is looked at to see whether it has changed."""


class Shelf:
    """The buffers that are needed by calls on their way. A buffer leaves when nobody holds it any more."""

    def __init__(self) -> None:
        self._blobs: weakref.WeakValueDictionary[str, Blob] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def put(self, content: memoryview) -> Blob:
        """Return the blob with this content (bytes, one dimension); it is copied unless it is here already.

        Raises
        ------
        OSError
            There is no room for it, or there are no file descriptors left.
        """
        name = hashlib.sha256(content).hexdigest()
        with self._lock:
            blob = self._blobs.get(name)
            if blob is None:
                blob = Blob(content.nbytes, name)
                blob.write(0, content)
                self._blobs[name] = blob
        return blob


class Seen:
    """What one group of calls has met: an array that comes again is not hashed again.

    It counts as the same if it is the same memory, still alive, and equal in `SAMPLES` places. An array that was
    changed in between in other places only is therefore taken as it was when it was first met.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._arrays: dict[tuple[int, int], tuple[bytes, Blob, weakref.ref[object]]] = {}
        self._bytes: OrderedDict[int, tuple[bytes, Blob]] = OrderedDict()

    def put(self, content: memoryview) -> Blob:
        """Return the blob with this content; see `Shelf.put`."""
        owner = content.obj
        if type(owner) is bytes:
            return self._put_bytes(owner, content)
        address = _address(owner)
        if address is None:
            return self._shelf.put(content)
        place, sample = (address, content.nbytes), _sample(content)
        known = self._arrays.get(place)
        if known is not None and known[0] == sample:
            return known[1]
        blob = self._shelf.put(content)
        with contextlib.suppress(TypeError):  # not everything can be followed to its end
            alive = weakref.ref(_root(owner), partial(_forget, weakref.ref(self), place))
            self._arrays[place] = sample, blob, alive
        return blob

    def clear(self) -> None:
        """Let go of everything."""
        self._arrays.clear()
        self._bytes.clear()

    def _put_bytes(self, owner: bytes, content: memoryview) -> Blob:
        if (known := self._bytes.get(id(owner))) is not None:
            self._bytes.move_to_end(id(owner))
            return known[1]
        blob = self._shelf.put(content)
        self._bytes[id(owner)] = owner, blob
        if len(self._bytes) > KEPT:
            self._bytes.popitem(last=False)
        return blob


def _forget(seen: weakref.ref[Seen], place: tuple[int, int], _: object) -> None:
    if (alive := seen()) is not None:
        alive._arrays.pop(place, None)


def _address(owner: object) -> int | None:
    """Where the memory of a NumPy array or an Arrow buffer begins; None for anything else."""
    interface = getattr(owner, "__array_interface__", None)
    found = interface["data"][0] if isinstance(interface, dict) else getattr(owner, "address", None)
    return found if isinstance(found, int) else None


def _root(owner: object) -> object:
    """The array that the memory belongs to: `owner` may be a view made for pickling, and be gone at once."""
    while hasattr(base := getattr(owner, "base", None), "__array_interface__"):
        owner = base
    return owner


def _sample(content: memoryview) -> bytes:
    step = max(1, content.nbytes // SAMPLES)
    return b"".join(content[at : at + 64] for at in range(0, content.nbytes, step))
