"""The last rows of a terminal that may still change, such as a progress bar. Pure: no I/O, no clock.

A text that was written at once and did not end its last line may be overwritten as a whole, and so may all rows from
the one that the cursor was moved up to: nested bars, and displays of several rows.
"""

import re
import unicodedata

_TERMINAL_PIECES = re.compile(
    r"\x1b\[(?P<figures>[0-9;:<=>?]*)[ -/]*(?P<command>[@-~])"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]"
    r"|(?P<control>[\n\r\b])"
    r"|(?P<text>[^\x1b\n\r\b]+)"
)
_MOVES = re.compile(r"[\r\b]|\x1b(?!\[[0-9;:]*m)")
_CONTROL_CODE = re.compile(r"[\x00-\x1f\x7f-\x9f]")

MAX_ROW_LENGTH, MAX_ROWS = 4096, 500
"""Maximum characters of a row, and rows, that are kept."""

UNKNOWN = "?"
"""Placeholder for a row that was written before, and that the cursor was moved up to."""


class Rows:
    """The rows that may still change, the highest first, and the position of the cursor in them."""

    def __init__(self) -> None:
        self.rows = [""]
        self.row = self.column = 0
        self._revised = False  # whether the text that is fed has begun a row, or gone back to one

    @property
    def open(self) -> bool:
        """Whether the row of the cursor, or one below it, has text."""
        return any(row.strip() for row in self.rows[self.row :])

    def close(self) -> None:
        """Forget the rows: the cursor is at the beginning of an empty one."""
        self.rows, self.row, self.column = [""], 0, 0

    def feed(self, text: str) -> None:
        """Follow the cursor through a text that is written at once."""
        if self.row == len(self.rows) - 1 and text.endswith("\n") and "\x1b" not in text:
            self.close()
            return
        if text.isprintable():
            self._put(text)
            return
        highest = self.row
        self._revised = False
        for piece in _TERMINAL_PIECES.finditer(text, _beginning(text)):
            if piece["text"] is not None:
                self._put(piece["text"])
            elif piece["control"] is not None:
                self._control(piece["control"])
            elif piece["command"] is not None:
                self._command(piece["command"], piece["figures"])
            highest = min(highest, self.row)
        if self._revised:
            self._drop(highest if self.open else self.row)
        self._drop(min(self.row, len(self.rows) - MAX_ROWS))

    def _drop(self, count: int) -> None:
        if count > 0:
            del self.rows[:count]
            self.row -= count

    def _put(self, text: str) -> None:
        text = text[:MAX_ROW_LENGTH]
        if not text.isprintable():
            text = _CONTROL_CODE.sub("", (" " * self.column + text).expandtabs()[self.column :])
        text = text[:MAX_ROW_LENGTH]
        row = self.rows[self.row].ljust(self.column)
        self.rows[self.row] = (row[: self.column] + text + row[self.column + len(text) :])[:MAX_ROW_LENGTH]
        self.column = min(self.column + len(text), MAX_ROW_LENGTH)

    def _control(self, control: str) -> None:
        match control:
            case "\n":
                self._down(1)
                self.column = 0
            case "\r":
                self.column = 0
            case _:
                self.column = max(0, self.column - 1)

    def _command(self, command: str, figures: str) -> None:
        figure = min(int(figures), MAX_ROWS) if figures.isdecimal() else 0
        here = self.rows[self.row]
        match command:
            case "A" | "F":
                missing = max(0, max(1, figure) - self.row)
                self.rows[:0] = [UNKNOWN] * missing
                self.row += missing - max(1, figure)
                self._revised = True
            case "B" | "E":
                self._down(max(1, figure))
            case "C":
                self.column += max(1, figure)
            case "D":
                self.column = max(0, self.column - max(1, figure))
            case "G":
                self.column = max(0, figure - 1)
            case "K":
                ends = {0: here[: self.column], 1: " " * self.column + here[self.column :]}
                self.rows[self.row] = ends.get(figure, "")
            case "J" if figure == 0:
                self.rows[self.row] = here[: self.column]
                del self.rows[self.row + 1 :]
            case "J" | "H" | "f" | "d":
                self.close()
            case _:
                pass
        if command in "EF":
            self.column = 0

    def _down(self, count: int) -> None:
        self.row += count
        missing = self.row + 1 - len(self.rows)
        self.rows += [""] * missing
        self._revised |= missing > 0

    def above(self, text: str, width: int, height: int) -> str:
        """Return the text that shows lines above the rows in a terminal of this size, or below if there is no room."""
        tall = [_height(row, width) for row in self.rows]
        up = sum(tall[: self.row]) + _height(self.rows[self.row][: self.column], width) - 1
        down = sum(tall) - 1 - up
        most = height - sum(tall)
        sent, held, count = "", "", 0
        at = 0
        for line in text.removesuffix("\n").split("\n"):
            needed = _height(_plain(line), width)
            if needed > most:
                self.close()
                return sent + (f"\x1b[{down}B" if down else "") + f"\n{held}{text[at:]}"
            if count + needed > most:
                sent += _inserted(held, count, up, down)
                held, count = "", 0
            held, count, at = f"{held}{line}\n", count + needed, at + len(line) + 1
        return sent + _inserted(held, count, up, down)


def _beginning(text: str) -> int:
    """Return where the last `MAX_ROWS` rows of a text begin."""
    at = len(text)
    for _ in range(MAX_ROWS):
        at = text.rfind("\n", 0, at)
        if at <= 0:
            return 0
    return at


def moves(text: str) -> bool:
    """Whether a text moves the cursor other than by printing it."""
    return _MOVES.search(text) is not None


def cells(text: str) -> int:
    """Return the number of columns of a text in a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF") for each in text)


def _plain(line: str) -> str:
    return _CONTROL_CODE.sub("", "".join(piece["text"] or "" for piece in _TERMINAL_PIECES.finditer(line)).expandtabs())


def _height(text: str, width: int) -> int:
    return max(1, -(-cells(text) // width))


def _inserted(lines: str, count: int, up: int, down: int) -> str:
    """Return the text that inserts lines `up` rows above the cursor, which moves down with its row.

    It scrolls first, so that no row of the `down` ones below the cursor is lost.
    """
    room = "\x1bD" * (down + count) + f"\x1b[{down + count}A"
    climb = f"\x1b[{up}A" if up else ""
    return f"{room}\x1b7\r{climb}\x1b[{count}L\x1b[m{lines}\x1b8\x1b[{count}B"
