"""Text in columns. Pure: no I/O, no clock."""

from collections.abc import Sequence

from skyward.view.escape import escape


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each row, each column as wide as its widest cell; rows have as many cells as the first."""
    rows = [[escape(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
