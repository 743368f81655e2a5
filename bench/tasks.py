"""The functions that travel to the workers.

A user's script defines its functions in `__main__`, and those are pickled by value, which costs more than a name.
`travelling` makes a function travel like that; as they stand here they travel by name.
"""

import os
import threading
import time
from collections.abc import Callable
from types import FunctionType
from typing import Any, cast


def square(x: int) -> int:
    """The least a task can do."""
    return x * x


def sleep(x: int, seconds: float) -> int:
    """A task that lasts, and needs no CPU, so that 100 slots fit on two cores."""
    time.sleep(seconds)
    return x


def sleep_unevenly(x: int, seconds: float, slower: float) -> int:
    """The same, but so many times as long on node 0 of a pool."""
    import skyward

    time.sleep(seconds * (slower if skyward.instance_info().node == 0 else 1.0))
    return x


def item(array: Any, index: int) -> float:
    """One item of an array."""
    return float(array[index])


def fill(x: int, items: int) -> Any:
    """An array of `items` numbers, all of them `x`."""
    import numpy

    return numpy.full(items, float(x))


def closure_over(values: Any) -> Callable[[int], float]:
    """Return a function that holds `values` in its closure and returns one item of them."""

    def look(index: int) -> float:
        return float(values[index])

    return look


def reading_global(values: Any) -> Callable[[int], float]:
    """Return a function of a script that has `values` in the global variable VALUES, and returns one item of them."""
    script = {"__name__": "__main__", "VALUES": values}
    exec("def look(index):\n    return float(VALUES[index])", script)
    return cast(Callable[[int], float], script["look"])


class Holder:
    """An object with a large array."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def item(self, index: int) -> float:
        """One item of it."""
        return float(self.values[index])


def bound_method(values: Any) -> Callable[[int], float]:
    """Return a method of an object that holds `values`, of a class that a script defines."""
    members = {"__init__": Holder.__init__, "item": Holder.item, "__module__": "__main__"}
    look: Callable[[int], float] = type("Holder", (), members)(values).item
    return look


def who(seconds: float) -> tuple[int, int]:
    """Which worker this is; slow enough that no worker takes two while another has none."""
    time.sleep(seconds)
    return os.getpid(), threading.get_ident()


def clock() -> float:
    """What the clock says that all processes of a machine share."""
    return time.perf_counter()


def travelling[**P, R](fn: Callable[P, R], *, by_value: bool) -> Callable[P, R]:
    """`fn`, or a copy of it that travels by value."""
    return _by_value(fn) if by_value else fn


def _by_value[**P, R](fn: Callable[P, R]) -> Callable[P, R]:
    """A copy of `fn` that pickles as a function of the user's own script does."""
    plain = cast(FunctionType, fn)
    copy = FunctionType(plain.__code__, plain.__globals__, plain.__name__, plain.__defaults__, plain.__closure__)
    copy.__module__ = "__main__"
    return cast(Callable[P, R], copy)
