"""`sky.ls()` and `sky.down()` on EC2: what is there, whoever made it, and its end."""

import asyncio
import datetime as dt
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import skyward as sky
from skyward.providers.aws import inventory, staleness
from skyward.providers.aws.journal import Journal
from skyward.providers.provider import Order
from tests.conformance.test_provider import run
from tests.lab.cloud import REGION, Cloud
from tests.lab.host import until
from tests.lab.lab import NEAR

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]

type Make = Callable[..., sky.AWS]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME")
    return tmp_path


def launch(provider: sky.AWS, pool: str, count: int = 1) -> None:
    async def work() -> None:
        await asyncio.gather(*(provider.launch(Order(pool, f"{pool}-{n}-0", lease=300)) for n in range(count)))

    run(work())


def retag(cloud: Cloud, name: str, value: str) -> None:
    """Give everything that is there another value of a tag."""
    groups = [
        group.id for groups in cloud.model.groups.values() for group in groups.values() if group.name != "default"
    ]
    for each in [*groups, *(machine.id for machine in cloud.machines())]:
        cloud.model.create_tags([each], {name: value})


def test_what_is_there_is_told_by_pool_with_its_age_price_and_lease(cloud: Cloud, aws: Make) -> None:
    cloud.market.prices["t4g.micro"] = 0.0084
    launch(aws(volume_gb=8), "one", 2)
    launch(aws(spot=True, volume_gb=8), "two")
    one, two = sky.ls()

    assert (one.name, one.region, one.stale, len(one.groups)) == ("one", REGION, False, 1)
    assert [machine.node for machine in one.machines] == ["one-0-0", "one-1-0"]
    assert one.by.endswith(f":{os.getpid()}")
    machine = one.machines[0]
    assert (machine.kind, machine.lease, machine.spot) == ("t4g.micro", 300.0, False)
    assert machine.hourly == pytest.approx(0.0084 + 0.005 + 8 * 0.08 / 730)
    assert one.hourly == pytest.approx(2 * (0.0084 + 0.005 + 8 * 0.08 / 730))
    assert machine.cost is not None
    assert one.cost is not None
    assert 0 < machine.cost < one.cost < 0.01
    assert dt.timedelta(0) < machine.age < dt.timedelta(minutes=1)
    assert machine.until is not None
    assert machine.until > machine.launched
    assert two.machines[0].spot
    assert two.machines[0].hourly == pytest.approx(0.4 * 0.0084 + 0.005 + 8 * 0.08 / 730)


def test_prices_that_may_not_be_asked_are_not_told(cloud: Cloud, aws: Make) -> None:
    launch(aws(), "pool")
    cloud.fail("GetProducts", "AccessDeniedException", times=9)
    (pool,) = sky.ls()
    assert (pool.hourly, pool.cost) == (None, None)
    assert sky.ls(prices=False)[0].hourly is None


def test_a_pool_is_ended_by_its_name_and_nothing_else_is(cloud: Cloud, aws: Make) -> None:
    launch(aws(), "one", 2)
    launch(aws(), "two")
    ended = sky.down("one")

    assert [pool.name for pool in ended] == ["one"]
    assert [pool.name for pool in sky.ls()] == ["two"]
    assert cloud.groups() == ["skyward-two"]
    with pytest.raises(sky.InvalidArgument, match=r"there is no pool 'one' in .*; found: two"):
        sky.down("one")
    sky.down("two", region=REGION)
    until(lambda: not cloud.left(), "nothing is left")


def test_only_what_nobody_needs_is_ended_when_no_pool_is_named(cloud: Cloud, aws: Make) -> None:
    launch(aws(), "pool")
    assert sky.down(stale=True) == ()
    assert len(cloud.living()) == 1

    past = (dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)).isoformat(timespec="seconds")
    retag(cloud, staleness.UNTIL, past)
    assert sky.ls()[0].stale
    assert [pool.name for pool in sky.down(stale=True)] == ["pool"]
    until(lambda: not cloud.left(), "nothing is left")


def test_a_pool_whose_machines_were_launched_later_than_its_group_is_not_stale(cloud: Cloud, aws: Make) -> None:
    async def scenario() -> None:
        provider = aws()
        for number in range(2):
            await provider.launch(Order("pool", f"pool-{number}-0"))
            retag(cloud, staleness.UNTIL, "2020-01-01T00:00:00+00:00")  # it all has become so old
        assert sky.ls()[0].stale
        await provider.launch(Order("pool", "pool-2-0"))
        assert not sky.ls()[0].stale

    run(scenario())


def test_a_group_that_has_been_alone_for_long_is_stale(cloud: Cloud, aws: Make) -> None:
    cloud.fail("RunInstances", "UnauthorizedOperation")
    with pytest.raises(sky.Denied):
        launch(aws(), "pool")
    assert [(pool.machines, pool.stale) for pool in sky.ls()] == [((), False)]

    retag(cloud, staleness.MADE, (dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)).isoformat())
    assert sky.down(stale=True) == ()  # whoever made it still runs
    retag(cloud, staleness.BY, "elsewhere:7:")
    assert [pool.name for pool in sky.down(stale=True)] == ["pool"]
    assert cloud.left() == []


def test_what_a_driver_left_whose_guard_was_killed_is_ended_from_here(cloud: Cloud, home: Path) -> None:
    text = (
        "import asyncio, os, signal, psutil, skyward as sky\n"
        "from skyward.providers.provider import Order\n"
        f"asyncio.run(sky.AWS(allow={NEAR!r}).launch(Order('pool', 'pool-0-0')))\n"
        "for child in psutil.Process().children(): child.kill()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", text], env=environment, timeout=100, check=False)
    assert [pool.stale for pool in sky.ls()] == [True]
    assert sky.down(stale=True)
    until(lambda: not cloud.left(), "nothing is left")
    journal = [json.loads(line) for line in (home / ".local/state/skyward/aws.jsonl").read_text().splitlines()]
    assert journal[-1]["event"] == "gone"


def test_what_cannot_be_removed_is_said(cloud: Cloud, aws: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def goes_down() -> None:
        provider = aws()
        await provider.terminate(await provider.launch(Order("pool", "pool-0-0")))

    cloud.ending = 1000
    run(goes_down())
    monkeypatch.setattr("skyward.providers.aws.termination.GROUP_REMOVAL_TIMEOUT_S", 0.5)
    with pytest.raises(
        sky.Leaked,
        match=f"these could not be terminated: pool in {REGION}: sg-.*: "
        "it is still shutting down, or in use by what is",
    ):
        sky.down("pool")


def test_what_may_not_be_ended_keeps_no_other_machine_and_no_other_pool(cloud: Cloud, aws: Make) -> None:
    launch(aws(), "one", 3)
    launch(aws(), "two")
    kept = cloud.living(skyward_pool="one")[1].id
    cloud.fail("TerminateInstances", "UnauthorizedOperation", times=99, match=lambda call: kept in call.params.values())
    with pytest.raises(sky.Leaked) as told:
        inventory.end(sky.ls())

    assert re.fullmatch(
        f"these could not be terminated: one in {REGION}: {kept}: "
        "your credentials do not allow ec2:TerminateInstances: .*",
        str(told.value),
    )
    assert told.value.instances == (kept,)
    until(lambda: len(cloud.machines()) == 1, "the others are ended")
    assert [each.name for each in sky.ls()] == ["one"]


def test_an_end_that_cannot_be_noted_is_one(
    cloud: Cloud, aws: Make, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    launch(aws(journal=home / "elsewhere"), "pool")
    (home / ".local/state").mkdir(parents=True, exist_ok=True)
    (home / ".local/state/skyward").write_text("not a folder")

    assert [each.name for each in sky.down("pool")] == ["pool"]
    assert "could not note that pool is gone" in caplog.text


def test_a_driver_ends_the_machines_that_may_be_ended(cloud: Cloud, aws: Make) -> None:
    async def scenario() -> None:
        provider = aws()
        made = [await provider.launch(Order("pool", f"pool-{n}-0")) for n in range(3)]
        kept = made[1].id
        cloud.fail(
            "TerminateInstances", "OperationNotPermitted", times=99, match=lambda call: kept in call.params.values()
        )
        ended = await asyncio.gather(*(provider.terminate(each) for each in made), return_exceptions=True)

        assert [type(each) for each in ended] == [type(None), sky.ProvisioningError, type(None)]
        assert [each.id for each in cloud.living()] == [kept]

    run(scenario())


def test_a_region_that_refuses_hides_no_other(
    cloud: Cloud, aws: Make, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    launch(aws(), "pool")
    begun = Journal(home / ".local/state/skyward/aws.jsonl").note("run_instances", pool="far", region="eu-west-3")
    asyncio.run(begun)
    cloud.fail("*", "OptInRequired", times=math.inf, match=lambda call: call.region == "eu-west-3")

    assert [each.name for each in sky.ls()] == ["pool"]
    assert "eu-west-3 could not be searched: the credentials are not accepted" in caplog.text
    with pytest.raises(sky.Denied, match="OptInRequired"):
        sky.ls(region="eu-west-3")
    assert [each.name for each in sky.down("pool")] == ["pool"]
    with pytest.raises(sky.Leaked, match=r"could not be searched: eu-west-3: .*OptInRequired"):
        sky.down(stale=True)
    with pytest.raises(sky.Leaked, match="eu-west-3"):
        sky.down("far")


def test_credentials_that_do_not_do_are_told_as_such(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: Any = cloud.fail("DescribeInstances", "UnauthorizedOperation")
    with pytest.raises(sky.Denied, match="your credentials do not allow ec2:DescribeInstances"):
        sky.ls()
    assert refused.hits == 1
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(sky.Denied, match="there are no AWS credentials: run `aws configure`"):
        sky.ls()
    with pytest.raises(sky.InvalidArgument, match=r"profile='none': .*; give one of ~/.aws/config"):
        sky.ls(profile="none")


def test_without_a_region_one_is_asked_for(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(sky.InvalidArgument, match="region=None: no region is set; pass region='eu-central-1'"):
        sky.ls()
