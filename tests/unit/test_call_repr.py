from functools import partial
from typing import Any

import pytest

from skyward.remote import call_repr
from skyward.remote.function import call_each


class Cracked:
    @property
    def shape(self) -> object:
        raise ValueError("no")


class Array:
    shape, dtype = (3, 4), "float64"


def train(x: object, rate: object = 0.5) -> None:
    """A call that is shown."""


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "train()"),
        ((17,), {"rate": 0.1}, "train(17, rate=0.1)"),
        (([1, 2, 3, 4, 5, 6],), {}, "train([1, 2, 3, 4, ...])"),
        (("line\nline",), {}, r"train('line\nline')"),
        ((Cracked(), Array()), {}, "train(<Cracked>, <Array (3, 4) float64>)"),
    ],
)
def test_a_call_is_shown_in_a_line(args: tuple[Any, ...], kwargs: dict[str, Any], text: str) -> None:
    assert call_repr.call(train, args, kwargs) == text
    assert call_repr.call(partial(train), args, kwargs) == text


def test_a_long_call_is_cut() -> None:
    text = call_repr.call(train, ("x" * 1000, "y" * 1000, "z" * 1000, 4), {})
    assert len(text) == call_repr.MAX_CALL_LENGTH
    assert text.endswith("...)")


def test_what_runs_tasks_of_others_says_which() -> None:
    assert call_repr.call(call_each, (train, [(1,), (2,), (3,)]), {}) == "train(1) and 2 more"
    assert call_repr.call(call_each, (train, [(1,)]), {}) == "train(1)"
    assert call_repr.call(call_each, (train, []), {}) == "call_each"


def test_the_function_of_a_call_is_that_of_its_first_task() -> None:
    joblib_node = pytest.importorskip("skyward.plugins.joblib_node")

    assert call_repr.function(train, (1,)) == call_repr.function(partial(train), ()) == "train"
    assert call_repr.function(call_each, (train, [(1,), (2,)])) == "train"
    assert call_repr.function(joblib_node.run_batch, ([(train, (1,), {}), (len, (2,), {})], 1, 0, None)) == "train"
    assert call_repr.function(joblib_node.run_batch, ([], 1, 0, None)) == "run_batch"


def test_what_raised_is_noted_once_and_by_whom_is_nearest() -> None:
    error = ValueError("no")
    call_repr.noted(error, "task 3, train(3)")
    call_repr.noted(error, "run_batch([...])")
    assert error.__notes__ == ["It was raised by task 3, train(3)."]


def test_an_exception_that_takes_no_notes_stays_as_it_is() -> None:
    class Sealed(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

        def add_note(self, note: str, /) -> None:
            raise AttributeError(note)

    call_repr.noted(Sealed(), "train(3)")


def test_a_task_that_was_waited_for_in_vain_is_named_with_the_time() -> None:
    text = call_repr.late("map", 0.5, "task 3, train(3)")
    assert text == (
        "map(timeout=0.5): task 3, train(3), did not finish within 0.5 s; "
        "give it more time, or see where it hangs with compute.stacks()"
    )
