"""Delays between attempts, and the attempts."""

import asyncio
import math
from collections.abc import Callable
from itertools import islice, repeat

import pytest

from skyward.retry import FIRST_RETRY_DELAY_S, MAX_RETRY_DELAY_S, backoff, jittered, retry


class Failing:
    """Raises each of these errors in turn, and then returns how often it was called."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls


def test_delays_grow_up_to_a_limit() -> None:
    assert list(islice(backoff(1.0, 5.0, 1.5), 5)) == [1.0, 1.5, 2.25, 3.375, 5.0]
    assert list(islice(backoff(), 6)) == [FIRST_RETRY_DELAY_S, 0.4, 0.8, 1.6, MAX_RETRY_DELAY_S, MAX_RETRY_DELAY_S]
    assert next(islice(backoff(), 5000, None)) == MAX_RETRY_DELAY_S


@pytest.mark.parametrize(("luck", "delay"), [(0.0, 2.0), (0.5, 3.0), (1.0, 4.0)])
def test_luck_spreads_delays_between_half_and_all(luck: float, delay: float) -> None:
    assert list(jittered([4.0, 4.0], lambda: luck)) == [delay, delay]


def test_what_may_pass_is_tried_again_until_it_has() -> None:
    attempt = Failing(ConnectionError("1"), ConnectionResetError("2"))

    assert asyncio.run(retry(attempt, on=ConnectionError, delays=repeat(0.0))) == 3


@pytest.mark.parametrize("on", [ConnectionError, lambda error: "busy" in str(error)])
def test_any_other_error_is_raised_at_once(on: type[Exception] | Callable[[Exception], bool]) -> None:
    attempt = Failing(ConnectionError("busy"), ValueError("wrong"))

    with pytest.raises(ValueError, match="wrong"):
        asyncio.run(retry(attempt, on=on, delays=repeat(0.0)))
    assert attempt.calls == 2


def test_the_last_error_is_raised_when_the_next_attempt_would_come_too_late() -> None:
    attempt = Failing(*(ConnectionError(str(number)) for number in range(9)))

    with pytest.raises(ConnectionError, match="2"):
        asyncio.run(retry(attempt, on=ConnectionError, delays=iter([0.0, 0.0, 3601.0]), within=3600.0))
    assert attempt.calls == 3


def test_without_a_limit_there_is_always_another_attempt() -> None:
    attempt = Failing(*(ConnectionError(str(number)) for number in range(99)))

    assert asyncio.run(retry(attempt, on=ConnectionError, delays=repeat(0.0), within=math.inf)) == 100
