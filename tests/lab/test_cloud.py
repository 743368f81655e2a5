"""The lab's EC2 is like the real one where it matters: by the SDK, over HTTP, with machines one can log in to."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aioboto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError

from tests.conformance.test_provider import run
from tests.lab.cloud import SSM, Cloud
from tests.lab.host import until
from tests.lab.lab import NEAR, Key, far

pytestmark = pytest.mark.timeout(120)
ONCE = Config(retries={"total_max_attempts": 1}, read_timeout=5)
FIRST_BOOT = """#cloud-config
bootcmd:
- [sh, -c, 'test ! -e /etc/ssh/ssh_host_ed25519_key.pub; echo "$(whoami) first" >/opt/ran']
runcmd:
- echo then >>/opt/ran
"""


@contextlib.asynccontextmanager
async def client(service: str = "ec2") -> AsyncIterator[Any]:
    async with aioboto3.Session().client(service, config=ONCE) as opened:
        yield opened


async def spec(ec2: Any, **more: Any) -> dict[str, Any]:
    """What it takes to run one machine."""
    async with client("ssm") as ssm:
        found = await ssm.get_parameter(Name=SSM.format("arm64"))
    common = {"ImageId": found["Parameter"]["Value"], "InstanceType": "t4g.micro", "MinCount": 1, "MaxCount": 1}
    return common | {"InstanceInitiatedShutdownBehavior": "terminate"} | more


async def launched(ec2: Any, **more: Any) -> list[str]:
    made = await ec2.run_instances(**await spec(ec2, **more))
    return [each["InstanceId"] for each in made["Instances"]]


async def seen(ec2: Any, machine: str, state: str) -> dict[str, Any]:
    """What is told of a machine, once it is in that state."""
    while True:
        found = await ec2.describe_instances(InstanceIds=[machine])
        told: dict[str, Any] = found["Reservations"][0]["Instances"][0]
        if told["State"]["Name"] == state:
            return told
        await asyncio.sleep(0.05)


async def refused(call: Callable[[], Awaitable[object]]) -> str:
    with pytest.raises(ClientError) as raised:
        await call()
    return str(raised.value.response["Error"]["Code"])


def test_a_machine_goes_through_its_states_and_runs_what_it_was_given(cloud: Cloud) -> None:
    async def scenario() -> None:
        async with client() as ec2:
            (machine,) = await launched(ec2, UserData=FIRST_BOOT)
            told = await seen(ec2, machine, "pending")
            assert "PublicIpAddress" not in told
            told = await seen(ec2, machine, "running")
            host = cloud.hosts[machine]
            assert (told["PublicIpAddress"], told["PrivateIpAddress"]) == (far(host), host.address)
            until(lambda: host.run("cat /opt/ran") == "root first\nthen\n", "user data has run")
            ended = await ec2.terminate_instances(InstanceIds=[machine])
            assert ended["TerminatingInstances"][0]["CurrentState"]["Name"] == "shutting-down"
            await seen(ec2, machine, "terminated")
            assert not host.is_alive

    run(scenario())


def test_a_machine_may_not_be_known_for_a_moment_after_its_launch(cloud: Cloud) -> None:
    async def scenario() -> None:
        cloud.forgetful = 60
        async with client() as ec2:
            (machine,) = await launched(ec2)
            assert (await ec2.describe_instances())["Reservations"] == []
            assert await refused(lambda: ec2.terminate_instances(InstanceIds=[machine])) == "InvalidInstanceID.NotFound"
            cloud.forgetful = 0
            await seen(ec2, machine, "running")

    run(scenario())


def test_a_shutdown_from_inside_ends_the_machine_or_stops_it(cloud: Cloud) -> None:
    async def scenario() -> None:
        async with client() as ec2:
            (first,) = await launched(ec2)
            (second,) = await launched(ec2, InstanceInitiatedShutdownBehavior="stop")
            for machine, end in ((first, "terminated"), (second, "stopped")):
                await seen(ec2, machine, "running")
                cloud.hosts[machine].run("(sleep 0.1; sudo shutdown -h now) >/dev/null 2>&1 &")
                told = await seen(ec2, machine, end)
                assert told["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"

    run(scenario())


def test_a_client_token_gives_the_same_machines_again(cloud: Cloud) -> None:
    async def scenario() -> None:
        async with client() as ec2:
            cloud.fail("RunInstances", "InternalError", after=True)
            many = {"MaxCount": 3, "ClientToken": "one"}
            assert await refused(lambda: launched(ec2, **many)) == "InternalError"
            machines = await launched(ec2, **many)
            assert machines == await launched(ec2, **many)
            assert len(machines) == 3 == len(cloud.living())
            found = await ec2.describe_instances(InstanceIds=machines)
            assert [each["AmiLaunchIndex"] for each in found["Reservations"][0]["Instances"]] == [0, 1, 2]
            other = many | {"MaxCount": 2}
            assert await refused(lambda: launched(ec2, **other)) == "IdempotentParameterMismatch"

    run(scenario())


def test_a_zone_gives_what_it_has(cloud: Cloud) -> None:
    async def scenario() -> None:
        cloud.capacity = {"us-east-1a/*/*": 2, "*/*/spot": 0}
        async with client() as ec2:
            assert len(await launched(ec2, MaxCount=5, Placement={"AvailabilityZone": "us-east-1a"})) == 2
            full = {"Placement": {"AvailabilityZone": "us-east-1a"}}
            assert await refused(lambda: launched(ec2, **full)) == "InsufficientInstanceCapacity"
            there = {"Placement": {"AvailabilityZone": "us-east-1b"}}
            assert len(await launched(ec2, **there)) == 1
            spot = {"InstanceMarketOptions": {"MarketType": "spot"}} | there
            assert await refused(lambda: launched(ec2, **spot)) == "InsufficientInstanceCapacity"
            assert cloud.spread() == {"us-east-1a/t4g.micro/on-demand": 2, "us-east-1b/t4g.micro/on-demand": 1}

    run(scenario())


def test_what_cannot_be_is_refused(cloud: Cloud) -> None:
    async def scenario() -> None:
        async with client() as ec2:
            wrong: dict[str, dict[str, Any]] = {"InvalidAMIID.NotFound": {"ImageId": "ami-0123456789abcdef0"}}
            wrong |= {"InvalidInstanceType.NotFound": {"InstanceType": "t9.huge"}}
            wrong |= {"InvalidKeyPair.NotFound": {"KeyName": "none"}}
            wrong |= {"InvalidParameterValue": {"InstanceType": "t3.micro"}}
            wrong |= {"InvalidGroup.NotFound": {"SecurityGroupIds": ["sg-0123456789abcdef0"]}}
            for code, more in wrong.items():
                assert await refused(lambda more=more: launched(ec2, **more)) == code  # type: ignore[misc]
            assert cloud.left() == []

    run(scenario())


def test_a_security_group_holds_and_cannot_be_deleted_while_it_is_used(cloud: Cloud) -> None:
    async def scenario() -> None:
        async with client() as ec2:
            key = Key()
            await ec2.import_key_pair(KeyName="key", PublicKeyMaterial=key.public.encode())
            group = (await ec2.create_security_group(GroupName="group", Description="-"))["GroupId"]
            (closed,) = await launched(ec2, KeyName="key", SecurityGroupIds=[group])
            await seen(ec2, closed, "running")
            ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": f"{NEAR}/32"}]}
            await ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ssh])
            (opened,) = await launched(ec2, KeyName="key", SecurityGroupIds=[group])
            told = await seen(ec2, opened, "running")
            _, writer = await asyncio.open_connection(told["PublicIpAddress"], 22)
            writer.close()
            assert "ssh-ed25519" in cloud.hosts[opened].run("cat /home/ubuntu/.ssh/authorized_keys")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.open_connection(far(cloud.hosts[closed]), 22), 0.3)
            assert await refused(lambda: ec2.delete_security_group(GroupId=group)) == "DependencyViolation"
            await ec2.terminate_instances(InstanceIds=[closed, opened])
            await seen(ec2, closed, "terminated")
            await seen(ec2, opened, "terminated")
            await ec2.delete_security_group(GroupId=group)

    run(scenario())


def test_faults_answers_that_are_lost_and_callers_that_are_cut_off(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with client() as ec2:
            assert await refused(lambda: _fail(cloud, ec2, "RequestLimitExceeded")) == "RequestLimitExceeded"
            assert await refused(lambda: _fail(cloud, ec2, "UnauthorizedOperation")) == "UnauthorizedOperation"
            with pytest.raises(HTTPClientError):
                await _fail(cloud, ec2, "drop")
            cloud.endpoint.cut("lab")
            with pytest.raises(HTTPClientError):
                await ec2.describe_instances()
            for name, value in cloud.environment("other").items():
                monkeypatch.setenv(name, value)
            async with client() as another:
                await another.describe_instances()
            cloud.endpoint.mend("lab")
            await ec2.describe_instances()
            cloud.fail("DescribeInstances", "RequestLimitExceeded", times=100, share=0.3)
            outcomes = await asyncio.gather(*(ec2.describe_instances() for _ in range(100)), return_exceptions=True)
            assert 15 <= sum(isinstance(each, ClientError) for each in outcomes) <= 45

    run(scenario())


async def _fail(cloud: Cloud, ec2: Any, code: str) -> None:
    cloud.fail("DescribeInstances", code)
    await ec2.describe_instances()


def test_a_spot_machine_reads_its_notice_before_it_is_taken_back(cloud: Cloud) -> None:
    ask = (
        "import urllib.request as u\nb = 'http://169.254.169.254/latest/'\n"
        "h = {'X-aws-ec2-metadata-token-ttl-seconds': '60'}\n"
        "t = u.urlopen(u.Request(b + 'api/token', method='PUT', headers=h))\n"
        "h = {'X-aws-ec2-metadata-token': t.read().decode()}\n"
        "print(u.urlopen(u.Request(b + 'meta-data/spot/instance-action', headers=h)).read().decode())"
    )

    async def scenario() -> None:
        async with client() as ec2:
            (machine,) = await launched(ec2, InstanceMarketOptions={"MarketType": "spot"})
            await seen(ec2, machine, "running")
            began = time.monotonic()
            cloud.interrupt(machine, notice=1.5)
            assert '"action": "terminate"' in cloud.hosts[machine].run(f'python3.12 -c "{ask}"')
            told = await seen(ec2, machine, "terminated")
            assert told["StateReason"]["Code"] == "Server.SpotInstanceTermination"
            assert time.monotonic() - began > 1.5

    run(scenario())


def test_prices_are_told_in_pages(cloud: Cloud) -> None:
    async def scenario() -> None:
        cloud.market.prices["t4g.micro"] = 0.0084
        cloud.market.spot["us-east-1b"] = 0.25
        async with client("pricing") as pricing, client() as ec2:
            one = [{"Type": "TERM_MATCH", "Field": "instanceType", "Value": "t4g.micro"}]
            found = await pricing.get_products(ServiceCode="AmazonEC2", Filters=one)
            assert "0.0084" in found["PriceList"][0]
            all_ = await pricing.get_products(ServiceCode="AmazonEC2")
            assert len(all_["PriceList"]) == 100
            assert all_["NextToken"]
            history = await ec2.describe_spot_price_history(InstanceTypes=["t4g.micro"])
            prices = {each["AvailabilityZone"]: float(each["SpotPrice"]) for each in history["SpotPriceHistory"]}
            assert prices["us-east-1b"] == pytest.approx(0.0021)

    run(scenario())
