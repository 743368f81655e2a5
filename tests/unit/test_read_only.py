"""Whether an error is that of a task which writes into an array that was sent to it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from skyward.remote.blobs import Blob, view
from skyward.remote.serialization import read_only


@pytest.fixture
def sent() -> Any:
    """An array as a task gets it."""
    blob = Blob.of([bytes(512)])
    return np.frombuffer(view(blob.ref))


def explained(write: Callable[..., object], *args: object) -> bool:
    with pytest.raises(ValueError, match=r"read-only|WRITEABLE") as raised:
        write(*args)
    return read_only.explain(raised.value) == read_only.SHARED


class Model:
    def __init__(self, table: Any) -> None:
        self.table = table

    def fit(self) -> None:
        self.table[0] = 1


def assign(array: Any) -> None:
    array[0] = 1


def assign_to_view(array: Any) -> None:
    part = array.reshape(8, 8).T[2:]
    part += 1


def assign_to_first(tables: Any) -> None:
    tables[0][0] = 1


def assign_to_own(_: Any) -> None:
    own = np.broadcast_to(1.0, 8)
    own[0] = 2


@pytest.mark.parametrize(
    "write",
    [
        assign,
        assign_to_view,
        np.ndarray.sort,
        lambda array: np.add(array, 1, out=array),
        lambda array: array.setflags(write=True),
        lambda array: np.random.default_rng(0).shuffle(array),
        lambda array: assign_to_first([array]),
        lambda array: Model(array).fit(),
    ],
)
def test_whoever_writes_into_an_array_that_was_sent_is_told_why_not(write: Callable[..., object], sent: Any) -> None:
    assert explained(write, sent)


def test_other_arrays_and_other_errors_are_not_explained(sent: Any) -> None:
    frozen = np.zeros(8)
    frozen.flags.writeable = False
    assert not explained(assign, frozen)
    assert not explained(assign, np.frombuffer(bytes(64)))
    assert not explained(assign_to_own, sent)
    assert read_only.explain(ValueError("the file is read-only")) == ""
    assert read_only.explain(ValueError("no")) == ""
