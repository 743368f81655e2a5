"""The options that several commands share, and how numbers are read."""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter, Token

type AsJson = Annotated[bool, Parameter(help="Output JSON.", negative="")]


def whole(_: object, given: Sequence[Token]) -> int:
    """Read a whole number."""
    try:
        return int(given[-1].value)
    except ValueError:
        raise ValueError(f"{given[-1].value!r} is not a whole number") from None


def number(_: object, given: Sequence[Token]) -> float:
    """Read a number."""
    try:
        return float(given[-1].value)
    except ValueError:
        raise ValueError(f"{given[-1].value!r} is not a number") from None
