"""What holds for every provider holds for `sky.AWS`, on an EC2 with real machines; and what holds for it alone."""

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import skyward as sky
from skyward.providers.aws import resources, termination
from skyward.providers.aws.api import Api, Unanswered
from skyward.providers.provider import Instance, Order
from tests.conformance import test_provider as suite
from tests.conformance.test_provider import ORDER, machine, run
from tests.lab import firstboot
from tests.lab.cloud import IMAGES, REGION, Cloud
from tests.lab.endpoint import DROP, Call
from tests.lab.host import until
from tests.lab.lab import NEAR, Key

pytestmark = pytest.mark.timeout(120)
globals().update({name: test for name, test in vars(suite).items() if name.startswith("test_")})

type Make = Callable[..., sky.AWS]


@pytest.fixture
def provider(aws: Make) -> sky.AWS:
    return aws()


def orders(count: int) -> list[Order]:
    return [Order("pool", f"pool-{number}-0") for number in range(count)]


async def launch_all(provider: sky.AWS, count: int) -> Sequence[Instance]:
    return await asyncio.gather(*(provider.launch(order) for order in orders(count)))


def launches(cloud: Cloud) -> list[Call]:
    """The calls for machines."""
    return [call for call in cloud.calls if call.action == "RunInstances"]


def params(cloud: Cloud) -> dict[str, Any]:
    """What the first call for machines asked for."""
    return dict(launches(cloud)[0].params)


# ---------------------------------------------------------------- one call, whatever becomes of its answer


def test_what_is_ordered_together_is_one_call_and_each_machine_is_somebodys(provider: sky.AWS, cloud: Cloud) -> None:
    async def scenario() -> None:
        made = await launch_all(provider, 10)

        assert cloud.endpoint.count("RunInstances") == 1
        assert [each.name for each in made] == [order.name for order in orders(10)]
        assert sorted(await provider.find("pool"), key=lambda each: each.id) == sorted(made, key=lambda each: each.id)

    run(scenario())


def test_as_many_as_a_tag_can_name_are_one_call(provider: sky.AWS, cloud: Cloud) -> None:
    async def scenario() -> None:
        cloud.pending = 1000  # no hosts are needed
        made = await launch_all(provider, 120)

        assert cloud.endpoint.count("RunInstances") == 3
        assert {each.name for each in await provider.find("pool")} == {each.name for each in made}
        assert len(cloud.living()) == 120

    run(scenario())


@pytest.mark.parametrize("fault", ["InternalError", "drop"])
def test_an_answer_that_is_lost_makes_no_second_machine(provider: sky.AWS, cloud: Cloud, fault: str) -> None:
    async def scenario() -> None:
        for action in ("CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "RunInstances", "TerminateInstances"):
            cloud.fail(action, fault, after=True)
        made = await launch_all(provider, 3)
        assert {each.id for each in cloud.living()} == {each.id for each in made}
        assert len(cloud.groups()) == 1
        await asyncio.gather(*(provider.terminate(each) for each in made))
        assert cloud.living() == []
        cloud.fail("DeleteSecurityGroup", fault, after=True)
        assert await provider.clear("pool") == ()
        assert cloud.left() == []

    run(scenario())


def test_what_passes_is_tried_again_with_the_same_token(provider: sky.AWS, cloud: Cloud) -> None:
    async def scenario() -> None:
        cloud.fail("RunInstances", "RequestLimitExceeded", times=3)
        await provider.launch(ORDER)
        tokens = [call.params["ClientToken"] for call in cloud.calls if call.action == "RunInstances"]

        assert len(tokens) == 4
        assert len(set(tokens)) == 1

    run(scenario())


def test_a_machine_that_was_terminated_before_its_launch_was_answered_is_launched_with_another_token(
    provider: sky.AWS, cloud: Cloud
) -> None:
    def terminate(_: object) -> None:
        (machine,) = cloud.living()
        machine.terminate()
        until(lambda: not cloud.machines(), "it is terminated")

    async def scenario() -> None:
        cloud.fail("RunInstances", "InternalError", after=True, do=terminate)
        made = await provider.launch(ORDER)
        tokens = [call.params["ClientToken"] for call in launches(cloud)]

        assert (tokens[0] == tokens[1], tokens[1] == tokens[2]) == (True, False)
        assert [each.id for each in cloud.living()] == [made.id]

    run(scenario())


def test_what_is_asked_for_has_everything_in_the_very_same_call(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        provider = aws(tags={"team": "vision"}, volume_gb=30, spot=True)
        await provider.launch(Order("pool", "pool-0-0", lease=77))
        asked = params(cloud)

        prefix = "TagSpecification.1.Tag."
        keys = [name for name in asked if name.startswith(prefix) and name.endswith(".Key")]
        tags = {asked[name]: asked[f"{name.removesuffix('Key')}Value"] for name in keys}
        assert asked["InstanceType"] == "t4g.micro"
        assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
        assert asked["MetadataOptions.HttpTokens"] == "required"
        assert not [name for name in asked if name.startswith(("IamInstanceProfile", "KeyName"))]
        assert "CreditSpecification.CpuCredits" not in asked
        assert asked["BlockDeviceMapping.1.Ebs.VolumeSize"] == "30"
        assert asked["InstanceMarketOptions.MarketType"] == "spot"
        assert tags["team"] == "vision"
        assert (tags["skyward:pool"], tags["skyward:nodes"], tags["skyward:lease"]) == ("pool", "0-0", "77")
        assert "skyward:until" in tags

    run(scenario())


def test_the_intent_is_on_the_disk_before_the_call(provider: sky.AWS, cloud: Cloud) -> None:
    async def scenario() -> None:
        assert isinstance(provider, sky.AWS)
        seen: dict[str, list[str]] = {}

        def look(call: Any) -> None:
            lines = provider.journal_path.read_text().splitlines() if provider.journal_path.exists() else []
            seen[call.action] = [json.loads(line)["event"] for line in lines]

        for action in ("CreateSecurityGroup", "RunInstances"):
            cloud.fail(action, do=look)
        await provider.launch(ORDER)

        assert seen["CreateSecurityGroup"] == ["create_security_group"]
        assert seen["RunInstances"] == ["create_security_group", "run_instances"]

    run(scenario())


# ---------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("code", "error", "told"),
    [
        ("UnauthorizedOperation", sky.Denied, "your credentials do not allow ec2:RunInstances"),
        ("VcpuLimitExceeded", sky.QuotaExceeded, r"'Running On-Demand Standard \(A, C, D"),
        ("AuthFailure", sky.Denied, "renew them, or name others by profile="),
    ],
)
def test_what_will_not_pass_is_said_after_one_attempt(
    provider: sky.AWS, cloud: Cloud, code: str, error: type[Exception], told: str
) -> None:
    cloud.fail("RunInstances", code, times=math.inf)
    with pytest.raises(error, match=told):
        run(launch_all(provider, 3))
    assert cloud.endpoint.count("RunInstances") == 1


def test_an_image_or_type_that_is_not_there_is_named(aws: Make) -> None:
    with pytest.raises(sky.InvalidArgument, match=r"give an image of this region"):
        run(aws(image="ami-0123456789abcdef0").launch(ORDER))
    with pytest.raises(sky.InvalidArgument, match=r"instance_type='t9.huge'"):
        run(aws(instance_type="t9.huge").launch(ORDER))
    with pytest.raises(sky.InvalidArgument, match=r"instance_type='t4g.micro': it cannot run an image for x86_64"):
        run(aws(image="ami-0lab0ubuntu2404x8").launch(ORDER))


def test_an_api_that_does_not_answer_is_asked_for_a_while(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        api = Api("us-east-1", None)
        async with api.open():
            cloud.fail("DescribeInstances", "drop", times=2)
            await api.call("ec2", "describe_instances")
            cloud.fail("DescribeInstances", "drop", times=math.inf)
            with pytest.raises(Unanswered, match="ec2:DescribeInstances: Amazon does not answer"):
                await api.call("ec2", "describe_instances", patience=0.5)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        async with api.open():
            with pytest.raises(Unanswered, match="does not answer: Could not connect"):
                await api.call("ec2", "describe_instances", patience=0.5)

    run(scenario())


# ---------------------------------------------------------------- who gets in, and to whom


def test_sshd_is_open_to_the_address_from_which_we_come_and_nothing_else_is(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        await aws(allow=f"{cloud.endpoint.url}/checkip").launch(ORDER)
        (group,) = [
            each for groups in cloud.model.groups.values() for each in groups.values() if each.name != "default"
        ]
        (rule,) = group.ingress_rules
        assert (rule.cidr_ipv4, rule.ip_protocol) == (f"{NEAR}/32", "tcp")
        assert (int(rule.from_port), int(rule.to_port)) == (22, 22)

    run(scenario())


def test_a_machine_has_a_host_key_of_its_own_after_the_first_contact(provider: sky.AWS, cloud: Cloud) -> None:
    async def scenario() -> None:
        async with machine(provider) as (instance, host):
            userdata = firstboot.text(cloud.model.get_instance(instance.id).user_data)
            shown = cloud.hosts[instance.id].run("ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null").split()[-1]
            assert shown not in userdata
            await host.close()
            again = await provider.reach(instance)
            await again.close()

    run(scenario())


def test_whoever_shows_another_key_is_not_talked_to(provider: sky.AWS, cloud: Cloud) -> None:
    async def scenario() -> None:
        instance = await provider.launch(ORDER)
        (await asyncio.wait_for(provider.reach(instance), 20), await provider.reach(instance))[0]
        other = Key()
        cloud.hosts[instance.id].change_key(other.private, other.public)
        with pytest.raises((TimeoutError, sky.Unreachable)):
            await asyncio.wait_for(provider.reach(instance), 2)

    run(scenario())


def test_a_key_of_ones_own_opens_the_machines(aws: Make, cloud: Cloud, tmp_path: Any) -> None:
    async def scenario() -> None:
        key = Key()
        (tmp_path / "key").write_bytes(key.private)
        async with machine(aws(key=tmp_path / "key")) as (instance, _):
            allowed = cloud.hosts[instance.id].run("cat /home/ubuntu/.ssh/authorized_keys")
            assert allowed.split()[:2] == key.public.split()[:2]

    run(scenario())


def test_a_spot_notice_can_be_read_where_a_task_would(aws: Make, cloud: Cloud) -> None:
    ask = (
        "t=$(python3 -c 'import urllib.request as u;"
        'print(u.urlopen(u.Request("http://169.254.169.254/latest/api/token", method="PUT",'
        ' headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})).read().decode())\');'
        "python3 -c 'import sys, urllib.request as u;"
        'print(u.urlopen(u.Request("http://169.254.169.254/latest/meta-data/spot/instance-action",'
        ' headers={"X-aws-ec2-metadata-token": sys.argv[1]})).read().decode())\' $t'
    )

    async def scenario() -> None:
        async with machine(aws(spot=True)) as (instance, host):
            cloud.interrupt(instance.id, notice=30)
            process = await host.start(["sh", "-c", ask])
            lines = [line async for _, line in process.lines()]
            assert json.loads(lines[0])["action"] == "terminate"

    run(scenario())


# ---------------------------------------------------------------- what the API does not know yet


@pytest.fixture
def mine(cloud: Cloud) -> list[str]:
    """A security group of the user's own: what the pool has goes without one to remove."""
    return [cloud.model.create_security_group("mine", "-", cloud.model.get_default_vpc().id).id]


def test_a_machine_is_ended_though_the_api_does_not_know_of_it_yet(aws: Make, cloud: Cloud, mine: list[str]) -> None:
    async def scenario() -> None:
        provider = aws(security_groups=mine)
        cloud.forgetful = 60
        instance = await provider.launch(ORDER)
        cloud.fail("TerminateInstances", after=True, do=lambda _: setattr(cloud, "forgetful", 0))
        await provider.terminate(instance)
        assert cloud.living() == []

    run(scenario())


def test_a_machine_that_was_never_seen_is_ended_with_the_pool(
    aws: Make, cloud: Cloud, mine: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(termination, "LISTED_AFTER_S", 0.5)
        provider = aws(security_groups=mine)
        cloud.forgetful = 60
        cloud.fail("RunInstances", "InternalError", after=True)
        cloud.fail("RunInstances", "UnauthorizedOperation")  # when it is sent again
        with pytest.raises(sky.Denied):
            await provider.launch(ORDER)
        cloud.fail("DescribeInstances", after=True, do=lambda _: setattr(cloud, "forgetful", 0))
        assert await provider.clear("pool") == ()
        assert cloud.living() == []

    run(scenario())


@pytest.mark.parametrize("fault", ["InternalError", DROP])
def test_the_machine_of_a_launch_that_was_not_answered_is_found_when_the_api_tells_of_it(
    aws: Make, cloud: Cloud, mine: list[str], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(Api.call, "__kwdefaults__", {"patience": 0.1})
        provider = aws(security_groups=mine)
        cloud.forgetful = 3
        cloud.fail("RunInstances", fault, after=True, times=9)
        with pytest.raises(sky.ProvisioningError, match="RunInstances"):
            await provider.launch(ORDER)
        (machine,) = cloud.living()
        assert [(each.id, each.name) for each in await provider.find("pool")] == [(machine.id, ORDER.name)]

    run(scenario())


def test_what_may_not_be_ended_is_named_by_its_id_at_the_end_of_the_pool(aws: Make, cloud: Cloud) -> None:
    async def scenario() -> None:
        provider = aws()
        kept = await provider.launch(ORDER)
        cloud.fail("TerminateInstances", "OperationNotPermitted", times=99)
        left = await provider.clear("pool")
        assert kept.id in left

    run(scenario())


def test_machines_of_which_one_is_not_answered_for_are_each_tried(
    aws: Make, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(Api.call, "__kwdefaults__", {"patience": 0.1})
        made = await launch_all(aws(), 3)
        first, *others = sorted(each.id for each in made)
        monkeypatch.setattr(termination, "MAX_IDS_PER_CALL", 1)
        cloud.fail("TerminateInstances", DROP, times=99, match=lambda call: first in call.params.values())
        failed = await termination.Terminator(Api(REGION, None)).terminate_all([first, *others])
        assert {each: type(error) for each, error in failed.items()} == {first: Unanswered}
        assert [each.id for each in cloud.living()] == [first]

    run(scenario())


def test_what_is_gone_for_good_is_believed_after_a_while(
    aws: Make, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def let_time_pass(_: object) -> None:
        if cloud.endpoint.count("TerminateInstances") > 1:
            monkeypatch.setattr(resources, "PROPAGATION_TIME_S", 0.0)

    async def scenario() -> None:
        provider = aws()
        instance = await provider.launch(ORDER)
        cloud.fail("TerminateInstances", "InvalidInstanceID.NotFound", times=math.inf, do=let_time_pass)
        await provider.terminate(instance)
        assert cloud.endpoint.count("TerminateInstances") > 1

    run(scenario())


# ---------------------------------------------------------------- nothing of others is touched


def test_a_machine_of_somebody_else_is_never_ended(provider: sky.AWS, cloud: Cloud) -> None:
    async def scenario() -> None:
        mine = await provider.launch(ORDER)
        cloud.model.run_instances(
            next(iter(IMAGES)),
            1,
            None,
            [],
            instance_type="t3.micro",
            is_instance_type_default=False,
            region_name="us-east-1",
        )
        (other,) = [each.id for each in cloud.living() if each.id != mine.id]
        await provider.terminate(Instance(other, ORDER.pool, ORDER.node, other))
        await provider.terminate(Instance(other, "pool", "pool-7-0", other))
        assert {each.id for each in cloud.living()} == {mine.id, other}
        await provider.terminate(mine)
        assert await provider.clear("pool") == ()
        assert [each.id for each in cloud.living()] == [other]
        until(lambda: cloud.groups() == [], "the group is gone")

    run(scenario())
