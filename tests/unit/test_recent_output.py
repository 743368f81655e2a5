"""What of the output of tasks is kept for the page."""

import pytest

from skyward.events import Logged, Printed
from skyward.view.recent_output import MAX_LINE_LENGTH, Output


def printed(text: str, slot: int = 0) -> Printed:
    return Printed(100.0, 3, slot, "stderr", text)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("one\ntwo\n", ["one", "two"], id="lines"),
        pytest.param("part", ["part"], id="what there is of a line"),
        pytest.param("10%\r20%\rall\n", ["all"], id="a bar"),
        pytest.param("\x1b[31mred\x1b[0m\n\n", ["red", ""], id="colors"),
        pytest.param("x" * (MAX_LINE_LENGTH + 9), ["x" * MAX_LINE_LENGTH], id="a long line"),
    ],
)
def test_lines_are_as_a_terminal_shows_them(text: str, lines: list[str]) -> None:
    output = Output()
    output.add(5, printed(text))
    assert output.all() == {"3:0": (0, [(5, "stderr", line) for line in lines])}


def test_records_have_their_level_and_their_traceback() -> None:
    output = Output()
    output.add(5, Logged(100.0, 3, 0, "train", 45, "no", "Traceback\nValueError"))
    texts = [line[2] for line in output.all()["3:0"][1]]
    assert texts == ["ERROR train: no", "Traceback", "ValueError"]


def test_each_slot_keeps_its_share_and_the_newest() -> None:
    output = Output(most=100)
    output.add(1, printed("a" * 90))
    output.add(2, printed("b" * 40, slot=1))
    output.add(3, printed("c" * 40))
    output.add(4, printed("d" * 200, slot=1))
    told = output.all()
    assert [(key, first, [line[2][0] for line in lines]) for key, (first, lines) in told.items()] == [
        ("3:0", 1, ["c"]),
        ("3:1", 1, ["d"]),
    ]


def test_news_are_told_once_and_their_numbers_go_on() -> None:
    output = Output(most=10)
    output.add(1, printed("aaaa\nbbbb\n"))
    assert output.news()["3:0"][0] == 0
    output.add(2, printed("cccc"))
    output.add(2, printed("dddd", slot=1))
    assert output.news() == {"3:0": (2, [(2, "stderr", "cccc")]), "3:1": (0, [(2, "stderr", "dddd")])}
    assert output.news() == {}
