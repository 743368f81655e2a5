"""A machine ends itself when nobody holds it: never contacted, not heard from any more, or too old."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import skyward as sky
from skyward.providers.aws.userdata import HELD_FILE
from skyward.providers.provider import Order
from tests.lab.cloud import Cloud
from tests.lab.host import Host, until

pytestmark = pytest.mark.timeout(120)
ORDER = Order("pool", "pool-0-0", lease=3)

type Make = Callable[..., sky.AWS]


def ended(cloud: Cloud, machine: str) -> bool:
    """Whether the machine has ended itself."""
    told: Any = cloud.model.get_instance(machine)
    return (told._state.name, told.state_reason.code) == ("terminated", "Client.InstanceInitiatedShutdown")


def test_a_machine_that_was_never_contacted_ends_itself(aws: Make, cloud: Cloud) -> None:
    instance = asyncio.run(aws(first_contact=2).launch(ORDER))

    until(lambda: instance.id in cloud.hosts, "it runs")
    until(lambda: ended(cloud, instance.id), "it ends itself", 6)


def test_a_machine_is_held_as_long_as_the_driver_is_there_and_ends_itself_after(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        provider = aws()
        instance = await provider.launch(ORDER)
        held = await provider.reach(instance)
        words: set[str] = set()

        def heard(host: Host) -> bool:
            words.add(host.run(f"cat {HELD_FILE}"))
            return len(words) > 20  # the driver says so ten times in the length of a lease

        await asyncio.to_thread(until, lambda: heard(cloud.hosts[instance.id]), "it is held for two leases")
        assert cloud.model.get_instance(instance.id)._state.name == "running"
        await held.close()
        await asyncio.to_thread(until, lambda: ended(cloud, instance.id), "it ends itself", 7)

    asyncio.run(scenario())


def test_a_machine_that_is_cut_off_ends_itself(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        provider = aws()
        instance = await provider.launch(ORDER)
        held = await provider.reach(instance)
        cloud.hosts[instance.id].cut()
        await asyncio.to_thread(until, lambda: ended(cloud, instance.id), "it ends itself", 7)
        await held.close()

    asyncio.run(scenario())


def test_no_machine_gets_older_than_it_may(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        provider = aws(max_lifetime=4.0)
        instance = await provider.launch(ORDER)
        held = await provider.reach(instance)
        await asyncio.to_thread(until, lambda: ended(cloud, instance.id), "it ends itself", 8)
        await held.close()

    asyncio.run(scenario())


def test_a_machine_without_a_lease_script_is_not_used(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        provider = aws()
        instance = await provider.launch(ORDER)
        await asyncio.to_thread(until, lambda: instance.id in cloud.hosts, "it runs")
        cloud.hosts[instance.id].run("rm -r /run/skyward")
        with pytest.raises(sky.Unreachable, match="its lease script did not start at boot"):
            await provider.reach(instance)

    asyncio.run(scenario())
