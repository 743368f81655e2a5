"""What can be wrong inside functions and classes that travel by value; the rest is in test_pickle_errors."""

import threading
from collections.abc import Callable

import cloudpickle
import pytest

from skyward.remote.serialization.pickle_errors import culprit
from tests.unit.test_pickle_errors import LOCK, Holder, found

SHARED = {"limits": [1, 2, LOCK]}


def found_in(fn: Callable[..., object]) -> str | None:
    with pytest.raises(Exception):  # noqa: B017, PT011
        cloudpickle.dumps(fn)
    return culprit(fn, (), {})


def test_a_closure_variable_is_named() -> None:
    lock = threading.Lock()
    assert found_in(lambda: lock) == "fn: closure variable 'lock'"


def test_a_part_of_a_closure_variable_is_named() -> None:
    client = Holder(_lock=LOCK)
    assert found_in(lambda: client) == "fn: closure variable 'client'._lock"


def test_a_global_variable_is_named() -> None:
    assert found_in(lambda: SHARED) == "fn: global variable 'SHARED'[\"limits\"][2]"


def test_a_global_variable_of_a_function_inside_is_named() -> None:
    assert found_in(lambda: [LOCK for _ in range(2)] + [lambda: LOCK]) == "fn: global variable 'LOCK'"


def test_a_global_that_shares_its_name_with_an_attribute_is_not_accused() -> None:
    other = threading.Lock()
    assert found_in(lambda x: (x.LOCK, other)) == "fn: closure variable 'other'"


def test_a_default_is_named() -> None:
    def fn(a: int, b: int = 1, x: object = LOCK, *, y: object = 2) -> None: ...

    assert found_in(fn) == "fn: default of 'x'"


def test_a_default_of_a_keyword_is_named() -> None:
    def fn(a: int, b: int = 1, *, y: object = LOCK) -> None: ...

    assert found_in(fn) == "fn: default of 'y'"


def test_an_attribute_of_a_function_is_named() -> None:
    def fn() -> None: ...

    fn.cache = {"k": LOCK}  # type: ignore[attr-defined]
    assert found_in(fn) == 'fn.cache["k"]'


def test_an_annotation_is_named() -> None:
    def fn(x: int) -> None: ...

    fn.__annotations__["x"] = LOCK
    assert found_in(fn) == "fn: annotation of 'x'"


def test_the_function_inside_a_decorated_one_is_searched() -> None:
    lock = threading.Lock()

    def timed(inner: Callable[[], object]) -> Callable[[], object]:
        return lambda: inner()

    assert found_in(timed(lambda: lock)) == "fn: closure variable 'inner': closure variable 'lock'"


def test_the_object_of_a_bound_method_is_searched() -> None:
    assert found_in(Holder(_lock=LOCK).method) == "fn.__self__._lock"


def test_a_callable_object_is_searched() -> None:
    class Model:
        def __init__(self) -> None:
            self.lock = LOCK

        def __call__(self) -> None: ...

    assert found_in(Model()) == "fn.lock"


def test_a_method_of_a_class_that_travels_by_value_is_searched() -> None:
    lock = threading.Lock()

    class Model:
        @property
        def size(self) -> object:
            return lock

        def __call__(self) -> None: ...

    assert found_in(Model()) == "fn.__class__.size.fget: closure variable 'lock'"


def test_a_class_method_of_a_class_that_travels_by_value_is_searched() -> None:
    lock = threading.Lock()

    class Model:
        @classmethod
        def build(cls) -> object:
            return lock

        def __call__(self) -> None: ...

    assert found_in(Model()) == "fn.__class__.build.__func__: closure variable 'lock'"


def test_a_parent_class_that_travels_by_value_is_searched() -> None:
    class Parent:
        lock = LOCK

    class Model(Parent):
        @staticmethod
        def run() -> None: ...

    assert found(Model()) == "args[0].__class__.__bases__[0].lock"


def test_a_closure_variable_that_is_not_set_yet_is_passed_over() -> None:
    def fn() -> object:
        return later, lock

    lock = threading.Lock()
    assert found_in(fn) == "fn: closure variable 'lock'"
    later = 1


def test_a_recursive_function_ends() -> None:
    lock = threading.Lock()

    def fn(n: int) -> object:
        return fn(n - 1) if n else lock

    assert found_in(fn) == "fn: closure variable 'lock'"
