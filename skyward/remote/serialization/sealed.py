"""A function by value as bytes: its pickle, and where the buffers are that the pickle leaves out."""

import marshal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from skyward.remote.blobs import Blob, Buffer, Ref, starts, view

type Part = tuple[str, int, int]
"""Where a buffer is: in which blob, from which offset on, how many bytes."""


def seal(body: bytes, place: str = "", parts: Iterable[Part] = ()) -> bytes:
    """Return a pickle, which is empty if it is the blob `place`, and the places of its buffers as bytes."""
    return marshal.dumps((body, place, tuple(parts)))


def opened(data: bytes, blobs: Mapping[str, Ref]) -> tuple[Buffer, Iterator[memoryview]]:
    """Return the pickle and the buffers.

    The blobs are mapped for this call alone: others do not see what is written into the buffers.
    """
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
    """Put each buffer of `large` bytes or more into a blob, and all others into one; return where each is, and those.

    Raises
    ------
    OSError
        There is no room for one.
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
