"""`Nodes`: the number of machines of a pool, and its short forms. Driver only."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from skyward.config.validation import StrictModel, as_integer, as_number, refused
from skyward.errors import InvalidArgument

MAX_NODES = 10_000
"""Most machines of a pool."""


class Nodes(StrictModel):
    """How many machines: a fixed number, or as many as there is work for (`max=`).

    Parameters
    ----------
    count
        Number of machines to request. Leave it out if `max` is given: then it is `min`, or 1.
    min
        Number of machines that must be ready before the block is entered; `None`: all. The others join when they are
        ready. A machine that is not available is named in the log, and the pool continues without it as long as this
        many are left.
    max
        Largest number of machines. The pool grows when calls have waited for slots for some seconds; a machine that was
        idle for a minute is terminated, down to `min`. `nodes=(2, 10)` is `Nodes(min=2, max=10)`.
    start
        Another name for `count`, for a pool with `max`.
    """

    synonyms: ClassVar[Mapping[str, str]] = {
        "count": "n number num size nodes n_nodes num_nodes machines instances desired",
        "min": "minimum least min_nodes ready needed",
        "max": "maximum most max_nodes",
        "start": "initial initial_nodes begin",
    }

    count: int = Field(ge=1, le=MAX_NODES, description="give the number of machines", examples=["10"])
    min: int | None = Field(
        default=None, ge=1, description="give how many must be ready before work begins (left out: all)", examples=["8"]
    )
    max: int | None = Field(
        default=None, ge=1, le=MAX_NODES, description="give how many machines there may be", examples=["10"]
    )
    start: int | None = Field(
        default=None, ge=1, description="give how many machines there are in the beginning", examples=["4"]
    )

    def __init__(self, /, *unnamed: Any, **given: Any) -> None:
        if "count" not in given and given.get("max") is not None:
            first = given.get("start") or given.get("min") or 1
            given["count"] = first if isinstance(first, int) else 1  # the error names the argument itself
        super().__init__(*unnamed, **given)

    _numbers = field_validator("count", "min", "max", "start", mode="before")(as_integer)

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        """Compare the numbers. Errors use the names under which they were given."""
        count, low, high, start = self.count, self.min, self.max, self.start
        first = "start" if start == count else "min" if low == count else "count"
        if start is not None and high is None:
            raise InvalidArgument.of("start", start, "is for a pool that grows", "give max= as well, or count= alone")
        if start is not None and start != count:
            raise InvalidArgument.of("start", start, f"is another name for count, which is {count}", "give one of them")
        if low is not None and low > count:
            raise InvalidArgument.of("min", low, f"must be at most {first}, which is {count}", f"write min={count}")
        if high is not None and high < count:
            raise InvalidArgument.of("max", high, f"must be at least {first}, which is {count}", f"write max={count}")
        return self

    @property
    def needed(self) -> int:
        """Number of machines that must be ready before work begins, and that are kept when there is no work."""
        return self.count if self.min is None else self.min

    @property
    def elastic(self) -> bool:
        """Whether the number of machines depends on the work."""
        return self.max is not None and self.max > self.needed


def as_nodes(value: object) -> object:
    """Return the `Nodes` for a number of machines, or for a pair of numbers."""
    match value:
        case Nodes():
            return value
        case list() | tuple() if len(value) == 2:
            return _between(*map(as_integer, value))
        case type() if value is Nodes:
            raise refused("is a class", "call it: sky.Nodes(count=10)", "sky.Nodes")
        case dict() if value and value.keys() <= Nodes.model_fields.keys():
            given = ", ".join(f"{name}={number!r}" for name, number in value.items())
            raise refused("must be a whole number", f"write nodes=sky.Nodes({given})")
        case list() | tuple():
            raise refused("must be a number or a pair of numbers", "write nodes=(2, 10) for 2 to 10 machines")
    number = as_integer(value)
    if isinstance(number, bool) or not isinstance(number, int):
        meant = as_number(number) if isinstance(number, str | float) else None
        fits = meant is not None and 1 <= meant <= MAX_NODES and meant % 1 == 0
        raise refused("must be a whole number", f"write nodes={meant:.0f}" if fits else "")
    if not 1 <= number <= MAX_NODES:
        raise refused("must be at least 1" if number < 1 else f"must be at most {MAX_NODES}")
    return Nodes(count=number)


def _between(least: object, most: object) -> Nodes:
    """Return the `Nodes` of a pool with `least` to `most` machines."""
    numbers = least, most
    if any(isinstance(each, bool) or not isinstance(each, int) for each in numbers):
        raise refused("must be two whole numbers", "write nodes=(2, 10) for 2 to 10 machines")
    low, high = sorted(min(max(each, 1), MAX_NODES) for each in numbers if isinstance(each, int))
    if numbers == (low, high):
        return Nodes(min=low, max=high)
    problem = "the smaller number comes first" if numbers == (high, low) else f"both must be from 1 to {MAX_NODES}"
    raise refused(problem, f"write nodes={low, high}")
