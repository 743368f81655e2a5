"""What is asked of `RunInstances`, and in which order offers are tried, with an EC2 in memory."""

import asyncio
from typing import Any

import pytest

import skyward as sky
from skyward.providers.aws.instance_selection import Offer
from skyward.providers.aws.launch_config import LaunchConfig
from skyward.providers.aws.launch_plan import LaunchPlan
from tests.ec2 import PRICE, ZONES, FakeEC2, refusal


@pytest.fixture
def ec2() -> FakeEC2:
    return FakeEC2()


def parameters(ec2: FakeEC2, *, spot: bool = False, standard_credits: bool = False, **given: Any) -> dict[str, Any]:
    offer = Offer("t4g.micro", ZONES[0], spot, "arm64")
    plan = LaunchPlan(LaunchConfig(**given), ec2)
    asked = plan.parameters(offer, 3, "#cloud-config", ["sg-0"], {"a": "b"}, standard_credits=standard_credits)
    return asyncio.run(asked)


def test_a_launch_asks_for_machines_that_terminate_when_they_shut_down(ec2: FakeEC2) -> None:
    tags = [{"Key": "a", "Value": "b"}]
    assert parameters(ec2) == {
        "ImageId": "ami-ubuntu",
        "InstanceType": "t4g.micro",
        "MinCount": 1,
        "MaxCount": 3,
        "UserData": "#cloud-config",
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "SecurityGroupIds": ["sg-0"],
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
        "Placement": {"AvailabilityZone": ZONES[0]},
    }


def test_what_was_given_is_asked_for(ec2: FakeEC2) -> None:
    given = {"volume_gb": 30, "role": "reader", "subnet": ("subnet-1", "subnet-2"), "image": "ami-mine"}
    asked = parameters(ec2, spot=True, standard_credits=True, **given)

    disk = {"VolumeSize": 30, "VolumeType": "gp3", "DeleteOnTermination": True}
    assert asked["BlockDeviceMappings"] == [{"DeviceName": "/dev/sda1", "Ebs": disk}]
    assert asked["IamInstanceProfile"] == {"Name": "reader"}
    assert (asked["SubnetId"], "Placement" in asked) == ("subnet-1", False)
    assert asked["ImageId"] == "ami-mine"
    assert asked["InstanceMarketOptions"]["SpotOptions"]["InstanceInterruptionBehavior"] == "terminate"
    assert asked["CreditSpecification"] == {"CpuCredits": "standard"}


def test_offers_are_looked_up_once_and_prices_when_they_are_wanted(ec2: FakeEC2) -> None:
    async def scenario() -> None:
        plan = LaunchPlan(LaunchConfig(), ec2)
        offers = await plan.launchable()
        assert await plan.launchable() == offers
        assert [(each.kind, each.zone, each.hourly) for each in offers] == [("t4g.micro", each, None) for each in ZONES]
        assert not ec2.asked("get_products")
        assert [each.hourly for each in await plan.with_prices(offers)] == [PRICE] * 3
        asked = len(ec2.asked("get_products"))
        await plan.with_prices(offers[1:])
        assert len(ec2.asked("get_products")) == asked
        assert len(ec2.asked("describe_instance_types")) == 1

    asyncio.run(scenario())


def test_zones_that_were_not_named_are_not_tried(ec2: FakeEC2) -> None:
    named = LaunchPlan(LaunchConfig(zones=(ZONES[1],)), ec2)
    assert [each.zone for each in asyncio.run(named.launchable())] == [ZONES[1]]
    elsewhere = LaunchPlan(LaunchConfig(zones=("us-east-1a",)), ec2)
    with pytest.raises(sky.NoCapacity, match=r"no availability zone of this region offers a machine with zones="):
        asyncio.run(elsewhere.launchable())


def test_an_image_for_another_architecture_or_none_is_refused_by_name(ec2: FakeEC2) -> None:
    with pytest.raises(sky.InvalidArgument, match="architecture='x86_64': the image is for arm64"):
        asyncio.run(LaunchPlan(LaunchConfig(image="ami-mine", architecture="x86_64"), ec2).launchable())
    ec2.fail("get_parameter", refusal("GetParameter", "ParameterNotFound"))
    with pytest.raises(sky.InvalidArgument, match="image='/none': there is no such parameter in this region"):
        asyncio.run(LaunchPlan(LaunchConfig(image="/none"), ec2).launchable())
