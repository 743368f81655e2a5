"""How many items an iterable gives is known where it is certain, and left open where it is not."""

import io
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from rich.progress import Progress, track
from tqdm import tqdm
from tqdm.rich import tqdm as rich

from skyward.calls.iterable_length import length_of

FIVE, ONE = list(range(5)), [1]
bar = partial(tqdm, file=io.StringIO())


def given() -> Iterator[int]:
    yield from FIVE


def tracked(sequence: list[int], total: int = 5, completed: int = 0) -> Iterator[int]:
    yield from sequence[:2]


class Odd:
    """An iterable that gives other than it says."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[int]:
        return iter(FIVE)

    def __length_hint__(self) -> int:
        return 4


class Indexed:
    """A data set that has no end, and says the length of an epoch."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        return index


class Twice(tqdm):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[int]:
        for each in super().__iter__():
            yield from (each, each)


def over(iterator: Any, make: Callable[[Any], Any]) -> Any:
    return make(iterator)


def beside(others: Iterable[int]) -> Callable[[int], tuple[int, int]]:
    return lambda each: (each, next(iter(others)))


class Paired:
    """What takes from its own iterator in two ways."""

    def __init__(self) -> None:
        self.items = iter(range(6))

    def pair(self, each: int) -> tuple[int, int]:
        return each, next(self.items)

    def generated(self) -> Iterator[tuple[int, int]]:
        return ((each, next(self.items)) for each in self.items)

    def mapped(self) -> Iterator[tuple[int, int]]:
        return map(self.pair, self.items)


def called(function: Callable[[], Any]) -> Any:
    return function()


def begun(iterator: Iterator[Any], count: int = 2) -> Iterator[Any]:
    for _ in range(count):
        next(iterator)
    return iterator


def ended(iterator: Iterator[Any]) -> Iterator[Any]:
    assert len(list(iterator)) == 5
    return iterator


CERTAIN: dict[str, Callable[[], Any]] = {
    "list": lambda: FIVE,
    "tuple": lambda: tuple(FIVE),
    "dict": lambda: dict.fromkeys(FIVE),
    "items": lambda: dict.fromkeys(FIVE).items(),
    "deque": lambda: deque(FIVE),
    "range": lambda: range(5),
    "iterator": lambda: iter(FIVE),
    "begun": lambda: begun(iter(range(7))),
    "reversed": lambda: reversed(FIVE),
    "array": lambda: iter(np.zeros((5, 2))),
    "values": lambda: iter(dict.fromkeys(FIVE).values()),
    "characters": lambda: iter("абвгд"),
    "zip": lambda: zip(FIVE, range(6), strict=False),
    "zip with what has no end": lambda: zip(itertools.count(), FIVE, itertools.repeat(1), itertools.cycle("a")),
    "enumerate": lambda: enumerate(FIVE),
    "map": lambda: map(abs, FIVE),
    "repeat": lambda: itertools.repeat(1, 5),
    "product": lambda: itertools.product([1], FIVE),
    "generator": lambda: (abs(i) for i in FIVE),
    "generator that has begun": lambda: begun(abs(i) for i in range(7)),
    "generator over enumerate": lambda: (abs(i) for i, _ in enumerate(FIVE)),
    "generator over a generator": lambda: (abs(i) for i in (i + 1 for i in FIVE)),
    "generator over a product": lambda: (abs(i) for (i, _), _ in itertools.product(enumerate(FIVE), [0])),
    "generator with two loops": lambda: (i + j for i in FIVE for j in ONE),
    "generator with three loops": lambda: (i + str(j + k) for i in "a" for j in ONE for k in range(5)),
    "generator with a loop over a constant": lambda: (i + j for i in FIVE for j in (7,)),
    "generator with a loop over what is there": lambda: over(FIVE, lambda five: (i + j for i in ONE for j in five)),
    "generator with a loop over a range of names": lambda: over(5, lambda n: (i for _ in ONE for i in range(0, n, 1))),
    "generator with two loops and a loop in its item": lambda: ([k for k in FIVE if k] for i in FIVE for j in ONE),
    "slice": lambda: itertools.islice(range(9), 5),
    "slice that is longer": lambda: itertools.islice(FIVE, 9),
    "slice with steps": lambda: itertools.islice(range(20), 3, 16, 3),
    "slice to the end": lambda: itertools.islice(range(12), 3, None, 2),
    "slice that has begun": lambda: begun(itertools.islice(range(20), 2, 16, 2)),
    "slice of what has no end": lambda: itertools.islice(itertools.count(), 5),
    "slice of a generator": lambda: itertools.islice((i for i in range(9)), 5),
    "generator over a slice": lambda: (abs(i) for i in itertools.islice(range(9), 5)),
    "track": lambda: track(FIVE, disable=True),
    "track that was told": lambda: track(given(), total=5, disable=True),
    "track that was told what was done before": lambda: track(given(), total=8, completed=3, disable=True),
    "track of a progress": lambda: Progress(disable=True).track(FIVE),
    "generator over track": lambda: (abs(i) for i in track(FIVE, disable=True)),
    "generator with a condition in its item": lambda: (i if i > 2 else -i for i in FIVE),
    "generator with another loop in its item": lambda: ([j for j in range(i) if j] for i in FIVE),
    "generator with a generator in its item": lambda: (sum(j for j in range(i) if j) for i in FIVE),
    "generator with `and` in its item": lambda: (i and -i for i in FIVE),
    "generator with a comparison in its item": lambda: (1 < i < 3 for i in FIVE),
    "bar": lambda: bar(FIVE),
    "bar that was told": lambda: bar(given(), total=5),
    "bar over a generator": lambda: bar(abs(i) for i in FIVE),
    "bar that was told what was done before": lambda: bar(given(), total=8, initial=3),
    "zip with one list": lambda: zip(FIVE, itertools.repeat([1, 2]), strict=False),
    "zip of one list": lambda: zip(FIVE, FIVE, strict=True),
    "map of a method": lambda: map(Paired().pair, FIVE),
    "map of a function with a closure": lambda: over(iter(FIVE), lambda it: map(beside(FIVE), it)),
    "rich bar": lambda: rich(FIVE),
    "generator over a bar": lambda: (abs(i) for i in bar(FIVE)),
    "generator over a bar that was told": lambda: (abs(i) for i in bar(given(), total=5)),
}

UNCERTAIN: dict[str, Callable[[], Any]] = {
    "generator function": given,
    "generator with a filter": lambda: (i for i in FIVE if i),
    "generator with a filter that lets all pass": lambda: (i for i in FIVE if i < 9),
    "generator with two filters": lambda: (i for i in FIVE if i if i > 1),
    "generator with a filter and a condition": lambda: (i if i > 1 else 0 for i in FIVE if i < 9),
    "generator with a loop that depends on another": lambda: (j for i in [[1], [2, 3]] for j in i),
    "generator with a range that depends on another loop": lambda: (j for i in FIVE for j in range(i)),
    "generator with a loop over a call": lambda: (i + j for i in FIVE for j in list(FIVE)),
    "generator with a loop over an attribute": lambda: (i + j for i in FIVE for j in np.arange(3).flat),
    "generator with a loop over an iterator": lambda: over(
        iter(range(3)), lambda it: (i + j for i in FIVE for j in it)
    ),
    "generator with a loop over an object": lambda: over(Odd(), lambda odd: (i + j for i in FIVE for j in odd)),
    "generator with two loops and a filter": lambda: (i + j for i in FIVE for j in FIVE if j),
    "generator with two loops and a filter between": lambda: (i + j for i in FIVE if i for j in FIVE),
    "generator with two loops that has begun": lambda: begun((i + j for i in FIVE for j in FIVE), 1),
    "generator with a loop without an end": lambda: over(
        [], lambda none: (i + j for i in itertools.count() for j in none)
    ),
    "generator with a loop over what is captured": lambda: (called(lambda: i) for i in [[1]] for _ in i),  # noqa: B023
    "generator with a range of another name": lambda: over(given, lambda range: (i for i in FIVE for _ in range())),
    "slice of what is not known": lambda: itertools.islice(given(), 5),
    "slice and what it is taken from": lambda: over(
        iter(FIVE), lambda it: zip(itertools.islice(it, 2), it, strict=False)
    ),
    "slice without an end": lambda: itertools.islice(itertools.count(), 3, None),
    "track of what is not known": lambda: track(given()),
    "track that has begun": lambda: begun(iter(track(FIVE, disable=True)), 1),
    "generator function that is called track": lambda: tracked(FIVE),
    "generator over a generator function": lambda: (i for i in given()),
    "generator that has ended": lambda: ended(i for i in FIVE),
    "what says a length that is another one": lambda: iter(given()),
    "somebody's own container": Odd,
    "subclass of list": type("Own", (list,), {"__iter__": lambda _: iter("abc")}),
    "product that has begun": lambda: begun(itertools.product(FIVE, FIVE)),
    "filter": lambda: filter(None, FIVE),
    "zip with what is not known": lambda: zip(FIVE, given(), strict=True),
    "no end": itertools.count,
    "always the same": lambda: itertools.repeat(1),
    "file": io.StringIO,
    "bar that was told nothing": lambda: bar(given()),
    "no iterable": lambda: 3,
    "pairs of one iterator": lambda: zip(*[iter(FIVE)] * 2, strict=False),
    "an iterator and what counts it": lambda: over(iter(FIVE), lambda it: zip(enumerate(it), it, strict=False)),
    "two generators over one iterator": lambda: over(iter(FIVE), lambda it: zip((i for i in it), it, strict=False)),
    "pairs by a generator": lambda: over(iter(range(6)), lambda it: ((i, next(it)) for i in it)),
    "pairs by a function": lambda: over(iter(range(6)), lambda it: map(beside(it), it)),
    "pairs by an object": lambda: Paired().generated(),
    "pairs by a method": lambda: Paired().mapped(),
    "pairs by a partial": lambda: over(iter(range(6)), lambda it: map(partial(lambda a, b: (b, next(a)), it), it)),
    "pairs of a global iterator": lambda: eval("((i, next(it)) for i in it)", {"it": iter(range(6))}),
    "map that ends by its function": lambda: map(next, [iter(FIVE[:2])] * 5),
    "items of what has another length": lambda: iter(Indexed()),
    "generator over what has another length": lambda: (i for i in Indexed()),  # type: ignore[attr-defined]
    "subclass of map": lambda: type("Own", (map,), {"__next__": lambda _: next(iter(()))})(abs, FIVE),
    "subclass of enumerate": lambda: type("Own", (enumerate,), {"__iter__": lambda _: iter("abc")})(FIVE),
    "bar that gives other items": lambda: Twice(FIVE, file=io.StringIO()),
}


@pytest.mark.filterwarnings("ignore:rich is experimental")
@pytest.mark.parametrize("kind", CERTAIN)
def test_a_length_that_is_certain_is_known_and_nothing_is_taken(kind: str) -> None:
    iterable = CERTAIN[kind]()
    assert length_of(iterable) == 5
    if kind != "rich bar":
        assert sum(1 for _ in iterable) == 5


@pytest.mark.parametrize("kind", UNCERTAIN)
def test_of_a_length_that_is_not_certain_nothing_is_said(kind: str) -> None:
    iterable = UNCERTAIN[kind]()
    assert length_of(iterable) is None


def test_no_code_of_the_user_runs() -> None:
    class Trap(Odd):
        def __len__(self) -> int:
            raise AssertionError

        __iter__ = __length_hint__ = __len__  # type: ignore[assignment]

    assert length_of(Trap()) is None


def test_no_attribute_is_asked_of_what_an_item_is_made_with() -> None:
    class Trap:
        __slots__ = ()

        def __getattr__(self, name: str) -> None:
            raise AssertionError

    trap = Trap()
    assert length_of((i, trap) for i in FIVE) == 5
