"""What the scripts in this folder share: each runs as `__main__` and prints what differs on a node.

A function decorated with `case` is called on a slot, by `submit` and by `map`, and here: the results must be equal.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import skyward as sky

type Case = Callable[..., Any]

CASES: dict[str, Case] = {}
IDENTICAL: set[str] = set()
ARGUMENTS: dict[str, tuple[Any, ...]] = {}


def case(fn: Case) -> Case:
    """Compare what the call gives here and on a slot."""
    CASES[fn.__name__] = fn
    return fn


def same_at_home(fn: Case) -> Case:
    """Compare as `case` does; what the script defines must come home as itself, and its objects as of its own types."""
    IDENTICAL.add(fn.__name__)
    return case(fn)


def given(*args: Any) -> Callable[[Case], Case]:
    """Compare as `same_at_home` does, with these arguments."""

    def decorate(fn: Case) -> Case:
        ARGUMENTS[fn.__name__] = args
        return same_at_home(fn)

    return decorate


def report(refused: Mapping[str, tuple[Case, str]] | None = None, kept: Sequence[type] = ()) -> None:
    """Print what is wrong by name of case, empty for nothing.

    Parameters
    ----------
    refused
        Calls that cannot travel, and the path that says why.
    kept
        Classes that results must not change.
    """
    before = {cls: dict(vars(cls)) for cls in kept}
    with sky.Compute(provider=sky.Local(), nodes=1, worker=sky.Worker(concurrency=2)) as compute:
        problems = {name: _problem(name, partial(_submitted, compute)) for name in CASES}
        for name in CASES:
            problems[name] = problems[name] or _problem(name, partial(_mapped, compute))
        for name, (fn, path) in (refused or {}).items():
            problems[f"refused: {name}"] = _refusal(compute, fn, path)
    problems["classes that results changed"] = ", ".join(cls.__name__ for cls in kept if dict(vars(cls)) != before[cls])
    print(json.dumps(problems))  # noqa: T201


def _submitted(compute: sky.Compute, fn: Case) -> Any:
    return compute.submit(fn, *ARGUMENTS.get(fn.__name__, ())).result()


def _mapped(compute: sky.Compute, fn: Case) -> Any:
    if (args := ARGUMENTS.get(fn.__name__)) is not None:
        return next(iter(compute.map(fn, *([each] for each in args))))
    return next(iter(compute.map(lambda _: fn(), range(2))))


def _problem(name: str, run: Callable[[Case], Any]) -> str:
    try:
        there = run(CASES[name])  # first: some cases change what they refer to
    except Exception as error:  # noqa: BLE001 - the test tells what it was
        return f"{type(error).__name__}: {error}"[:300]
    here = CASES[name](*ARGUMENTS.get(name, ()))
    if name in IDENTICAL:
        same = all(a is b or (type(a) is type(b) and a == b) for a, b in zip(here, there, strict=True))
        return "" if same else f"it came home as {there}"
    return "" if repr(there) == repr(here) and there == here else f"here {here}, there {there}"


def _refusal(compute: sky.Compute, fn: Case, path: str) -> str:
    try:
        found = repr(compute.submit(fn).result())
    except sky.NotPortable as error:
        return "" if error.path == path else f"{error.path}: {error}"
    except Exception as error:  # noqa: BLE001 - the test tells what it was
        return f"{type(error).__name__}: {error}"[:300]
    return f"no error, {found}"
