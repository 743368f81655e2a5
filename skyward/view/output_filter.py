"""Which output of tasks is shown, and how. Pure: no I/O, no clock; `output_echo` shows it.

Every line is told with its node and slot. Of a progress bar, which writes over its own line, the latest state is shown
now and then and at its end. A node that prints more than anybody can read is shown in part, and the rest is counted.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from skyward.events import Event, Logged, Printed, RunEnded
from skyward.view.escape import colored, final

MAX_LINES_PER_S, MAX_CHARACTERS_PER_S = 200, 1 << 20
"""Rate limit per node: lines and characters per second."""

BURST = 1000
"""Burst allowance per node, in lines."""

BAR_INTERVAL_S = 5.0
"""Seconds between two states of a progress bar."""

NOTE = 10.0
"""Seconds between two notes about lines that are not shown."""

_UP = re.compile(r"\x1b\[\d*A")

type Stream = Literal["stdout", "stderr"]
type _Key = tuple[int, int, Stream]


@dataclass(frozen=True, slots=True)
class Show:
    """Write this line."""

    stream: Stream
    text: str


type Effect = Show | Logged
"""A record of `logging` is to be given to the logger of its name."""


@dataclass(slots=True)
class _Bar:
    """A progress bar: when it was last shown, as what, what it is now, and whether it is one of several."""

    shown: float = float("-inf")
    last: str = ""
    latest: str = ""
    several: bool = False


@dataclass(slots=True)
class _Second:
    """How much of a node may yet be shown in the second that `began`, whether something was cut, and what was held."""

    began: float
    lines: float = BURST
    size: float = MAX_CHARACTERS_PER_S
    cut: bool = False
    held: int = 0
    noted: float = field(default=float("-inf"))


def label(node: int, slot: int) -> str:
    """Return what stands before each line of a slot, or of the node itself."""
    return f"[node {node}] " if slot < 0 else f"[node {node} slot {slot}] "


class OutputFilter:
    """What is shown of a run.

    Parameters
    ----------
    where
        Where all of it is.
    raw
        Whether control sequences are written as they come.
    """

    def __init__(self, where: str, *, raw: bool = False) -> None:
        self._where, self._raw = where, raw
        self._bars: dict[_Key, _Bar] = {}
        self._seconds: dict[int, _Second] = {}

    def heard(self, events: Sequence[Event]) -> list[Effect]:
        """Return what is to be shown now that these events have happened."""
        effects: list[Effect] = []
        for event in events:
            match event:
                case Printed(at, node, slot, stream, text):
                    for line in self._lines((node, slot, stream), at, text):
                        effects += self._limited(node, at, Show(stream, label(node, slot) + self._shown(line)))
                case Logged(at, node):
                    effects += self._limited(node, at, self._harmless(event))
                case RunEnded():
                    for key, bar in self._bars.items():
                        effects += [Show(key[2], label(*key[:2]) + self._shown(line)) for line in _news(bar)]
                    effects += [self._note(node, second) for node, second in self._seconds.items() if second.held]
        for node, second in self._seconds.items() if events else ():
            effects += self._turn(node, second, events[-1].at)
        return effects

    def _shown(self, line: str) -> str:
        return line if self._raw else colored(line)

    def _harmless(self, record: Logged) -> Logged:
        return replace(
            record,
            logger=self._shown(record.logger),
            text=self._shown(record.text),
            trace=self._shown(record.trace),
            path=self._shown(record.path),
            function=self._shown(record.function),
        )

    def _lines(self, key: _Key, at: float, text: str) -> Iterator[str]:
        """Yield the lines to be shown of a text, each as a terminal would show it in the end."""
        *whole, rest = text.split("\n")
        parts = [(line.removesuffix("\r"), True) for line in whole] + ([(rest, False)] if rest else [])
        for line, ends in parts:
            moves = _UP.search(line)
            bar = self._bars.get(key)
            if "\r" not in line and not moves:
                if bar is not None and bar.several != (not line):  # the end of its line; several have more than one
                    yield from _news(self._bars.pop(key))
                if bar is None or line:
                    yield line
                continue
            bar = bar or self._bars.setdefault(key, _Bar())
            bar.latest, bar.several = _latest(line), bar.several or bool(moves)
            if ends and not moves:
                yield from _news(self._bars.pop(key))
            elif at - bar.shown >= BAR_INTERVAL_S and bar.latest:
                bar.shown = at
                yield from _news(bar)

    def _limited(self, node: int, at: float, effect: Effect) -> list[Effect]:
        """Return it, if one more of a node can be shown; if not, it is counted."""
        second = self._seconds.setdefault(node, _Second(at))
        effects = self._turn(node, second, at)
        size = len(effect.text)
        if second.lines < 1 or (
            second.size < size and second.size < MAX_CHARACTERS_PER_S
        ):  # one that is too long is shown alone
            second.cut = True
            second.held += 1
            return effects
        second.lines -= 1
        second.size -= size
        return [*effects, effect]

    def _turn(self, node: int, second: _Second, at: float) -> list[Effect]:
        """Begin another second if one is over. Once less is printed, or now and then, say what was not shown."""
        if at - second.began < 1.0:
            return []
        told = second.held and (not second.cut or at - second.noted >= NOTE)
        second.lines = min(BURST, second.lines + MAX_LINES_PER_S * (at - second.began))
        second.began, second.size, second.cut = at, MAX_CHARACTERS_PER_S, False
        if not told:
            return []
        second.noted = at
        return [self._note(node, second)]

    def _note(self, node: int, second: _Second) -> Show:
        held, second.held = second.held, 0
        lines = "1 line is" if held == 1 else f"{held:,} lines are"
        return Show("stderr", f"{label(node, -1)}{lines} not shown, as there were too many; all are in {self._where}")


def _latest(line: str) -> str:
    """What stands in a line after everything that wrote over it; nothing if it was wiped."""
    return final(_UP.sub("", line))


def _news(bar: _Bar) -> Iterator[str]:
    """Yield the state of a bar if it was not shown yet."""
    if bar.latest and bar.latest != bar.last:
        bar.last = bar.latest
        yield bar.latest
