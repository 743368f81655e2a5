import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyward.actors.costs import HOUR, MIN_CHARGED_S, Costs, line
from skyward.providers.provider import Quote

DOLLAR_A_SECOND = HOUR
MICRO = Quote("t4g.micro", "eu-central-1a", 10, 0.0144, "address and disk")


def test_a_machine_costs_from_its_launch_to_its_end_and_a_minute_at_least() -> None:
    money = Costs()
    money.begin("a", DOLLAR_A_SECOND, 100.0)
    assert money.cost(101.0) == MIN_CHARGED_S
    assert money.cost(200.0) == 100.0
    money.end("a", 220.0)
    assert money.cost(1000.0) == 120.0
    money.begin("b", DOLLAR_A_SECOND, 1000.0)
    money.end("b", 1001.0)
    assert money.cost(2000.0) == 120.0 + MIN_CHARGED_S
    assert money.machines == 2
    assert money.hourly == 0.0


def test_what_costs_nothing_or_is_there_already_changes_nothing() -> None:
    money = Costs(budget=1.0)
    money.begin("a", None, 0.0)
    money.begin("b", 0.0, 0.0)
    money.end("c", 0.0)
    assert (money.cost(1e6), money.machines, money.left(1e6)) == (0.0, 0, None)
    money.begin("d", 1.0, 0.0)
    money.begin("d", 1.0, 50.0)
    assert money.machines == 1


def test_a_machine_that_has_ended_does_not_begin_again() -> None:
    money = Costs()
    money.begin("a", 1.0, 0.0)
    money.end("a", 100.0)
    money.begin("a", 1.0, 101.0)
    assert (money.machines, money.hourly) == (1, 0.0)


def test_without_a_budget_it_is_never_used_up() -> None:
    money = Costs(max_hourly=2 * HOUR)
    money.begin("a", DOLLAR_A_SECOND, 0.0)
    assert money.left(10.0) is None


def test_the_time_that_is_left_counts_the_first_minute_of_each_machine_at_once() -> None:
    money = Costs(budget=200.0)
    money.begin("a", DOLLAR_A_SECOND, 0.0)
    assert money.left(0.0) == 200.0
    assert money.left(150.0) == 50.0
    money.begin("b", DOLLAR_A_SECOND, 100.0)  # at 160 both have used up 160 + 60
    assert money.left(100.0) == pytest.approx(40.0)
    assert money.left(170.0) == pytest.approx(-20.0)


def test_a_budget_that_the_first_minutes_use_up_is_used_up_at_once() -> None:
    money = Costs(budget=MIN_CHARGED_S)
    money.begin("a", DOLLAR_A_SECOND, 0.0)
    assert money.left(0.0) == 0.0


@given(
    st.lists(st.tuples(st.floats(0.01, 100.0), st.floats(0.0, 500.0)), min_size=1, max_size=5),
    st.floats(0.01, 100.0),
)
def test_at_the_end_of_the_time_that_is_left_the_budget_is_used_up(
    machines: list[tuple[float, float]], budget: float
) -> None:
    money = Costs(budget=budget)
    for number, (hourly, since) in enumerate(machines):
        money.begin(str(number), hourly, since)
    now = max(since for _, since in machines)
    left = money.left(now)
    assert left is not None
    if money.cost(now) >= budget:
        assert left <= 0.0
    else:
        assert money.cost(now + left) >= budget * (1 - 1e-9)
        assert money.cost(now + left * 0.99) <= budget * (1 + 1e-9)


def test_machines_beyond_a_limit_are_refused() -> None:
    assert Costs().refusal(MICRO, 0.0) is None
    assert Costs(budget=1.0, max_hourly=0.2).refusal(MICRO, 0.0) is None
    dear = Costs(max_hourly=0.2)
    dear.begin("a", 0.1, 0.0)
    assert dear.refusal(MICRO, 0.0) == (
        "max_hourly=0.2: 10 x t4g.micro more would make it $0.244 an hour; ask for fewer or cheaper machines"
    )
    poor = Costs(budget=0.002)
    assert poor.refusal(MICRO, 0.0) == (
        "budget=0.002: $0.00 is spent, and 10 x t4g.micro cost $0.0024 in their first minute; "
        "give a larger budget, or ask for fewer or cheaper machines"
    )


def test_what_has_no_price_cannot_be_limited() -> None:
    unknown = Quote("u-1.metal", "eu-central-1a", 1, None, problem="you may not ask")
    assert Costs().refusal(unknown, 0.0) is None
    said = "what a u-1.metal costs is not known (you may not ask), so no limit can be enforced"
    assert Costs(budget=1.0).refusal(unknown, 0.0) == f"budget=1.0: {said}"
    assert Costs(max_hourly=2.0).refusal(unknown, 0.0) == f"max_hourly=2.0: {said}"
    assert line(unknown) == "1 x u-1.metal in eu-central-1a: the price is not known (you may not ask)"


def test_the_price_is_a_line() -> None:
    assert line(MICRO) == (
        "10 x t4g.micro in eu-central-1a: $0.0144 an hour each with address and disk, $0.144 in all; "
        "ten minutes cost $0.024"
    )
    plain = Quote("x", "y", 1, 6.0)
    assert line(plain) == "1 x x in y: $6.00 an hour each, $6.00 in all; ten minutes cost $1.00"
