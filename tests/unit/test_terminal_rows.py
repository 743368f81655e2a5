"""Rows that may still change are known from what was written, and lines can be put above them."""

import re

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.view.terminal_rows import MAX_ROW_LENGTH, MAX_ROWS, Rows, cells, moves
from tests.terminal import rows as seen_on

WIDTH, HEIGHT = 20, 9


class Paper:
    """A terminal, and what is known of its rows."""

    def __init__(self) -> None:
        self.screen = pyte.HistoryScreen(WIDTH, HEIGHT, history=1000)
        self.screen.set_mode(pyte.modes.LNM)
        self._stream = pyte.Stream(self.screen)
        self.rows = Rows()

    def write(self, *texts: str) -> None:
        for text in texts:
            self._stream.feed(text)
            self.rows.feed(text)

    def tell(self, lines: str) -> None:
        self._stream.feed(self.rows.above(lines, WIDTH, HEIGHT))

    @property
    def seen(self) -> list[str]:
        return seen_on(self.screen)


@pytest.mark.parametrize(
    ("texts", "rows"),
    [
        ([""], [""]),
        (["a\n"], [""]),
        (["a\nb\n"], [""]),
        (["a", "\n", "b"], ["b"]),
        (["abc\rd"], ["dbc"]),
        (["abc\r"], ["abc"]),
        (["abc\b\bx"], ["axc"]),
        (["a\x1b[31mb\x1b[m\x07c"], ["abc"]),
        (["\x1b]0;title\x07a"], ["a"]),
        (["ab\tc"], ["ab      c"]),
        (["abc\r\x1b[K"], [""]),
        (["abc\x1b[2D\x1b[1K"], [" bc"]),
        (["abc\x1b[2K"], [""]),
        (["abc\x1b[2G\x1b[C\x1b[K"], ["ab"]),
        (["a\nb"], ["a", "b"]),
        (["a\nb\nc"], ["a", "b", "c"]),
        (["a\nb", "\nc"], ["b", "c"]),
        (["a\nb", "\n"], [""]),
        (["a\nb", "\x1b[A\x1b[J"], ["a"]),
        (["a\nb", "\x1b[2J\x1b[Hc"], ["c"]),
        (["a\nb\nc\x1b[F\x1b[Ed"], ["a", "b", "d"]),
        (["x" * MAX_ROW_LENGTH, "y"], ["x" * MAX_ROW_LENGTH]),
    ],
)
def test_what_may_still_change_is_known(texts: list[str], rows: list[str]) -> None:
    known = Rows()
    for text in texts:
        known.feed(text)
    assert known.rows == rows
    assert known.open == bool(rows[-1])


def test_the_rows_of_nested_bars_are_known_once_the_cursor_was_moved_up() -> None:
    known = Rows()
    for text in ("before\n", "\rone", "\n", "\rtwo", "\x1b[A", "\rone", "\n\n", "\rthree", "\x1b[A\x1b[A"):
        known.feed(text)
    assert (known.rows, known.row, known.open) == (["?", "?", "three"], 0, True)
    for text in ("\rone", "\n", "\rtwo", "\x1b[A"):
        known.feed(text)
    assert (known.rows, known.row, known.open) == (["one", "two", "three"], 0, True)
    for text in ("\n\n", "\r     \r", "\x1b[A\x1b[A", "\n", "\r    \r", "\x1b[A", "\rone", "\n"):
        known.feed(text)
    assert not known.open
    known.feed("after")
    known.feed("\n\n")
    assert known.rows == [""]


def test_a_display_that_is_drawn_again_begins_where_the_cursor_was_moved_to() -> None:
    known = Rows()
    for text in ("one\ntwo", "\r\x1b[2K\x1b[1A\x1b[2Kprinted\none\ntwo", "\r\x1b[2K\x1b[1A\x1b[2Kone\ntwo"):
        known.feed(text)
    assert known.rows == ["one", "two"]
    known.feed("\r\x1b[2K\x1b[1A\x1b[2K")
    assert not known.open


def test_no_more_is_remembered_than_a_terminal_has() -> None:
    known = Rows()
    known.feed("x\n" * 2 * MAX_ROWS + "x")
    known.feed(f"\x1b[{10 * MAX_ROWS}A")
    assert len(known.rows) <= 2 * MAX_ROWS
    assert known.row == 0


@pytest.mark.parametrize("text", ["\x1b]" * 300_000, "\x1bP" + "x" * 3_000_000, "a\tb\n" * 1_000_000 + "end"])
def test_a_long_text_takes_no_longer_than_it_has_to(text: str) -> None:
    known = Rows()
    known.feed(text)
    assert known.rows[-1] == ("end" if text.endswith("end") else "")


def test_many_lines_at_once_stand_above_a_bar() -> None:
    known = Rows()
    known.feed("50%")
    lines = [f"{number:079}" for number in range(60_000)]
    sent = known.above("\n".join(lines) + "\n", 80, 24)
    assert re.findall(r"\d{79}(?=\n)", sent) == lines


def test_of_an_image_between_lines_nothing_counts() -> None:
    known = Rows()
    known.feed("a\x1bPq#0;2;0\n~~@@\n\x1b\\b")
    assert known.rows == ["ab"]


TEXT = st.text("ab中é", max_size=3 * WIDTH)
BAR = st.text("#-", min_size=1, max_size=WIDTH)


@given(
    before=st.integers(0, HEIGHT + 3),
    bars=st.lists(BAR, min_size=1, max_size=4),
    at=st.integers(0, 3),
    lines=st.lists(TEXT, min_size=1, max_size=12),
)
def test_lines_stand_above_bars_wherever_the_cursor_is(before: int, bars: list[str], at: int, lines: list[str]) -> None:
    paper, at = Paper(), min(at, len(bars) - 1)
    paper.write("old\n" * before)
    for number, bar in enumerate(bars):  # as tqdm does
        paper.write("\n" * number, f"\r{bar}", f"\x1b[{number}A" if number else "")
    paper.write("\n" * at, f"\r{bars[at]}")
    paper.tell("".join(f"{line}\n" for line in lines))
    paper.write("\r!", f"\x1b[{at}A" if at else "", "\r?")
    bars[at] = "!" + bars[at][1:]
    bars[0] = "?" + bars[0][1:]
    assert [line for line in paper.seen if line] == [*["old"] * before, *_wrapped(lines), *bars]


@given(before=st.integers(0, HEIGHT), bar=st.text("#", min_size=1, max_size=2 * WIDTH - 1), lines=st.lists(TEXT))
def test_lines_stand_above_a_line_that_is_wrapped_and_goes_on(before: int, bar: str, lines: list[str]) -> None:
    paper = Paper()
    paper.write("old\n" * before, bar)
    for line in lines:
        paper.tell(f"{line}\n")
    if len(bar) != WIDTH:  # then the cursor stands on the last column, not behind it
        bar += "+"
        paper.write("+")
    assert [line for line in paper.seen if line] == [*["old"] * before, *_wrapped([*lines, bar])]


def test_where_there_is_no_room_above_them_lines_stand_below() -> None:
    paper = Paper()
    paper.write("one\ntwo", "\x1b[A")
    paper.tell("a\n" + "x" * WIDTH * HEIGHT + "\nb\n")
    paper.write("\rone\ntwo")
    assert paper.seen == ["one", "two", "a", *["x" * WIDTH] * HEIGHT, "b", "one", "two"]


def _wrapped(lines: list[str]) -> list[str]:
    """What a terminal shows of lines, but for empty ones."""
    paper = Paper()
    for line in lines:
        paper.write(f"{line}\n")
    return [line for line in paper.seen if line]


@pytest.mark.parametrize(("text", "width"), [("", 0), ("ab", 2), ("中", 2), ("e\u0301", 1), ("🙂", 2)])
def test_columns_are_counted_as_a_terminal_does(text: str, width: int) -> None:
    assert cells(text) == width


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\n", False), ("\x1b[1;31ma\x1b[0m\n", False), ("\ra", True), ("a\x1b[K", True), ("\x1b[Aa", True)],
)
def test_what_moves_the_cursor_is_known(text: str, expected: bool) -> None:
    assert moves(text) is expected
