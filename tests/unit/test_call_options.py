"""Numbers that a caller gives, and what a call runs under."""

import numpy as np
import pytest

from skyward.errors import InvalidArgument
from skyward.remote.call_options import MAX_COUNT, CallOptions, seconds, whole_number


@pytest.mark.parametrize(("value", "number"), [(1, 1), (np.int16(3), 3), (MAX_COUNT, MAX_COUNT)])
def test_a_count_is_an_int(value: object, number: int) -> None:
    assert whole_number("n", value, 1, "give one") == number
    assert type(whole_number("n", value, 1, "give one")) is int


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (0, "must be at least 1"),
        (True, "must be a whole"),
        (1.0, "must be a whole"),
        (MAX_COUNT + 1, "must be at most"),
    ],
)
def test_what_is_no_count_is_refused(value: object, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=f"n={value!r}: {problem}.*; give one"):
        whole_number("n", value, 1, "give one")


@pytest.mark.parametrize(("value", "number"), [(1, 1.0), (0.5, 0.5), (np.float32(2), 2.0)])
def test_a_time_is_a_float(value: object, number: float) -> None:
    assert seconds("t", value, "give one") == number
    assert type(seconds("t", value, "give one")) is float


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (0, "must be more than 0 seconds"),
        (float("nan"), "must be more than 0 seconds"),
        (float("inf"), "must be more than 0 seconds"),
        ("3", "must be a number of seconds"),
        (True, "must be a number of seconds"),
        (None, "must be a number of seconds"),
    ],
)
def test_what_is_no_time_is_refused(value: object, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{problem}; give one"):
        seconds("t", value, "give one")


def test_what_is_left_out_stays_out() -> None:
    assert CallOptions() == CallOptions(timeout=None, node=None, retries=None)
    assert CallOptions(timeout=1, node=0, retries=0) == CallOptions(1.0, 0, 0)
