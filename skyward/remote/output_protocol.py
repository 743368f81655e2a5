"""Turn what a slot writes into lines, and encode them for the way to the driver. Pure: no I/O, no clock.

A slot's Python writes strokes, each of them in one piece: which stream, which slot, and some bytes. The zygote makes
lines of them, and of what comes without strokes from other programs, and prints these in frames: messages of a limited
size on its standard output. The driver's `FrameDecoder` makes text of frames again.
"""

import codecs
import struct
from collections.abc import Iterator

from skyward.remote.node_messages import OutputFrame, encode

STREAMS = ("stdout", "stderr", "logging")
OUT, ERR, LOG = range(3)

STROKE = struct.Struct("<BiH")
"""Before the bytes of a stroke: its stream, its slot, and how many they are."""

MAX_FRAME_BYTES = 4096
"""Bytes of a frame at most: a pipe takes so many in one piece."""

MAX_LINE_CHARACTERS = 1 << 16
"""Characters of a line that are kept together."""


def strokes(stream: int, slot: int, data: bytes, atom: int) -> Iterator[bytes]:
    """Cut what is to be written into strokes of at most `atom` bytes."""
    step = atom - STROKE.size
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        yield STROKE.pack(stream, slot, len(piece)) + piece


def runs(data: bytes) -> tuple[list[tuple[int, int, bytes]], bytes]:
    """Return the whole strokes, those joined that follow each other in one stream of a slot, and what is left over."""
    found: list[tuple[int, int, bytes]] = []
    at = 0
    while len(data) - at >= STROKE.size:
        stream, slot, size = STROKE.unpack_from(data, at)
        if len(data) - at - STROKE.size < size:
            break
        piece = data[at + STROKE.size : at + STROKE.size + size]
        if found and found[-1][:2] == (stream, slot):
            piece = found.pop()[2] + piece
        found.append((stream, slot, piece))
        at += STROKE.size + size
    return found, data[at:]


class OutputLine:
    """The line that one stream of one slot is at; `since` is when it was begun, None when nothing of it is there."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self.since: float | None = None

    def take(self, data: bytes, now: float) -> str:
        """Go on with `data`; return what are whole lines now."""
        text = self._text + self._decoder.decode(data)
        end = text.rfind("\n") + 1
        if len(text) - end > MAX_LINE_CHARACTERS:
            end = len(text)
        self._text = text[end:]
        if not self._text:
            self.since = None
        elif end or self.since is None:
            self.since = now
        return text[:end]

    def rest(self, *, final: bool = False) -> str:
        """Return what there is of a line that has not ended; with `final` nothing more will come."""
        text = self._text + (self._decoder.decode(b"", final=True) if final else "")
        self._text, self.since = "", None
        return text


def frames(slot: int, stream: int, text: str) -> Iterator[bytes]:
    """Yield the text as frames."""
    at, step = 0, MAX_FRAME_BYTES - 100
    while at < len(text):
        piece = text[at : at + step]
        frame = encode(OutputFrame(slot, stream, at + step < len(text), piece))
        if len(frame) > MAX_FRAME_BYTES:
            step //= 2  # a character may be six bytes
            continue
        at += step
        yield frame


class FrameDecoder:
    """Makes text of frames, as they come from one node."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def hear(self, frame: OutputFrame) -> str:
        """Return the text that a frame completes; none while more is to follow."""
        self._parts.append(frame.text)
        if frame.more:
            return ""
        text = "".join(self._parts)
        self._parts.clear()
        return text
