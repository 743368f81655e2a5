"""The newest lines that tasks printed and logged, by slot, for the page of a run. Pure: no I/O, no clock, no actor.

The record of the run has all of it; here each slot keeps as many lines as leave a page small.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from skyward.events import Logged, Printed
from skyward.view.escape import final

MAX_CHARACTERS = 1 << 20
"""Characters to keep, about, of all slots together; each gets an equal share."""

MAX_LINE_LENGTH = 2000
"""Characters to keep of a line."""

_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-9;:?]*[A-Za-z]")
_LEVELS = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"), (0, "DEBUG"))

type OutputBySlot = dict[str, tuple[int, list[tuple[int, str, str]]]]
"""By `node:slot`, the number of the first line and the lines: the tick at which each came, its kind, and its text."""


@dataclass(slots=True)
class SlotOutput:
    """The newest lines of a slot: `first` is the number of the oldest of them, and the page has those before `told`."""

    first: int = 0
    told: int = 0
    size: int = 0
    lines: deque[tuple[int, str, str]] = field(default_factory=deque)

    def add(self, line: tuple[int, str, str], most: int) -> None:
        """Keep a line, and drop the oldest ones beyond so many characters."""
        self.lines.append(line)
        self.size += len(line[2])
        while self.size > most and len(self.lines) > 1:
            self.size -= len(self.lines.popleft()[2])
            self.first += 1


class Output:
    """The output of all slots so far."""

    def __init__(self, most: int = MAX_CHARACTERS) -> None:
        self._most = most
        self._slots: dict[tuple[int, int], SlotOutput] = {}

    def add(self, at: int, event: Printed | Logged) -> None:
        """Add what a task wrote."""
        slot = self._slots.setdefault((event.node, event.slot), SlotOutput())
        for kind, text in _lines(event):
            slot.add((at, kind, text[:MAX_LINE_LENGTH]), self._most // len(self._slots))

    def all(self) -> OutputBySlot:
        """Return all lines."""
        return {f"{node}:{slot}": (each.first, list(each.lines)) for (node, slot), each in self._slots.items()}

    def news(self) -> OutputBySlot:
        """Return the lines that are new since the last call."""
        told: OutputBySlot = {}
        for (node, slot), each in self._slots.items():
            begin = max(each.told, each.first)
            each.told = each.first + len(each.lines)
            if begin < each.told:
                told[f"{node}:{slot}"] = begin, list(each.lines)[begin - each.first :]
        return told


def _lines(event: Printed | Logged) -> Iterator[tuple[str, str]]:
    """Yield the lines of an event, each with its kind."""
    if isinstance(event, Printed):
        yield from ((event.stream, line) for line in _shown(event.text.removesuffix("\n")))
    else:
        level = next(name for least, name in _LEVELS if event.level >= least)
        text = f"{level} {event.logger}: {event.text}{'\n' if event.trace else ''}{event.trace}"
        yield from (("log", line) for line in _shown(text))


def _shown(text: str) -> Iterator[str]:
    """Yield lines as a terminal would show them, without colors."""
    return (_CONTROL_SEQUENCE.sub("", final(line)) for line in text.split("\n"))
