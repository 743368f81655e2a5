"""Functions of a script, and what is made of them."""

# mypy: ignore-errors
# A script as its author may have left it: what counts is that it runs.

import asyncio
import contextlib
import functools
import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.kinds.report import case, report


@functools.lru_cache(maxsize=8, typed=True)
def fib(n: int) -> int:
    """Fibonacci."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)


@case
def lru_cache() -> Any:
    parameters = fib.cache_parameters()
    return fib(20), parameters, fib.__name__, fib.__doc__, fib.__wrapped__.__name__, fib.__module__


class Series:
    factor = 3

    @functools.cache  # noqa: B019
    def term(self, n: int) -> int:
        return n * self.factor

    @staticmethod
    @functools.cache
    def fixed(n: int) -> int:
        return n + 1

    @classmethod
    @functools.cache
    def of_class(cls, n: int) -> int:
        return n * cls.factor

    @functools.cached_property
    def total(self) -> int:
        return sum(self.term(n) for n in range(5))

    @functools.singledispatchmethod
    def kind(self, value: object) -> str:
        return "object"

    @kind.register
    def _(self, value: int) -> str:
        return f"int {value * self.factor}"

    tripled = functools.partialmethod(term, 3)


@case
def cached_methods() -> Any:
    series = Series()
    return series.term(2), Series.fixed(1), Series.of_class(4), series.total, series.tripled()


@case
def singledispatch_methods() -> Any:
    return Series().kind(4), Series().kind("4")


@functools.singledispatch
def show(value: object) -> str:
    return "object"


@show.register
def _(value: int) -> str:
    return f"int {value}"


@show.register
def _(value: Series) -> str:
    return "series"


@case
def singledispatch() -> Any:
    return show(1), show(True), show("x"), show(Series()), sorted(each.__name__ for each in show.registry)


def timed[**P, T](fn: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(fn)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        return fn(*args, **kwargs)

    return inner


@timed
def wrapped(x: int) -> int:
    "Doubles."
    return 2 * x


@case
def functools_wraps() -> Any:
    return wrapped(4), wrapped.__name__, wrapped.__doc__, wrapped.__wrapped__(5)


async def later(x: int) -> int:
    await asyncio.sleep(0)
    return x + 1


async def counting(n: int) -> Any:
    for each in range(n):
        yield each


@case
def coroutines() -> Any:
    async def run() -> list[int]:
        return [each async for each in counting(3)] + [await later(4)]

    return asyncio.run(run())


def generator(n: int) -> Iterator[int]:
    received = yield n
    yield from range(received or n)


@case
def generators() -> Any:
    return list(generator(3)), sum(x for x in generator(4))


@contextlib.contextmanager
def managed(name: str) -> Iterator[str]:
    yield name.upper()


@case
def context_managers() -> Any:
    with managed("a") as name:
        return name


PICK = operator.itemgetter("b", "a")
GET = operator.attrgetter("factor")
CALL = operator.methodcaller("upper")
ADD = functools.partial(operator.add, 3)
PATTERN = re.compile(r"(?P<word>\w+)!", re.IGNORECASE)


@case
def operators() -> Any:
    return PICK({"a": 1, "b": 2}), GET(Series), CALL("x"), ADD(4), PATTERN.match("Hi!").group("word")


def generic_function[T: (int, str), *Ts, **P](x: T) -> T:
    return x


@case
def type_parameters_of_a_function() -> Any:
    return [(type(each).__name__, each.__name__) for each in generic_function.__type_params__], generic_function(3)


def counter() -> Callable[[], int]:
    n = 0

    def step() -> int:
        nonlocal n
        n += 1
        return n

    return step


STEP = counter()


@case
def closures() -> Any:
    made = counter()
    return made(), made(), STEP()


def defaults(a: int, b: list[int] | None = None, /, *, c: dict[str, int] = {"x": 1}) -> Any:  # noqa: B006
    return a, b, c


@case
def default_values() -> Any:
    return defaults(1), defaults.__kwdefaults__


if __name__ == "__main__":
    report()
