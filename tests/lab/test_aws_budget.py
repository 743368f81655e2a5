"""What machines of EC2 cost: said before they are launched, counted, limited, and handed to the machines themselves."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

import skyward as sky
from skyward.actors import costs
from skyward.actors.budget import BudgetGuard
from skyward.events import Quoted, Spent
from skyward.providers.provider import Order, Quote
from skyward.telemetry.event_log import EventLog
from tests import kit, work
from tests.conformance.test_provider import run
from tests.lab.cloud import Cloud
from tests.lab.host import until

pytestmark = pytest.mark.timeout(120)

type Make = Callable[..., sky.AWS]


class Stingy:
    """Somebody who pays for three seconds, from the first time that one asks how long it will be."""

    limited = False
    until = 0.0

    def check(self, quote: Quote) -> None:
        """Pay for anything."""

    def begin(self, machine: str, hourly: float | None) -> None:
        """Count nothing."""

    def left(self) -> float:
        self.until = self.until or time.monotonic() + 3.0
        return max(0.0, self.until - time.monotonic())


def test_the_price_is_said_before_and_the_cost_after(cloud: Cloud, aws: Make) -> None:
    with sky.Compute(provider=aws(), nodes=3) as compute:
        assert compute.submit(work.square, 3).result() == 9
        quoted, *others = [each for each in compute.events() if isinstance(each, Quoted)]
    assert others == []
    # 0.0084 for the machine, 0.005 for its address, 15 GB of disk at 0.08 a month
    assert quoted.text == (
        f"3 x t4g.micro in {quoted.text.split()[4]} $0.015 an hour each with address and disk, $0.0451 in all; "
        "ten minutes cost $0.00752"
    )
    assert quoted.hourly == pytest.approx(3 * (0.0084 + 0.005 + 15 * 0.08 / 730))
    report = compute.report()
    assert report.machines == 3
    assert report.cost == pytest.approx(quoted.hourly / 60, rel=0.01)  # a minute of each, which is the least
    *_, last = (each for each in compute.events() if isinstance(each, Spent))
    assert last.hourly == 0.0
    assert cloud.left() == []


def test_a_budget_ends_the_machines_and_the_call(cloud: Cloud, aws: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "MIN_CHARGED_S", 0.0)
    cloud.market.prices["t4g.micro"] = 36000.0  # ten dollars a second
    options = sky.Options(budget=200.0)
    with sky.Compute(provider=aws(), nodes=2, worker=sky.Worker(concurrency=2), options=options) as compute:
        with pytest.raises(sky.BudgetExceeded) as told:
            list(compute.map(work.square_or_wait, range(8), [False, False, True, True, True, True, True, True]))
        assert told.value.results == {0: 0, 1: 1}
        until(lambda: not cloud.living(), "the machines are ended before the block is left")
    assert 200.0 <= compute.report().cost < 400.0
    assert cloud.left() == []


def test_what_is_too_dear_is_not_launched(cloud: Cloud, aws: Make) -> None:
    compute = sky.Compute(provider=aws(), nodes=10, options=sky.Options(max_hourly=0.10))
    with pytest.raises(sky.BudgetExceeded, match=r"10 x t4g.micro more would make it \$0.15 an hour"), compute:
        pass
    assert cloud.endpoint.count("RunInstances") == 0
    assert cloud.left() == []


def test_what_is_too_dear_beside_a_machine_that_is_taken_back_is_launched_after_it(cloud: Cloud, aws: Make) -> None:
    with sky.Compute(provider=aws(spot=True), options=sky.Options(max_hourly=0.012)) as compute:
        (first,) = compute.nodes
        cloud.interrupt(first.instance, notice=60)
        until(lambda: [node.number for node in compute.nodes] == [1], "another takes its place")
        assert compute.submit(work.square, 3).result(kit.SOON) == 9
    assert compute.report().machines == 2
    assert cloud.left() == []


def test_a_machine_counts_from_the_answer_on_though_nobody_has_heard_of_it_yet(cloud: Cloud, aws: Make) -> None:
    async def scenario() -> None:
        purse = BudgetGuard(None, 0.02, EventLog("run", None), lambda _: None)
        provider = aws()
        await provider.launch(Order("pool", "pool-0-0", purse=purse))
        assert purse.machines == 1
        (call,) = [call for call in cloud.calls if call.action == "RunInstances"]
        assert call.params["CreditSpecification.CpuCredits"] == "standard"  # bursts would cost what nothing counts
        with pytest.raises(sky.BudgetExceeded, match=r"1 x t4g.micro more would make it \$0.0301 an hour"):
            await provider.launch(Order("pool", "pool-1-0", purse=purse))
        purse.close()

    run(scenario())
    assert cloud.endpoint.count("RunInstances") == 1


def test_a_machine_whose_launch_fails_after_the_answer_costs_money_as_well(cloud: Cloud, aws: Make) -> None:
    provider = aws()

    def spoil(_: object) -> None:
        provider.journal_path.unlink()
        provider.journal_path.mkdir()

    async def scenario() -> None:
        purse = BudgetGuard(None, None, EventLog("run", None), lambda _: None)
        with pytest.raises(OSError, match="directory"):
            await provider.launch(Order("pool", "pool-0-0", purse=purse))
        assert (purse.machines, len(cloud.living())) == (1, 1)
        purse.close()

    cloud.fail("RunInstances", after=True, do=spoil)
    run(scenario())


def test_prices_that_may_not_be_asked_stop_only_who_has_a_limit(cloud: Cloud, aws: Make) -> None:
    cloud.fail("GetProducts", "AccessDeniedException", times=1000)
    with sky.Compute(provider=aws()) as compute:
        (quoted,) = [each for each in compute.events() if isinstance(each, Quoted)]
        assert "the price is not known" in quoted.text
        assert "pricing:GetProducts" in quoted.text
    launched = cloud.endpoint.count("RunInstances")
    limited = sky.Compute(provider=aws(), options=sky.Options(budget=1.0))
    with (
        pytest.raises(sky.BudgetExceeded, match=r"is not known .*pricing:GetProducts.*, so no limit can be enforced"),
        limited,
    ):
        pass
    assert cloud.endpoint.count("RunInstances") == launched


def test_a_machine_ends_itself_when_its_money_is_used_up_though_its_driver_is_there(cloud: Cloud, aws: Make) -> None:
    async def scenario() -> None:
        provider = aws()
        instance = await provider.launch(Order("pool", "pool-0-0", lease=30, purse=Stingy()))
        held = await provider.reach(instance)
        try:
            told: Any = cloud.model.get_instance(instance.id)
            await asyncio.to_thread(until, lambda: told._state.name == "terminated", "it ends itself", 20)
            assert told.state_reason.code == "Client.InstanceInitiatedShutdown"
        finally:
            await held.close()

    asyncio.run(scenario())
