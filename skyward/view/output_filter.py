"""Selects and formats the output of tasks that is shown. Pure: no I/O, no clock; `output_echo` shows it.

Every line has its node and slot as a prefix. Of a progress bar, which overwrites its own line, the latest state is
shown now and then and at its end. The output of each node is limited to what can be read; the rest is counted.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from skyward.events import Event, Logged, Printed, RunEnded
from skyward.view.escape import colored, final

MAX_LINES_PER_S, MAX_CHARACTERS_PER_S = 200, 1 << 20
"""Rate limit per node: lines and characters per second."""

BURST_LINES = 1000
"""Burst allowance per node, in lines."""

BAR_INTERVAL_S = 5.0
"""Seconds between two states of a progress bar."""

NOTE_INTERVAL_S = 10.0
"""Seconds between two notes about lines that are not shown."""

_UP = re.compile(r"\x1b\[\d*A")

type Stream = Literal["stdout", "stderr"]
type _StreamKey = tuple[int, int, Stream]


@dataclass(frozen=True, slots=True)
class Show:
    """Write this line."""

    stream: Stream
    text: str


type Echo = Show | Logged
"""What is to be shown; `Logged` goes to the logger of its name."""


@dataclass(slots=True)
class _Bar:
    """A progress bar: when it was last shown, as what, what it is now, and whether it is one of several."""

    shown: float = float("-inf")
    last: str = ""
    latest: str = ""
    several: bool = False


@dataclass(slots=True)
class _Second:
    """What may still be shown of a node in the second that `began`, whether output was cut, and the lines held back."""

    began: float
    lines: float = BURST_LINES
    size: float = MAX_CHARACTERS_PER_S
    cut: bool = False
    held: int = 0
    noted: float = field(default=float("-inf"))


def prefix(node: int, slot: int) -> str:
    """Return the prefix of the lines of a slot, or of the node itself."""
    return f"[node {node}] " if slot < 0 else f"[node {node} slot {slot}] "


class OutputFilter:
    """The filter of one run.

    Parameters
    ----------
    where
        Where the complete output is.
    raw
        Whether control sequences are written as they come.
    """

    def __init__(self, where: str, *, raw: bool = False) -> None:
        self._where, self._raw = where, raw
        self._bars: dict[_StreamKey, _Bar] = {}
        self._seconds: dict[int, _Second] = {}

    def heard(self, events: Sequence[Event]) -> list[Echo]:
        """Return what to show of these events."""
        effects: list[Echo] = []
        for event in events:
            match event:
                case Printed(at, node, slot, stream, text):
                    for line in self._lines((node, slot, stream), at, text):
                        effects += self._limited(node, at, Show(stream, prefix(node, slot) + self._shown(line)))
                case Logged(at, node):
                    effects += self._limited(node, at, self._harmless(event))
                case RunEnded():
                    for key, bar in self._bars.items():
                        effects += [Show(key[2], prefix(*key[:2]) + self._shown(line)) for line in _news(bar)]
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

    def _lines(self, key: _StreamKey, at: float, text: str) -> Iterator[str]:
        """Yield the lines to show of a text, each as it would finally look in a terminal."""
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

    def _limited(self, node: int, at: float, effect: Echo) -> list[Echo]:
        """Return it if the node is within its limit; otherwise count it."""
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

    def _turn(self, node: int, second: _Second, at: float) -> list[Echo]:
        """Begin another second if one is over. Note what was not shown once less is printed, or now and then."""
        if at - second.began < 1.0:
            return []
        told = second.held and (not second.cut or at - second.noted >= NOTE_INTERVAL_S)
        second.lines = min(BURST_LINES, second.lines + MAX_LINES_PER_S * (at - second.began))
        second.began, second.size, second.cut = at, MAX_CHARACTERS_PER_S, False
        if not told:
            return []
        second.noted = at
        return [self._note(node, second)]

    def _note(self, node: int, second: _Second) -> Show:
        held, second.held = second.held, 0
        lines = "1 line is" if held == 1 else f"{held:,} lines are"
        return Show("stderr", f"{prefix(node, -1)}{lines} not shown, as there were too many; all are in {self._where}")


def _latest(line: str) -> str:
    """Return the final text of a line that was overwritten; empty if it was erased."""
    return final(_UP.sub("", line))


def _news(bar: _Bar) -> Iterator[str]:
    """Yield the state of a bar if it was not shown yet."""
    if bar.latest and bar.latest != bar.last:
        bar.last = bar.latest
        yield bar.latest
