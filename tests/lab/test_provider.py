"""What holds for every provider holds for `sky.SSH`, on hosts with a real sshd; and what holds for it alone."""

import asyncio

import pytest

import skyward as sky
from skyward.providers.provider import Order, Provider
from tests.conformance import test_provider as suite
from tests.conformance.test_provider import ORDER, OTHER, machine, run
from tests.lab.conftest import Hosts
from tests.lab.host import Host
from tests.lab.lab import Lab

pytestmark = pytest.mark.timeout(120)
globals().update({name: test for name, test in vars(suite).items() if name.startswith("test_")})


@pytest.fixture
def two(hosts: Hosts) -> list[Host]:
    return hosts(2)


@pytest.fixture
def provider(two: list[Host], lab: Lab) -> Provider:
    return sky.SSH(hosts=[host.name for host in two], config=lab.config)


def test_a_pool_cannot_have_more_nodes_than_there_are_machines(provider: Provider) -> None:
    async def scenario() -> None:
        await asyncio.gather(provider.launch(ORDER), provider.launch(OTHER))
        with pytest.raises(sky.NoCapacity, match=r"all machines of hosts= are in use \(2 machines\)"):
            await provider.launch(Order("pool", "pool-2-0"))

    run(scenario())


def test_a_machine_that_does_not_answer_is_taken_last(provider: Provider, two: list[Host]) -> None:
    async def scenario() -> None:
        two[0].kill()
        dead = await provider.launch(ORDER)
        with pytest.raises(sky.Unreachable, match=two[0].name):
            await provider.reach(dead)
        await provider.terminate(dead)
        async with machine(provider, OTHER) as (instance, _):
            assert instance.host == two[1].name

    asyncio.run(asyncio.wait_for(scenario(), 50))


def test_a_program_that_knows_nothing_finds_what_is_on_the_machines(
    provider: Provider, two: list[Host], lab: Lab
) -> None:
    async def scenario() -> None:
        async with machine(provider) as (instance, _):
            other = sky.SSH(hosts=[host.name for host in two], config=lab.config)

            assert list(await other.find("pool")) == [instance]
            await other.terminate(instance)
            assert list(await other.find("pool")) == []

    run(scenario())


def test_a_command_goes_on_when_the_connection_is_cut_and_nothing_it_prints_is_lost(
    provider: Provider, two: list[Host]
) -> None:
    async def scenario() -> None:
        async with machine(provider) as (_, host):
            text = "import time\nfor i in range(40): print(i, flush=True); time.sleep(0.05)"
            process = await host.start([host.python, "-c", text])
            lines = process.lines()
            heard = [await anext(lines) for _ in range(5)]
            two[0].run("pkill -f 'sshd: [u]buntu@'")
            heard += [line async for line in lines]

            assert [text for _, text in heard] == [str(number) for number in range(40)]
            assert await process.wait() == 0

    run(scenario())


def test_terminate_ends_all_that_a_node_has_started(provider: Provider, two: list[Host]) -> None:
    async def scenario() -> None:
        async with machine(provider) as (_, host):
            await host.start(["sh", "-c", "sleep 1000 & sleep 1001"])

    run(scenario())
    assert "sleep" not in two[0].run("ps -e -o args=")
    assert two[0].run("find /home/ubuntu/.cache -type f") == ""
