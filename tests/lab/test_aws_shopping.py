"""Where machines of EC2 are had: zones with room, types that do, markets and prices; and for whom no longer."""

import asyncio

import pytest

import skyward as sky
from skyward.actors.budget import BudgetGuard
from skyward.providers.aws import launch_plan
from skyward.providers.aws.api import Api
from skyward.providers.aws.launch_plan import LaunchPlan
from skyward.providers.provider import Instance, Order
from skyward.telemetry.event_log import EventLog
from tests.conformance.test_provider import ORDER, run
from tests.lab.cloud import IMAGES, Cloud
from tests.lab.host import until
from tests.lab.test_aws_provider import Make, launch_all, launches, orders, params

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def provider(aws: Make) -> sky.AWS:
    return aws()


def test_what_a_zone_has_no_room_for_is_had_in_the_next(provider: sky.AWS, cloud: Cloud) -> None:
    async def scenario() -> None:
        cloud.capacity = {"us-east-1a/*/*": 3, "us-east-1b/*/*": 0, "us-east-1c/*/*": 4}
        made = await launch_all(provider, 10)

        zones = {place.partition("/")[0]: count for place, count in cloud.spread().items()}
        assert zones == {"us-east-1a": 3, "us-east-1c": 4, "us-east-1d": 3}
        assert {each.name for each in await provider.find("pool")} == {each.name for each in made}

    run(scenario())


def test_no_machine_is_made_for_one_who_does_not_want_it_any_more(provider: sky.AWS, cloud: Cloud) -> None:
    async def scenario() -> None:
        cloud.capacity = {"us-east-1a/*/*": 0}
        wants = {"pool-0-0": True, "pool-1-0": True}
        both = [Order("pool", node, wanted=lambda node=node: wants[node]) for node in wants]  # type: ignore[misc]
        cloud.fail("RunInstances", do=lambda _: wants.update({"pool-0-0": False}))
        first, second = await asyncio.gather(*(provider.launch(each) for each in both), return_exceptions=True)

        assert isinstance(first, sky.ProvisioningError)
        assert isinstance(second, Instance)
        assert [call.params["MaxCount"] for call in launches(cloud)] == ["2", "1"]
        assert len(cloud.living()) == 1

    run(scenario())


def test_no_machine_is_made_for_one_who_does_not_wait_for_it_any_more(provider: sky.AWS, cloud: Cloud) -> None:
    async def scenario() -> None:
        cloud.capacity = {"us-east-1a/*/*": 0}
        loop, launching = asyncio.get_running_loop(), asyncio.create_task(provider.launch(ORDER))

        def stop(_: object) -> None:
            loop.call_soon_threadsafe(launching.cancel)
            until(launching.done, "it waits no more")

        cloud.fail("RunInstances", do=stop)
        with pytest.raises(asyncio.CancelledError):
            await launching
        again = asyncio.create_task(provider.launch(ORDER))
        assert await provider.clear("pool") == ()
        with pytest.raises(sky.ProvisioningError, match="no longer needed"):
            await again
        assert len(launches(cloud)) == 1
        assert cloud.left() == []

    run(scenario())


def test_no_room_anywhere_says_where_it_was_looked_for(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        cloud.capacity = {"us-east-1a/*/*": 1, "*": 0}
        provider = aws(zones=["us-east-1a", "us-east-1b"])
        first, second = await asyncio.gather(*(provider.launch(each) for each in orders(2)), return_exceptions=True)

        assert isinstance(first, Instance)
        assert isinstance(second, sky.NoCapacity)
        assert "tried t4g.micro in us-east-1a after 1, t4g.micro in us-east-1b" in str(second)

    run(scenario())


def test_what_is_needed_is_had_where_it_is_cheapest_and_has_room(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        cloud.market.prices |= {"t4g.xlarge": 0.02, "c7g.xlarge": 0.01, "m7g.xlarge": 0.03}
        provider = aws(cpus=4, memory_gb=8, architecture="arm64", volume_gb=8)
        offers = await provider.offers()
        assert [offer.kind for offer in offers if offer.zone == "us-east-1a"][:2] == ["c7g.xlarge", "t4g.xlarge"]
        assert offers[0].machine == 0.01
        assert offers[0].hourly == pytest.approx(0.01 + 0.005 + 8 * 0.08 / 730)

        cloud.capacity = {"*/c7g.xlarge/*": 0}
        purse = BudgetGuard(10.0, None, EventLog("run", None), lambda _: None)
        await provider.launch(Order("pool", "pool-0-0", purse=purse))
        purse.close()
        assert {place.split("/")[1] for place in cloud.spread()} == {"t4g.xlarge"}
        credits = {
            call.params["InstanceType"]: "CreditSpecification.CpuCredits" in call.params for call in launches(cloud)
        }
        assert credits == {"c7g.xlarge": False, "t4g.xlarge": True}

    run(scenario())


def test_an_accelerator_is_found_by_its_name_and_gets_the_image_for_it(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        await aws(accelerator="T4").launch(ORDER)

        (place,) = cloud.spread()
        assert "/g4dn." in place
        assert IMAGES[params(cloud)["ImageId"]][1] == "x86_64"

    run(scenario())


def test_spare_machines_are_taken_where_they_are_cheapest_or_others_if_there_are_none(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        cloud.market.spot = {"us-east-1c": 0.2}
        cloud.capacity = {"us-east-1c/*/spot": 1, "*/*/spot": 0}
        provider = aws(spot="if-available")
        await launch_all(provider, 2)
        assert cloud.spread() == {"us-east-1c/t4g.micro/spot": 1, "us-east-1a/t4g.micro/on-demand": 1}
        with pytest.raises(sky.NoCapacity, match="no capacity for 1 of 1 machine: tried t4g"):
            await aws(spot=True).launch(Order("other", "other-0-0"))

    run(scenario())


def test_spot_prices_are_asked_for_anew_when_they_are_old(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        wish, now = aws(spot=True), [0.0]
        api = Api("us-east-1", None)
        plan = LaunchPlan(wish, api, clock=lambda: now[0])
        async with api.open():
            cloud.market.spot = {"us-east-1c": 0.2}
            assert [(await plan.launchable())[0].zone for _ in range(2)] == ["us-east-1c"] * 2
            cheap = (await plan.with_prices(await plan.launchable()))[0]
            assert cheap.hourly == pytest.approx(0.2 * 0.0084 + 0.005 + 15 * 0.08 / 730)
            cloud.market.spot = {"us-east-1b": 0.1}
            now[0] = launch_plan.PRICE_TTL_S + 1
            cheap = (await plan.with_prices(await plan.launchable()))[0]
            assert cheap.zone == "us-east-1b"
            assert cheap.machine == pytest.approx(0.1 * 0.0084)
        assert cloud.endpoint.count("DescribeInstanceTypes") == 2

    run(scenario())


def test_a_subnet_and_groups_of_ones_own_are_used(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        subnet = next(each for each in cloud.model.describe_subnets() if each.availability_zone == "us-east-1b")
        group = cloud.model.create_security_group("mine", "-", subnet.vpc_id)
        provider = aws(subnet=subnet.id, security_groups=[group.id])
        await provider.terminate(await provider.launch(ORDER))
        assert params(cloud)["SubnetId"] == subnet.id
        assert await provider.clear("pool") == ()
        assert cloud.groups() == ["mine"]

    run(scenario())
