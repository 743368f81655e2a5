"""The machines of one pool on EC2, with an EC2 in memory: launch, find, terminate, clear."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

import skyward as sky
from skyward.providers.aws import pool as pool_module
from skyward.providers.aws import resources, termination
from skyward.providers.aws.api import Unanswered
from skyward.providers.aws.api_errors import TOKEN_SPENT
from skyward.providers.aws.launch_config import LaunchConfig
from skyward.providers.aws.pool import EC2Pool
from skyward.providers.aws.watchdog import WatchedPool
from skyward.providers.provider import Instance, Order, Quote
from skyward.providers.ssh.key_pair import KeyPair
from tests.ec2 import PRICE, REGION, ZONES, FakeEC2, refusal

LOGIN = KeyPair()


class Watchdogs:
    """The watchdogs that were started, and how many were dismissed."""

    def __init__(self) -> None:
        self.watched: list[WatchedPool] = []
        self.dismissed = 0

    def start(self, pool: WatchedPool) -> Callable[[], None]:
        self.watched.append(pool)
        return self._dismiss

    def _dismiss(self) -> None:
        self.dismissed += 1


class Budget:
    """A purse with a limit, which pays for so many machines."""

    limited = True

    def __init__(self, machines: int) -> None:
        self.machines = machines
        self.quotes: list[tuple[Quote, int]] = []
        self.begun: list[tuple[str, float | None]] = []

    def check(self, quote: Quote) -> None:
        self.quotes.append((quote, len(self.begun)))
        if len(self.begun) + quote.count > self.machines:
            raise sky.BudgetExceeded("too many")

    def begin(self, machine: str, hourly: float | None) -> None:
        self.begun.append((machine, hourly))

    def left(self) -> float | None:
        return 60.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "RETRY_DELAY_S", 0.001)
    monkeypatch.setattr(termination, "LISTED_AFTER_S", 0.001)
    monkeypatch.setattr(pool_module, "FIND_INTERVAL_S", 0.001)


@pytest.fixture
def ec2() -> FakeEC2:
    return FakeEC2()


@pytest.fixture
def watchdogs() -> Watchdogs:
    return Watchdogs()


@pytest.fixture
def make(ec2: FakeEC2, watchdogs: Watchdogs, tmp_path: Path) -> Callable[..., EC2Pool]:
    def made(**more: Any) -> EC2Pool:
        config = LaunchConfig(allow="203.0.113.7", journal=tmp_path / "aws.jsonl", **more)
        return EC2Pool(config, "pool", LOGIN, ec2, watchdogs.start)

    return made


@pytest.fixture
def pool(make: Callable[..., EC2Pool]) -> EC2Pool:
    return make()


@pytest.fixture
def groupless(make: Callable[..., EC2Pool]) -> EC2Pool:
    """A pool that uses a security group of the user: it has none to remove."""
    return make(security_groups=("sg-mine",))


def run[T](work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def order(number: int = 0, **more: Any) -> Order:
    return Order("pool", f"pool-{number}-0", **more)


async def launch(pool: EC2Pool, count: int, **more: Any) -> list[Instance]:
    return list(await asyncio.gather(*(pool.launch(order(number, **more)) for number in range(count))))


async def outcomes(pool: EC2Pool, orders: Sequence[Order]) -> list[Instance | BaseException]:
    return await asyncio.gather(*map(pool.launch, orders), return_exceptions=True)


def events(tmp_path: Path) -> list[str]:
    path = tmp_path / "aws.jsonl"
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []


# ---------------------------------------------------------------- launch


def test_orders_of_the_same_time_are_one_call_and_an_order_that_is_repeated_is_none(
    pool: EC2Pool, ec2: FakeEC2
) -> None:
    async def scenario() -> None:
        made = await launch(pool, 3)
        assert [each.name for each in made] == ["pool-0-0", "pool-1-0", "pool-2-0"]
        assert [each.id for each in made] == ["i-0", "i-1", "i-2"]
        assert await launch(pool, 3) == made
        (asked,) = ec2.asked("run_instances")
        assert (asked["MinCount"], asked["MaxCount"], asked["InstanceType"]) == (1, 3, "t4g.micro")
        assert ec2.machines["i-1"].tags | {"skyward:pool": "pool", "skyward:nodes": "0-0 1-0 2-0"} == (
            ec2.machines["i-1"].tags
        )

    run(scenario())


def test_the_intent_is_on_the_disk_and_the_watchdog_runs_before_anything_is_created(
    pool: EC2Pool, ec2: FakeEC2, watchdogs: Watchdogs, tmp_path: Path
) -> None:
    seen: list[tuple[list[str], int]] = []
    for action in ("create_security_group", "run_instances"):
        ec2.fail(action, do=lambda: seen.append((events(tmp_path), len(watchdogs.watched))))
    run(launch(pool, 1, lease=20.0))

    assert seen == [(["create_security_group"], 1), (["create_security_group", "run_instances"], 1)]
    assert (watchdogs.watched[0].pool, watchdogs.watched[0].region) == ("pool", REGION)


def test_what_one_zone_has_no_capacity_for_is_launched_in_the_next(pool: EC2Pool, ec2: FakeEC2) -> None:
    ec2.capacity = {ZONES[0]: 1, ZONES[1]: 0}
    made = run(launch(pool, 4))

    assert ec2.zones == {ZONES[0]: 1, ZONES[2]: 3}
    assert [asked["MaxCount"] for asked in ec2.asked("run_instances")] == [4, 3, 3]
    assert len({asked["ClientToken"] for asked in ec2.asked("run_instances")}) == 3
    assert {each.name: ec2.machines[each.id].tags["skyward:nodes"] for each in made} == {
        "pool-0-0": "0-0 1-0 2-0 3-0",
        **dict.fromkeys(["pool-1-0", "pool-2-0", "pool-3-0"], "1-0 2-0 3-0"),
    }


def test_no_capacity_anywhere_says_where_it_was_tried(pool: EC2Pool, ec2: FakeEC2) -> None:
    ec2.capacity = {ZONES[0]: 1, ZONES[1]: 0, ZONES[2]: 0}
    first, second = run(outcomes(pool, [order(0), order(1)]))

    assert isinstance(first, Instance)
    assert isinstance(second, sky.NoCapacity)
    assert f"no capacity for 1 of 2 machines: tried t4g.micro in {ZONES[0]} after 1, t4g.micro in" in str(second)


def test_an_error_that_is_not_about_capacity_is_not_tried_elsewhere(pool: EC2Pool, ec2: FakeEC2) -> None:
    ec2.fail("run_instances", refusal("RunInstances", "VcpuLimitExceeded"))
    found = run(outcomes(pool, [order(0), order(1)]))

    assert [type(each) for each in found] == [sky.QuotaExceeded] * 2
    assert len(ec2.asked("run_instances")) == 1


def test_a_budget_that_does_not_allow_the_machines_refuses_them_all(pool: EC2Pool, ec2: FakeEC2) -> None:
    budget = Budget(2)
    found = run(outcomes(pool, [order(number, purse=budget) for number in range(3)]))

    assert [type(each) for each in found] == [sky.BudgetExceeded] * 3
    assert [(each.count, each.hourly, each.zone) for each, _ in budget.quotes] == [(3, PRICE, ZONES[0])]
    assert ec2.machines == {}


def test_a_budget_counts_each_machine_before_the_next_launch_is_checked(pool: EC2Pool, ec2: FakeEC2) -> None:
    ec2.capacity = {ZONES[0]: 2}
    budget = Budget(3)
    run(launch(pool, 3, purse=budget))

    assert [(each.count, begun) for each, begun in budget.quotes] == [(3, 0), (1, 2)]
    assert budget.begun == [("i-0", PRICE), ("i-1", PRICE), ("i-2", PRICE)]
    assert ec2.asked("run_instances")[0]["CreditSpecification"] == {"CpuCredits": "standard"}
    assert pool.left() == 60.0


def test_an_order_that_nobody_wants_any_more_is_not_launched(pool: EC2Pool, ec2: FakeEC2) -> None:
    ec2.capacity = {ZONES[0]: 0}
    wanted = [True]
    ec2.fail("run_instances", do=lambda: wanted.__setitem__(0, False))
    first, second = run(outcomes(pool, [order(0, wanted=lambda: wanted[0]), order(1)]))

    assert isinstance(first, sky.ProvisioningError)
    assert isinstance(second, Instance)
    assert [asked["MaxCount"] for asked in ec2.asked("run_instances")] == [2, 1]


# ---------------------------------------------------------------- a token of machines that are gone


def test_a_token_whose_machine_has_been_terminated_is_replaced(pool: EC2Pool, ec2: FakeEC2) -> None:
    ec2.fail("run_instances", refusal("RunInstances", TOKEN_SPENT))
    (made,) = run(launch(pool, 1))

    first, second = ec2.asked("run_instances")
    assert first["ClientToken"] != second["ClientToken"]
    assert {**first, "ClientToken": ""} == {**second, "ClientToken": ""}
    assert ec2.alive == [made.id]


def test_the_other_machines_of_a_spent_token_are_terminated_before_they_are_launched_again(
    pool: EC2Pool, ec2: FakeEC2
) -> None:
    def terminate_one() -> None:
        ec2.machines["i-1"].state = "terminated"

    async def scenario() -> None:
        other = await pool.launch(order(7))
        ec2.fail("run_instances", refusal("RunInstances", TOKEN_SPENT), after=True, do=terminate_one)
        made = await launch(pool, 2)
        assert ec2.machines["i-2"].state == "shutting-down"
        assert ec2.alive == [other.id, *(each.id for each in made)]

    run(scenario())


def test_a_second_spent_token_is_an_error_and_its_machines_are_looked_for(groupless: EC2Pool, ec2: FakeEC2) -> None:
    async def scenario() -> None:
        for _ in range(2):
            ec2.fail("run_instances", refusal("RunInstances", TOKEN_SPENT))
        with pytest.raises(sky.ProvisioningError, match=TOKEN_SPENT):
            await groupless.launch(order())
        assert await groupless.find() == []
        assert ec2.asked("describe_instances")
        assert await groupless.clear() == ()

    run(scenario())


def test_survivors_that_cannot_be_listed_are_looked_for_later(
    groupless: EC2Pool, ec2: FakeEC2, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(termination, "LISTED_AFTER_S", 60.0)
        ec2.unknown = {"i-0"}
        ec2.fail("run_instances", refusal("RunInstances", TOKEN_SPENT), after=True)
        ec2.fail("describe_instances", refusal("DescribeInstances", "UnauthorizedOperation"))
        with pytest.raises(sky.Denied):
            await groupless.launch(order())
        ec2.fail("describe_instances")
        ec2.fail("describe_instances", do=ec2.unknown.clear)
        assert [each.id for each in await groupless.find()] == ["i-0"]

    run(scenario())


# ---------------------------------------------------------------- find


def test_a_machine_that_is_not_listed_yet_is_found(pool: EC2Pool, ec2: FakeEC2) -> None:
    async def scenario() -> None:
        made = await launch(pool, 2)
        ec2.unknown = {"i-1"}
        assert [(each.id, each.name) for each in await pool.find()] == [(each.id, each.name) for each in made]
        ec2.unknown = set()
        ec2.machines["i-1"].state = "terminated"
        assert [each.id for each in await pool.find()] == ["i-0"]

    run(scenario())


def test_the_machine_of_a_launch_without_an_answer_is_waited_for(
    groupless: EC2Pool, ec2: FakeEC2, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(termination, "LISTED_AFTER_S", 60.0)
        ec2.unknown = {"i-0"}
        ec2.fail("run_instances", Unanswered("no answer"), after=True)
        with pytest.raises(Unanswered):
            await groupless.launch(order())
        for _ in range(3):
            ec2.fail("describe_instances")
        ec2.fail("describe_instances", do=ec2.unknown.clear)
        assert [(each.id, each.name) for each in await groupless.find()] == [("i-0", "pool-0-0")]
        assert len(ec2.asked("describe_instances")) == 4

    run(scenario())


def test_nothing_is_listed_before_anything_was_launched(groupless: EC2Pool, ec2: FakeEC2) -> None:
    async def scenario() -> None:
        ec2.fail("run_instances", refusal("RunInstances", "UnauthorizedOperation"))
        with pytest.raises(sky.Denied, match="your credentials do not allow ec2:RunInstances"):
            await groupless.launch(order())
        assert await groupless.find() == []
        assert not ec2.asked("describe_instances")

    run(scenario())


# ---------------------------------------------------------------- terminate


def test_a_machine_that_ec2_does_not_know_yet_is_terminated_once_it_does(pool: EC2Pool, ec2: FakeEC2) -> None:
    async def scenario() -> None:
        (made,) = await launch(pool, 1)
        ec2.unknown = {made.id}
        for _ in range(2):
            ec2.fail("terminate_instances")
        ec2.fail("terminate_instances", do=ec2.unknown.clear)
        await pool.terminate(made)
        assert len(ec2.asked("terminate_instances")) == 3
        assert ec2.alive == []

    run(scenario())


def test_a_machine_that_ec2_does_not_know_any_more_is_gone(
    pool: EC2Pool, ec2: FakeEC2, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        (made,) = await launch(pool, 1)
        monkeypatch.setattr(resources, "PROPAGATION_TIME_S", 0.0)
        del ec2.machines[made.id]
        await pool.terminate(made)
        assert len(ec2.asked("terminate_instances")) == 1

    run(scenario())


def test_of_three_machines_of_which_one_may_not_be_terminated_two_are(pool: EC2Pool, ec2: FakeEC2) -> None:
    async def scenario() -> None:
        made = await launch(pool, 3)
        ec2.protected = {"i-1"}
        ended = await asyncio.gather(*map(pool.terminate, made), return_exceptions=True)
        assert [type(each).__name__ for each in ended] == ["NoneType", "Refusal", "NoneType"]
        assert ec2.alive == ["i-1"]
        asked = [each["InstanceIds"] for each in ec2.asked("terminate_instances")]
        assert asked == [["i-0", "i-1", "i-2"], ["i-0"], ["i-1"], ["i-2"]]

    run(scenario())


def test_a_node_that_was_terminated_is_launched_as_another_machine(pool: EC2Pool, ec2: FakeEC2) -> None:
    async def scenario() -> None:
        first = await pool.launch(order())
        await pool.terminate(first)
        second = await pool.launch(order())
        assert first.name == second.name
        assert first.id != second.id
        await pool.terminate(first)  # it is not the node's machine any more
        assert ec2.alive == [second.id]

    run(scenario())


def test_a_machine_of_somebody_else_is_never_terminated(pool: EC2Pool, ec2: FakeEC2) -> None:
    async def scenario() -> None:
        (made,) = await launch(pool, 1)
        ec2.machines[made.id].tags["skyward:pool"] = "another"
        await pool.terminate(Instance(made.id, "pool", "pool-7-0", made.id))
        assert not ec2.asked("terminate_instances")
        assert ec2.alive == [made.id]

    run(scenario())


# ---------------------------------------------------------------- clear


def test_machines_and_group_are_gone_after_clear_and_the_watchdog_is_dismissed(
    pool: EC2Pool, ec2: FakeEC2, watchdogs: Watchdogs, tmp_path: Path
) -> None:
    async def scenario() -> None:
        await launch(pool, 2)
        assert await pool.clear() == ()
        assert (ec2.alive, ec2.groups) == ([], {})
        assert (len(watchdogs.watched), watchdogs.dismissed) == (1, 1)
        assert events(tmp_path)[-1] == "gone"
        with pytest.raises(sky.ProvisioningError, match="no longer needed"):
            await pool.launch(order(9))

    run(scenario())


def test_a_machine_that_is_not_listed_yet_is_terminated_by_clear(groupless: EC2Pool, ec2: FakeEC2) -> None:
    async def scenario() -> None:
        (made,) = await launch(groupless, 1)
        ec2.unknown = {made.id}
        ec2.fail("describe_instances")
        ec2.fail("describe_instances", do=ec2.unknown.clear)
        assert await groupless.clear() == ()
        assert ec2.alive == []

    run(scenario())


def test_where_nothing_was_created_nothing_is_asked(
    groupless: EC2Pool, ec2: FakeEC2, watchdogs: Watchdogs, tmp_path: Path
) -> None:
    async def scenario() -> None:
        assert await groupless.clear() == ()
        assert (ec2.calls, watchdogs.watched) == ([], [])

    async def refused(pool: EC2Pool) -> None:
        ec2.fail("run_instances", refusal("RunInstances", "UnauthorizedOperation"))
        with pytest.raises(sky.Denied):
            await pool.launch(order())
        assert await pool.clear() == ()

    run(scenario())
    run(refused(EC2Pool(groupless._config, "pool", LOGIN, ec2, watchdogs.start)))
    assert (len(watchdogs.watched), watchdogs.dismissed) == (1, 1)
    assert not ec2.asked("describe_instances")
    assert "gone" not in events(tmp_path)


def test_what_is_left_is_returned_and_the_watchdog_stays(
    pool: EC2Pool, ec2: FakeEC2, watchdogs: Watchdogs, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        await launch(pool, 3)
        ec2.protected = {"i-1"}
        assert await pool.clear() == ("i-1",)
        assert ec2.alive == ["i-1"]
        assert watchdogs.dismissed == 0
        assert "i-1: ec2:TerminateInstances: OperationNotPermitted: because" in caplog.text
        ec2.protected = set()
        assert await pool.clear() == ()
        assert (ec2.alive, ec2.groups, watchdogs.dismissed) == ([], {}, 1)

    run(scenario())
