"""Text in columns, and spans of time in words. Pure: no I/O, no clock."""

from collections.abc import Sequence

from skyward.view.escape import escape


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each row, each column as wide as its widest cell; rows have as many cells as the first."""
    rows = [[escape(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def span(seconds: float) -> str:
    """Return a span of time in its two largest units: `45s`, `12m 5s`, `3h 20m`, `2d 4h`."""
    left = max(0, int(seconds))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        parts.append(f"{count}{unit}" if count else "")
    first = next((index for index, part in enumerate(parts) if part), 3)
    return " ".join(filter(None, parts[first : first + 2])) or "0s"


def counted(count: int, thing: str) -> str:
    """Return a number of things: `1 machine`, `2 machines`."""
    return f"{count} {thing}{'' if count == 1 else 's'}"
