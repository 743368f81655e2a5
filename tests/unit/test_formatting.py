"""Amounts, counts, durations and sizes, as text."""

import pytest

from skyward import formatting


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 pools"), (1, "1 pool"), (2, "2 pools"), (1000, "1,000 pools"), (2000, "2,000 pools")]
)
def test_things_are_counted(count: int, text: str) -> None:
    assert formatting.counted(count, "pool") == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0.0, "$0.00"),
        (0.00001, "$0.00001"),
        (0.0003, "$0.0003"),
        (0.1444, "$0.144"),
        (0.5, "$0.50"),
        (0.9999, "$1.00"),
        (1.0, "$1.00"),
        (12.5, "$12.50"),
        (1234.5, "$1,234.50"),
    ],
)
def test_an_amount_has_as_many_digits_as_say_something(amount: float, text: str) -> None:
    assert formatting.dollars(amount) == text


@pytest.mark.parametrize(("length", "text"), [(-1.0, "0:00"), (67.4, "1:07"), (3723.0, "1:02:03")])
def test_a_clock_has_hours_where_there_are_some(length: float, text: str) -> None:
    assert formatting.clock(length) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0s"),
        (0.9, "0s"),
        (45, "45s"),
        (60, "1m"),
        (725, "12m 5s"),
        (12000, "3h 20m"),
        (3605, "1h"),
        (187200, "2d 4h"),
    ],
)
def test_a_span_of_time_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert formatting.span(seconds) == text


@pytest.mark.parametrize(("length", "text"), [(0.123, "0.12 s"), (5.12, "5.1 s"), (130.0, "130 s")])
def test_seconds_have_as_many_digits_as_say_something(length: float, text: str) -> None:
    assert formatting.in_seconds(length) == text


@pytest.mark.parametrize(("rate", "text"), [(12345.0, "12,345/s"), (2.0, "2.0/s"), (0.25, "15.0/min")])
def test_a_low_rate_is_by_the_minute(rate: float, text: str) -> None:
    assert formatting.rate(rate) == text


def test_sizes_are_in_the_unit_that_fits() -> None:
    assert (formatting.size(80_000_000), formatting.size(1_500_000_000)) == ("80 MB", "1.5 GB")


def test_sizes_that_may_be_small_have_a_fraction() -> None:
    assert (formatting.megabytes(123_456), formatting.megabytes(1_500_000_000)) == ("0.1 MB", "1500.0 MB")
