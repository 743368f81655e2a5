"""Text of others on a terminal: it is seen, and moves nothing."""

import pyte
import pytest

from skyward.view.escape import colored, escape, final

RED, END = "\x1b[31m", "\x1b[0m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nof two lines, mit Umlaut ü", "plain\ttext\nof two lines, mit Umlaut ü"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rb\x08c\x9bm\x7f\x00", r"a\x0db\x08c\x9bm\x7f\x00"),
        (f"{RED}red{END}", r"\x1b[31mred\x1b[0m"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    assert escape(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext", "plain\ttext"),
        (f"{RED}red{END} and not", f"{RED}red{END} and not"),
        (f"{RED}red\x1b[m", f"{RED}red\x1b[m"),
        (f"{RED}red\nnot red", f"{RED}red{END}\nnot red"),
        ("\x1b[38;5;196mone\x1b[1mtwo", f"\x1b[38;5;196mone\x1b[1mtwo{END}"),
        (f"{RED}\x1b[Kmatch\x1b[m\x1b[K rest", f"{RED}match\x1b[m rest"),
        (f"{RED}\x1b[2Jred", rf"{RED}\x1b[2Jred{END}"),
        ("\x1b[5n\x1b[3;1H", r"\x1b[5n\x1b[3;1H"),
        ("\x1b[31", r"\x1b[31"),
    ],
)
def test_colors_stay_and_end_with_their_line(text: str, shown: str) -> None:
    assert colored(text) == shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain", "plain"),
        ("10%\r20%\r", "20%"),
        ("10%\r\x1b[2K", "10%"),
        ("\x1b[2K\r 30%", " 30%"),
        ("\r", ""),
    ],
)
def test_of_a_line_that_is_written_over_the_end_is_shown(line: str, shown: str) -> None:
    assert final(line) == shown


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\x1b[H", "\x1b[3A", "\x1b7\x1b[9;9Hx\x1b8", "\x1b]0;t\x07", "\x1bc", "\x9b2J", "\x0e"]
)
@pytest.mark.parametrize("made", [escape, colored])
def test_a_terminal_shows_every_character_where_it_belongs(text: str, made: "type[str]") -> None:
    screen = pyte.Screen(60, 3)
    stream = pyte.Stream(screen)
    stream.feed(f"before\r\n{made(text)}after")

    assert screen.display[0].rstrip() == "before"
    assert screen.display[1].rstrip() == f"{text.encode('unicode_escape').decode()}after"
    assert screen.title == ""
