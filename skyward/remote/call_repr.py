"""The call that an error is about, in one line: `train(17, rate=0.1)`. Made only when there is an error."""

import reprlib
from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType
from typing import Any

MAX_CALL_LENGTH = 100
"""Characters of a call."""

RAISED = "It was raised by "

_ARGUMENT_REPR = reprlib.Repr()
_ARGUMENT_REPR.maxlevel, _ARGUMENT_REPR.maxtuple, _ARGUMENT_REPR.maxlist, _ARGUMENT_REPR.maxdict = 2, 4, 4, 3
_ARGUMENT_REPR.maxstring = _ARGUMENT_REPR.maxother = 40


def call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return a call in a line; never raises.

    A function that runs tasks of others has an attribute `shows`, which is given its arguments and says what these are.
    """
    shows = getattr(fn, "shows", None)
    if callable(shows):
        try:
            return str(shows(*args, **kwargs))
        except Exception:  # noqa: BLE001 - a word less in an error
            return name_of(fn)
    parts = [*map(value, args), *(f"{name}={value(each)}" for name, each in kwargs.items())]
    text = f"{name_of(fn)}({', '.join(parts)})"
    return text if len(text) <= MAX_CALL_LENGTH else f"{text[: MAX_CALL_LENGTH - 4]}...)"


def function(fn: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Return what the user calls the function that a call runs; never raises, and runs no code of theirs.

    A function that runs tasks of others has an attribute `runs`, which is given its arguments and returns that of the
    first task.
    """
    runs = getattr(fn, "runs", None) if isinstance(fn, FunctionType) else None
    if not callable(runs):
        return name_of(fn)
    try:  # for each call: entering `contextlib.suppress` would take longer than this
        return name_of(runs(*args))
    except Exception:  # noqa: BLE001 - `args` are not those that it takes
        return name_of(fn)


def name_of(fn: object) -> str:
    """What the user calls the function, through what wraps it."""
    while isinstance(fn, partial):
        fn = fn.func
    name = getattr(fn, "__qualname__", None)
    return as_written(name if isinstance(name, str) else type(fn).__qualname__)


def as_written(qualname: str) -> str:
    """A name without the functions that it was written in."""
    return qualname.rpartition("<locals>.")[2]


def value(given: object) -> str:
    """Return an argument in a few characters; an array by its shape."""
    try:
        shape, kind = getattr(given, "shape", None), getattr(given, "dtype", "")
        if isinstance(shape, tuple):
            return f"<{type(given).__name__} {shape}{f' {kind}' if kind else ''}>"
        return " ".join(_ARGUMENT_REPR.repr(given).split())
    except Exception:  # noqa: BLE001 - this runs the user's own `__repr__`
        return f"<{type(given).__name__}>"


def late(owner: str, timeout: float, task: str) -> str:
    """Say that a call of many tasks waited in vain for one of them."""
    advice = "give it more time, or see where it hangs with compute.stacks()"
    return f"{owner}(timeout={timeout:g}): {task}, did not finish within {timeout:g} s; {advice}"


def noted(error: BaseException, text: str) -> None:
    """Say in a note of an exception what raised it, if none does yet."""
    try:
        if not any(note.startswith(RAISED) for note in getattr(error, "__notes__", ())):
            error.add_note(f"{RAISED}{text}.")
    except Exception:  # noqa: BLE001 - an exception may refuse: a frozen dataclass does
        return
