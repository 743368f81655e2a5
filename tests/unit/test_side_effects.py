"""Which functions are called for their side effects alone."""

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import KDTree

from skyward.plugins.side_effects import returns_nothing

TABLE: dict[int, int] = {}


def store(x: int) -> None:
    TABLE[x] = x


def leave_early(x: int) -> None:
    if x:
        return
    with open("/dev/null"):
        return None  # noqa: RET501


def store_and_return(x: int) -> int:
    TABLE[x] = x
    return x


def sometimes(x: int) -> int | None:
    if x:
        return None
    return 3


def whatever_that_returns(x: int) -> None:
    return store(x)


def generate(x: int) -> Iterator[int]:
    yield x


async def wait(x: int) -> None:
    await asyncio.sleep(0)


def timed[**P, T](fn: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(fn)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        return fn(*args, **kwargs)

    return inner


class Wrapped:
    """As scikit-learn wraps the functions of its calls."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn)

    def __call__(self, *args: Any) -> Any: ...


class Sink:
    def put(self, x: int) -> None:
        self.x = x

    def get(self) -> int:
        return self.x

    __call__ = put


@pytest.mark.parametrize(
    "function",
    [
        store,
        leave_early,
        timed(store),
        Wrapped(store),
        functools.partial(store, 1),
        functools.partial(timed(store), 1),
        lambda: None,
        Sink().put,
        Sink(),
        [].append,
        {}.update,
        set().add,
        deque().append,
        [0].__setitem__,
        np.zeros(1).__setitem__,
    ],
)
def test_a_function_that_can_return_nothing_but_none_is_called_for_its_side_effects(function: Any) -> None:
    assert returns_nothing(function)


@pytest.mark.parametrize(
    "function",
    [
        store_and_return,
        sometimes,
        whatever_that_returns,
        generate,
        wait,
        timed(store_and_return),
        Wrapped(store_and_return),
        functools.partial(sometimes, 1),
        lambda: 3,
        Sink().get,
        Sink,
        abs,
        "".join,
        np.zeros(1).sum,
        np.sin,
        int,
        KDTree([[0.0]]).query,  # compiled by Cython
    ],
)
def test_any_other_function_may_return_something(function: Any) -> None:
    assert not returns_nothing(function)
