"""Escapes text of others, so that it cannot control the terminal. Pure: no I/O, no clock.

A control sequence can move the cursor, overwrite text, set the window's title or make the terminal answer. It is shown
as `\\x1b[2J` instead. Tabs and newlines stay; colors do where they are wanted, and end with their line.
"""

import re

_COLOR = r"\x1b\[[0-9;:]*m"
_ERASE_LINE = re.compile(r"\x1b\[[012]?K")
"""Erases a part of the line, as `grep` and `gcc` have it beside their colors; left out, as more is seen without it."""

_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLORED_PIECES = re.compile(f"({_COLOR})")
_RESET = "\x1b[0m"


def escape(text: str) -> str:
    """Return a text whose control characters are shown as `\\x1b`, but for tabs and newlines."""
    return _CONTROL_CHARACTER.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def colored(text: str) -> str:
    """Return a text that is escaped but for its colors, which end with each line."""
    if not _CONTROL_CHARACTER.search(text):
        return text
    return "\n".join(_line(line) for line in _ERASE_LINE.sub("", text).split("\n"))


def final(line: str) -> str:
    """Return what a line shows in the end: what comes after a carriage return is written over what was there."""
    return next((state.rstrip() for state in reversed(line.split("\r")) if _ERASE_LINE.sub("", state)), "")


def _line(line: str) -> str:
    pieces = _COLORED_PIECES.split(line)  # every second one is a color
    shown = "".join(piece if number % 2 else escape(piece) for number, piece in enumerate(pieces))
    is_open = len(pieces) > 1 and re.fullmatch(r"\x1b\[[0:;]*m", pieces[-2]) is None
    return f"{shown}{_RESET}" if is_open else shown
