import collections
import functools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyward.errors import NotPortable
from skyward.remote.serialization import pickle_errors
from skyward.remote.serialization.pickle_errors import culprit, refuse

type Lock = Any  # as a type checker sees them: locks have no public class

LOCK = threading.Lock()


def task(*args: object, **kwargs: object) -> None:
    """Importable, so always fit to travel."""


def found(*args: object, **kwargs: object) -> str | None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is: `culprit` is only asked after a failure
        cloudpickle.dumps((task, args, kwargs))
    return culprit(task, args, kwargs)


class Holder:
    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)

    def method(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Slotted:
    name: str
    conn: object


class Private:
    __slots__ = ("__dict__", "__lock", "other")

    def __init__(self) -> None:
        self.__lock = threading.Lock()


class Reduced:
    def __init__(self, lock: object) -> None:
        self.lock = lock

    def __reduce__(self) -> tuple[object, ...]:
        return Reduced, (self.lock,)


class Rebuilt:
    def __reduce__(self) -> tuple[object, ...]:
        return Rebuilt, (), [1, threading.Lock()]


class Stated:
    def __init__(self) -> None:
        self.data = {"lock": threading.Lock()}

    def __getstate__(self) -> object:
        return {"renamed": self.data["lock"], "n": 1}


class Opaque(Stated):
    def __getstate__(self) -> object:
        return self.data["lock"]


class Keyed(Stated):
    def __getstate__(self) -> object:
        return {(1, 2, self.data["lock"]): 1}


class Made:
    def __reduce__(self) -> tuple[object, ...]:
        lock = threading.Lock()
        return lambda: lock, ()


class Nameless:
    def __reduce__(self) -> str:
        return "nowhere"


class Stubborn:
    def __reduce__(self) -> tuple[object, ...]:
        raise RuntimeError("I stay here.\nFor ever.")


class Bag(dict[str, object]):
    lock: object = None


class Evil:
    """Nothing about it works."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __reduce_ex__(self, protocol: object) -> str:
        raise RuntimeError("reduce")


# ---------------------------------------------------------------- arguments


def test_an_argument_is_named_by_its_place() -> None:
    assert found(1, LOCK) == "args[1]"


def test_a_keyword_is_named_by_its_name() -> None:
    assert found(1, client=Holder(_lock=LOCK)) == 'kwargs["client"]._lock'


def test_the_path_goes_down_through_containers_and_objects() -> None:
    assert found(0, {"key": [1, 2, 3, Holder(conn=int)], "other": ()}, {"key": [0, Holder(c=LOCK)]}) == (
        'args[2]["key"][1].c'
    )


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ((1, [2, (3, LOCK)]), "args[0][1][1][1]"),
        (collections.deque([1, LOCK]), "args[0][1]"),
        (collections.defaultdict(list, {"a": [LOCK]}), 'args[0]["a"][0]'),
        (collections.OrderedDict(a=1, b=LOCK), 'args[0]["b"]'),
        (MappingProxyType({"a": LOCK}), 'args[0]["a"]'),
        ({1: 0, 2: LOCK}, "args[0][2]"),
        ({("a", 1): LOCK}, "args[0][('a', 1)]"),
        ({'say "hi"': LOCK}, "args[0]['say \"hi\"']"),
        (Slotted("n", LOCK), "args[0].conn"),
        (Private(), "args[0]._Private__lock"),
        (Reduced(LOCK), "args[0].lock"),
        (Rebuilt(), "args[0].__reduce__()[2][1]"),
        (Stated(), 'args[0].__getstate__()["renamed"]'),
        (Opaque(), "args[0].__getstate__()"),
        (Made(), "args[0].__reduce__()[0]: closure variable 'lock'"),
        (Nameless(), "args[0]"),
        (Stubborn(), "args[0]"),
        (ValueError("x", LOCK), "args[0].args[1]"),
        (functools.partial(task, 1, LOCK), "args[0].args[1]"),
        (functools.partial(task, k=[LOCK]), 'args[0].keywords["k"][0]'),
        (functools.partial(Holder(f=LOCK).method), "args[0].func.__self__.f"),
        (LOCK.acquire, "args[0].__self__"),
        (iter(n for n in (1, 2)), "args[0]"),
        (np.array([1, {"a": LOCK}], dtype=object), 'args[0].flat[1]["a"]'),
    ],
)
def test_the_path_leads_to_the_lock(value: object, path: str) -> None:
    assert found(value) == path


def test_a_key_of_a_dictionary_is_shown() -> None:
    path = found({(1, LOCK): "x"})
    assert path is not None
    assert path.startswith("args[0]: key (1, <unlocked _thread.lock")
    assert path.endswith("[1]")


def test_a_key_of_a_state_is_shown() -> None:
    path = found(Keyed())
    assert path is not None
    assert path.startswith("args[0].__getstate__(): key (1, 2, <unlocked _thread.lock")


@pytest.mark.parametrize("kind", [set, frozenset])
def test_an_item_of_a_set_is_shown(kind: type[set[object]]) -> None:
    path = found(kind([1, "a", LOCK]))
    assert path is not None
    assert path.startswith("args[0]: item <unlocked _thread.lock")


def test_a_dictionary_with_attributes_is_searched_for_both() -> None:
    bag = Bag(a=1)
    bag.lock = LOCK
    assert found(bag) == "args[0].lock"
    assert found(Bag(a=[LOCK])) == 'args[0]["a"][0]'


def wrapped(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Something that can travel around something that cannot."""
    plain = st.lists(st.integers() | st.text(max_size=3), max_size=3)
    return st.one_of(
        st.builds(lambda before, part, after: [*before, part, *after], plain, inner, plain),
        st.builds(lambda before, part: (*before, part), plain, inner),
        st.builds(lambda keys, part: {**dict.fromkeys(keys), "key": part}, plain, inner),
        st.builds(lambda other, part: Holder(other=other, part=part), plain, inner),
        st.builds(lambda name, part: Slotted(name, part), st.text(max_size=3), inner),
    )


@given(st.recursive(st.just(LOCK), wrapped, max_leaves=6))
@settings(max_examples=50)
def test_the_path_is_an_expression_that_leads_there(value: object) -> None:
    path = culprit(task, (value,), {})
    assert path is not None
    assert eval(path, {"args": (value,)}) is LOCK


# ---------------------------------------------------------------- cycles


def test_a_cycle_does_not_hide_the_culprit() -> None:
    parent, child = Holder(), Holder()
    parent.__dict__.update(child=child, lock=LOCK)
    child.__dict__.update(parent=parent)
    assert found(parent) == "args[0].lock"


def test_a_list_in_itself_ends() -> None:
    endless: list[object] = []
    endless.extend([endless, LOCK])
    assert found(endless) == "args[0][1]"


# ---------------------------------------------------------------- it ends, and never raises


def test_finding_one_in_many_costs_three_times_pickling_them(monkeypatch: pytest.MonkeyPatch) -> None:
    many: list[object] = list(range(100_000))
    many[76_543] = LOCK
    pickled = 0

    def count(_: object, value: object) -> None:
        nonlocal pickled
        pickled += 1

    monkeypatch.setattr(pickle_errors, "SEARCH_TIMEOUT_S", 60.0)
    monkeypatch.setattr(pickle_errors._Probe, "persistent_id", count)
    assert culprit(task, (many,), {}) == "args[0][76543]"
    assert pickled < 5 * len(many)


def test_when_time_is_over_the_answer_is_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Slow:
        def __reduce__(self) -> tuple[object, ...]:
            nonlocal now
            now += pickle_errors.SEARCH_TIMEOUT_S / 2
            return str, ("x" * 100_000,)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert culprit(task, ([Slow(), LOCK],), {}) == "args[0]"


def test_when_there_is_no_time_at_all_there_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_errors, "SEARCH_TIMEOUT_S", -1.0)
    assert culprit(task, (LOCK,), {}) is None


def test_large_arrays_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def count(_: object, data: bytes) -> int:
        written.append(len(data))
        return len(data)

    monkeypatch.setattr(pickle_errors._Nothing, "write", count)
    assert found({"data": np.zeros(10_000_000), "lock": LOCK}) == 'args[0]["lock"]'
    assert sum(written) < 100_000


def test_what_is_nested_too_deeply_is_named_where_it_begins() -> None:
    deep: list[object] = []
    for _ in range(20_000):
        deep = [deep]
    refused = error_of(task, 1, {"tree": deep})
    assert refused.path == 'args[1]["tree"]'
    assert 'args[1]["tree"] is nested too deeply' in str(refused)


def test_a_structure_that_is_nested_too_deeply_is_not_gone_down() -> None:
    tree: dict[str, list[object]] = {"children": []}
    chain = Node(None)
    for _ in range(20_000):
        tree, chain = {"children": [1, tree]}, Node(chain)

    assert error_of(task, tree).path == 'args[0]["children"]'
    assert error_of(task, [1, chain]).path == "args[0][1]"


class Node:
    def __init__(self, following: "Node | None") -> None:
        self.following = following


def test_a_path_has_an_end() -> None:
    value: object = LOCK
    for _ in range(pickle_errors.MAX_SEARCH_DEPTH + 20):
        value = [value]
    path = found(value)
    assert path is not None
    assert path.count("[0]") == pickle_errors.MAX_SEARCH_DEPTH


def test_an_object_that_breaks_everything_does_not_break_the_search() -> None:
    for value in (Evil(), [Evil()], {"a": Evil()}, {Evil(): 1}):
        path = culprit(task, (value,), {})
        assert path is not None
        assert path.startswith("args[0]")


def test_a_call_that_can_travel_has_no_culprit() -> None:
    assert culprit(task, (1, "a", [2]), {"k": {}}) is None


# ---------------------------------------------------------------- the error


def error_of(fn: Callable[..., object], *args: object, **kwargs: object) -> NotPortable:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        cloudpickle.dumps((fn, args, kwargs))
    return refuse(raised.value, fn, args, kwargs)


def test_the_error_is_one_line_with_function_path_type_reason_and_fix() -> None:
    with closing(sqlite3.connect(":memory:")) as conn:
        text = str(error_of(task, Holder(conn=conn)))
    assert text == (
        "task cannot be sent to a node: args[0].conn (sqlite3.Connection) cannot be pickled: "
        "TypeError: cannot pickle 'sqlite3.Connection' object. "
        "Create it inside the function, or pass what is needed to build it."
    )


def test_the_error_carries_the_path() -> None:
    assert error_of(task, [LOCK]).path == "args[0][0]"


def test_the_error_names_a_function_as_its_author_does() -> None:
    def train(lock: Lock = LOCK) -> None: ...

    assert str(error_of(functools.partial(train, 1))).startswith("train cannot be sent to a node: fn.func: default of")


def test_the_error_names_a_callable_object_by_its_type() -> None:
    class Model:
        lock = field(default=LOCK)

        def __call__(self) -> None: ...

    assert str(error_of(Model())).startswith("Model cannot be sent to a node: fn.__class__.lock.default (_thread.lock)")


def test_the_error_takes_the_first_line_of_a_reason() -> None:
    text = str(error_of(task, Stubborn()))
    assert "Stubborn) cannot be pickled: RuntimeError: I stay here. Create it" in text


def test_the_error_says_what_to_do_with_a_generator() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    assert "pass a list of what it yields" in str(error_of(task, numbers()))


def test_the_error_says_something_useful_when_no_part_is_to_blame() -> None:
    refused = refuse(ValueError(), task, (), {})
    assert (str(refused), refused.path) == (
        "task cannot be sent to a node: ValueError. Pass plain data, and build the rest inside the function.",
        "",
    )


def test_the_error_survives_an_error_without_a_text() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "task cannot be sent to a node: Mute." in str(refuse(Mute(), task, (), {}))
