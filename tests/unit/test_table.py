"""Columns, as the command prints them."""

from skyward.cli.table import columns


def test_each_column_is_as_wide_as_its_widest_cell() -> None:
    assert columns([("RUN", "TASKS", ""), ("a", "2000", "x"), ("long", "1", "")]) == [
        "RUN   TASKS",
        "a     2000   x",
        "long  1",
    ]
    assert columns([]) == []
