"""Calls that are like the ones before take a shorter way to bytes, and say the same there."""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.remote.blobs import Blob
from skyward.remote.serialization import call_codec, packer
from skyward.remote.serialization.packer import Packed, Packer
from skyward.remote.serialization.pickler import AgainPickler
from tests.unit.test_call_codec import double, identity, of_main

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x


def opened(packed: Packed) -> object:
    beside = call_codec.beside(packed.functions, {}, packed.buffers)
    return call_codec.open_outcome(*call_codec.execute(packed.payload, beside))[0]


@pytest.fixture(params=[identity, of_main("def same(value): return value")["same"]], ids=["by name", "by value"])
def same(request: pytest.FixtureRequest) -> Callable[[object], object]:
    found: Callable[[object], object] = request.param
    return found


def again(fn: Callable[..., object], *args: object, **how: Any) -> tuple[Packed, Packed | None]:
    """A call as it is packed, and on the short way once its function is known."""
    known = Packer(**how)
    known.pack(fn, (0,), {})
    return known.pack(fn, args, {}), known._like_before((fn, args, {}))


@given(PLAIN)
def test_what_is_packed_like_before_is_the_same_call(value: object) -> None:
    for function in (identity, of_main("def same(value): return value")["same"]):
        usual, short = Packer().pack(function, (value,), {}), again(function, value)[1]
        assert short is not None
        assert (short.functions, short.modules, opened(short)) == (usual.functions, usual.modules, value)


def test_one_object_given_twice_stays_one(same: Callable[[object], object]) -> None:
    shared: list[object] = []
    pair: Any = opened(again(same, (shared, shared))[0])
    assert pair[0] is pair[1]


@pytest.mark.parametrize("value", [Point(1), np.arange(3), operator.neg, functools.partial(double, 1), Point, object()])
def test_what_pickle_does_not_know_by_itself_takes_the_usual_way(value: object) -> None:
    packed, short = again(identity, value)
    assert short is None
    assert type(opened(packed)) is type(value)


def test_a_function_that_was_not_met_takes_the_usual_way() -> None:
    packed, short = again(identity, len)
    assert (short, opened(packed)) == (None, len)
    packed, short = again(identity, double)
    assert short is not None  # it was met by then
    assert opened(short) is double


def test_large_bytes_take_the_usual_way(same: Callable[[object], object]) -> None:
    made: list[Blob] = []

    def put(content: memoryview) -> Blob:
        made.append(Blob.of([content]))
        return made[-1]

    packed, short = again(same, b"x" * 2000, put=put, threshold=1000)
    assert short is None
    assert (len(packed.payload) < 1000, len(made)) == (True, 1)


def test_a_packer_whose_calls_are_not_alike_stops_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    class Counted(AgainPickler):
        def dump(self, value: object) -> None:
            tried.append(value)
            super().dump(value)

    monkeypatch.setattr(packer, "AgainPickler", Counted)
    calls = Packer()
    for number in range(20):
        array: Any = opened(calls.pack(identity, (np.arange(number),), {}))
        assert array.tolist() == list(range(number))
    assert len(tried) == packer.MAX_FAST_FAILURES + 1


def test_modules_that_are_needed_and_reloaded_are_named_on_the_short_way() -> None:
    reloaded: list[str] = []

    def imports(names: frozenset[str]) -> Mapping[str, bytes]:
        return {"imports-" + ",".join(sorted(names)): b""}

    calls = Packer(reloaded=lambda: tuple(reloaded), imports=imports)
    calls.pack(identity, (1,), {})
    short = calls._like_before((identity, (2,), {}))
    assert short is not None
    assert (list(short.functions), short.modules) == ([f"imports-{identity.__module__}"], ())
    reloaded.append("mine")
    assert calls.pack(identity, (3,), {}).modules == ("mine",)
