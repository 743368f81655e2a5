"""The bytes of a function by value: its pickle, and the places of its out-of-band buffers."""

import marshal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from skyward.remote.blobs import Blob, Buffer, Ref, starts, view

type Part = tuple[str, int, int]
"""The place of a buffer: the name of a blob, an offset in it, and a number of bytes."""


def seal(body: bytes, place: str = "", parts: Iterable[Part] = ()) -> bytes:
    """Return a pickle and the places of its buffers as bytes. `body` is empty if the pickle is the blob `place`."""
    return marshal.dumps((body, place, tuple(parts)))


def opened(data: bytes, blobs: Mapping[str, Ref]) -> tuple[Buffer, Iterator[memoryview]]:
    """Return the pickle and the buffers. They are private: what is written into them is seen by this process only."""
    body, place, parts = marshal.loads(data)
    return body or view(blobs[place], private=True), _buffers(parts, blobs)


def _buffers(parts: Sequence[Part], blobs: Mapping[str, Ref]) -> Iterator[memoryview]:
    mapped: dict[str, memoryview] = {}
    for name, start, size in parts:
        if name not in mapped:
            mapped[name] = view(blobs[name], private=True)
        yield mapped[name][start : start + size]


def place(
    buffers: Sequence[memoryview], large: int, put: Callable[[memoryview], Blob]
) -> tuple[list[Part], tuple[Blob, ...]]:
    """Put each buffer of `large` bytes or more into its own blob, and all others into one blob.

    Return the places of the buffers, and the blobs.

    Raises
    ------
    OSError
        There is not enough memory for a blob.
    """
    small = [buffer for buffer in buffers if buffer.nbytes < large]
    offsets = starts([buffer.nbytes for buffer in small])
    together = put(memoryview(_joined(small, offsets))) if small else None
    blobs, parts, rest = {}, [], iter(offsets)
    for buffer in buffers:
        if together is not None and buffer.nbytes < large:
            blob, start = together, next(rest)
        else:
            blob, start = put(buffer), 0
        blobs[blob.name] = blob
        parts.append((blob.name, start, buffer.nbytes))
    return parts, tuple(blobs.values())


def _joined(buffers: Sequence[memoryview], offsets: Sequence[int]) -> bytes:
    whole = bytearray(offsets[-1])
    for start, buffer in zip(offsets, buffers, strict=False):
        whole[start : start + buffer.nbytes] = buffer
    return bytes(whole)
