"""Columns and spans of time, as the command prints them."""

import pytest

from skyward.cli.table import columns, counted, span


def test_each_column_is_as_wide_as_its_widest_cell() -> None:
    assert columns([("RUN", "TASKS", ""), ("a", "2000", "x"), ("long", "1", "")]) == [
        "RUN   TASKS",
        "a     2000   x",
        "long  1",
    ]
    assert columns([]) == []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0s"),
        (0.9, "0s"),
        (45, "45s"),
        (60, "1m"),
        (725, "12m 5s"),
        (12000, "3h 20m"),
        (3605, "1h"),
        (187200, "2d 4h"),
    ],
)
def test_a_span_of_time_has_its_two_largest_units(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_things_are_counted() -> None:
    assert [counted(1, "machine"), counted(2, "machine"), counted(0, "pool")] == ["1 machine", "2 machines", "0 pools"]
