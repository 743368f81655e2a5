"""Objects of a script, those that cannot travel, and what comes home."""

# mypy: ignore-errors
# A script as its author may have left it: what counts is that it runs.

import contextvars
import enum
import functools
import json
import logging
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, NewType

import skyward as sky
from tests.kinds.report import case, report, same_at_home


class Plain:
    made: ClassVar[int] = 0

    def __init__(self, a: int) -> None:
        self.a = a

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and self.a == other.a

    def __hash__(self) -> int:
        return self.a


class Color(enum.Enum):
    RED = 1


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Point(NamedTuple):
    x: int


class Base:
    heirs: ClassVar[list[str]] = []

    def __init_subclass__(cls, *, title: str) -> None:
        cls.title = title
        Base.heirs.append(cls.__name__)


class Heir(Base, title="heir"):
    def __eq__(self, other: object) -> bool:
        return type(other) is Heir

    def __hash__(self) -> int:
        return 1


class FailedError(Exception):
    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"failed {code}")
        self.code, self.hint = code, hint


UserId = NewType("UserId", int)
type Pair = tuple[int, int]
T = typing.TypeVar("T")


@functools.cache
def cached(n: int) -> int:
    return n


LOG = logging.getLogger("kinds.log")
MODULE = types.ModuleType("made_here")
MODULE.value = 7
MISSING = object()


class Sentinel:
    pass


NOTHING = Sentinel()


def defaulting(x: object = MISSING, y: object = NOTHING) -> tuple[bool, bool]:
    return x is MISSING, y is NOTHING


@case
def sentinels() -> Any:
    return defaulting(), defaulting(1, 2)


@case
def loggers_and_modules() -> Any:
    return LOG.name, LOG is logging.getLogger("kinds.log"), MODULE.value, json.dumps([1]), sys.version_info[:2]


WEAK = weakref.WeakKeyDictionary({Plain: 1})
WEAK_VALUES = weakref.WeakValueDictionary({"a": Plain})


@case
def weak_dictionaries() -> Any:
    return WEAK[Plain], WEAK_VALUES["a"] is Plain


@sky.remote
def remote_factorial(n: int) -> int:
    return 1 if n < 2 else n * remote_factorial(n - 1)


@case
def remote_functions() -> Any:
    return remote_factorial(5)


@same_at_home
def instances() -> Any:
    return [Plain(3), Color.RED, Access.READ | Access.WRITE, Point(1), Heir()]


@same_at_home
def what_is_defined() -> Any:
    return [Plain, Color, Point, Heir, FailedError, UserId, Pair, T, cached]


@case
def made_in_the_task() -> Any:
    """What a task defines comes home, also when it inherits from what the script defines."""

    class Made(Base, title="made"):
        def __eq__(self, other: object) -> bool:
            return type(other).__name__ == "Made" and isinstance(other, Base)

        def __hash__(self) -> int:
            return 0

        def __repr__(self) -> str:
            return f"Made {self.title}"

    return Made()


@case
def errors_of_the_script() -> Any:
    return FailedError(3, hint="again").args


# ---------------------------------------------------------------- what cannot travel

MAIN = sys.modules[__name__]
LOCK = threading.Lock()
DEAD = weakref.ref(Plain)
VAR = contextvars.ContextVar("VAR", default=3)


class ByName:
    """A sentinel as many write them."""

    def __reduce__(self) -> str:
        return "BY_NAME"


BY_NAME = ByName()


class Held:
    def __init__(self, what: Any) -> None:
        self.what = what


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "lock": (lambda: LOCK, "fn: global variable 'LOCK'"),
    "weak reference": (lambda: DEAD, "fn: global variable 'DEAD'"),
    "context variable": (lambda: VAR, "fn: global variable 'VAR'"),
    "by its name": (lambda: BY_NAME, "fn: global variable 'BY_NAME'"),
    "by its name, held": (functools.partial(print, [Held(BY_NAME)]), "fn.args[0][0].what"),
    "the script itself": (lambda: MAIN, "fn: global variable 'MAIN'"),
}


if __name__ == "__main__":
    report(REFUSED, (Plain, Heir, Base))
