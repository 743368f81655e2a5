"""The conditions a call runs under, and the checks of numbers that a caller gives. Pure."""

import math
import operator
from dataclasses import dataclass

from skyward.errors import InvalidArgument

MAX_COUNT = 1_000_000_000
"""No count is larger than this."""


def whole_number(name: str, value: object, least: int, fix: str) -> int:
    """Return a count as an `int`; NumPy's integers are welcome, `True` is none.

    Raises
    ------
    InvalidArgument
        It is no whole number, or less than `least`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidArgument.of(name, value, "must be a whole number", fix)
    number = operator.index(value)
    if number < least:
        raise InvalidArgument.of(name, value, f"must be at least {least}", fix)
    if number > MAX_COUNT:
        raise InvalidArgument.of(name, value, f"must be at most {MAX_COUNT}", fix)
    return number


def seconds(name: str, value: object, fix: str) -> float:
    """Return a time as a `float`.

    Raises
    ------
    InvalidArgument
        It is no number, or not more than 0.
    """
    if isinstance(value, bool | str) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise InvalidArgument.of(name, value, "must be a number of seconds", fix)
    number = float(value)  # type: ignore[arg-type]
    if not number > 0 or math.isinf(number):
        raise InvalidArgument.of(name, value, "must be more than 0 seconds", fix)
    return number


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The conditions a call runs under.

    Attributes
    ----------
    timeout
        Seconds it may run, counted from its start on a slot; then it is stopped and raises `TimeoutError`.
    node
        The number of the only node it may run on.
    retries
        Attempts after the first when its slot or node dies; None for the pool's `Options.retries`.
    """

    timeout: float | None = None
    node: int | None = None
    retries: int | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None:
            object.__setattr__(self, "timeout", seconds("timeout", self.timeout, "leave it out for no limit"))
        if self.node is not None:
            number = whole_number("node", self.node, 0, "give the number of a node, from 0, or leave it out for any")
            object.__setattr__(self, "node", number)
        if self.retries is not None:
            number = whole_number("retries", self.retries, 0, "leave it out for the pool's default")
            object.__setattr__(self, "retries", number)


DEFAULT = CallOptions()
"""No timeout, any node, the pool's retries."""
