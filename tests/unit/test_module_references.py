"""Which modules a node imports to open what it is sent."""

import math
from collections.abc import Callable
from types import CodeType

import pytest

from skyward.remote.serialization.module_references import Modules, first_imports


def body(text: str) -> CodeType:
    """The code of a function with that body."""
    found: dict[str, Callable[..., object]] = {}
    exec("def f(x):\n" + "".join(f"    {line}\n" for line in text.splitlines()), found)
    code = found["f"].__code__
    assert isinstance(code, CodeType)
    return code


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("return x", []),
        ("import a\nreturn a", ["a"]),
        ("'doc'\nimport a.b\nimport c.d as e\nfrom f import g, h as i\nreturn x", ["a.b", "c.d", "f"]),
        ("import a\ndef inner():\n    return a\nimport b\n", ["a"]),
        ("import a\nif x:\n    import b\n", ["a"]),
        ("y = 3\nimport a\nprint(x)\nimport b\n", ["a"]),
        ("try:\n    import a\nexcept ImportError:\n    pass", ["a"]),
        ("import os\nos.environ['A'] = 'b'\nimport a", ["os"]),
        ("for _ in x:\n    import a", []),
    ],
)
def test_the_first_imports_are_those_before_anything_else_is_done(text: str, names: list[str]) -> None:
    assert list(first_imports(body(text))) == names


def test_the_first_imports_of_a_module_end_at_a_relative_one() -> None:
    code = compile("'doc'\nfrom __future__ import annotations\nimport a\nfrom . import b\nimport c", "m", "exec")

    assert first_imports(code) == ("__future__", "a")


def test_functions_classes_modules_and_instances_are_noted_by_their_module() -> None:
    modules = Modules()
    for each in (pytest.fixture, Modules, math, math.sqrt, Modules(), compile("1", "c", "eval")):
        modules.note(each)
    assert modules.referred == {
        "_pytest.fixtures",
        "skyward.remote.serialization.module_references",
        "math",
        "builtins",
    }
    assert modules.inner is None


def inner() -> object:
    import colorsys.does_not_exist  # type: ignore[import-not-found]

    return lambda: colorsys


def test_what_a_function_may_import_as_it_runs_is_noted_if_somebody_wants_to_know() -> None:
    modules, other = Modules(inner=set()), Modules()
    modules.note(inner)
    assert modules.inner is not None
    assert "colorsys.does_not_exist" in modules.inner
    other.note(inner)
    assert other.inner is None
    other.add(modules)
    assert other.inner is None
    assert other.referred == {__name__}
    modules.add(Modules(referred={"a"}, inner={"b"}))
    assert {"a", "b"} <= modules.referred | modules.inner
