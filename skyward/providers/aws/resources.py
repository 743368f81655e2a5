"""List the resources of pools in a region, by the tag of their pool. What has no such tag is never touched.

Machines and security groups are all that Skyward creates: a machine gets its keys in its user data, so there is no key
pair.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skyward.providers.aws.api import Api

POOL_TAG, NODES_TAG, LEASE_TAG = "skyward:pool", "skyward:nodes", "skyward:lease"
"""The tags of a resource: its pool, the nodes of its launch, and its lease in seconds; for others see `staleness`."""

PROPAGATION_TIME_S = 60.0
"""Seconds from a launch in which the API may not know or list a machine."""

LIVE_STATES = ("pending", "running", "stopping", "stopped")
TERMINATING_STATES = ("shutting-down", "terminated")


@dataclass(frozen=True, slots=True)
class EC2Instance:
    """A machine as the API describes it."""

    id: str
    pool: str
    node: str
    state: str
    kind: str
    zone: str
    spot: bool
    launched: dt.datetime
    address: str
    reason: str
    tags: dict[str, str]

    @property
    def is_alive(self) -> bool:
        """Whether it is not terminating."""
        return self.state in LIVE_STATES


@dataclass(frozen=True, slots=True)
class FoundGroup:
    """A security group as the API describes it."""

    id: str
    name: str
    pool: str
    tags: dict[str, str]


def node_of(pool: str, nodes: str, index: int) -> str:
    """Return the node of the machine with this index in a launch for `nodes`, the value of the tag."""
    short = nodes.split()
    return f"{pool}-{short[index]}" if index < len(short) else ""


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags in the form of the API."""
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def _machine(told: dict[str, Any]) -> EC2Instance:
    tags = {tag["Key"]: tag["Value"] for tag in told.get("Tags", [])}
    pool = tags.get(POOL_TAG, "")
    return EC2Instance(
        told["InstanceId"],
        pool,
        node_of(pool, tags.get(NODES_TAG, ""), int(told.get("AmiLaunchIndex", 0))),
        told["State"]["Name"],
        told.get("InstanceType", ""),
        told.get("Placement", {}).get("AvailabilityZone", ""),
        told.get("InstanceLifecycle") == "spot",
        told["LaunchTime"],
        told.get("PublicIpAddress") or told.get("PrivateIpAddress") or "",
        told.get("StateReason", {}).get("Message", ""),
        tags,
    )


def _ours(pool: str | None) -> list[dict[str, Any]]:
    return [
        {"Name": "tag-key", "Values": [POOL_TAG]} if pool is None else {"Name": f"tag:{POOL_TAG}", "Values": [pool]}
    ]


async def machines(api: Api, pool: str | None = None) -> list[EC2Instance]:
    """Return Skyward's machines, of a pool or all, including those that were terminated recently."""
    async with api.open():
        pages = await api.pages("ec2", "describe_instances", "Reservations", Filters=_ours(pool))
    return [_machine(each) for reservation in pages for each in reservation["Instances"]]


async def groups(api: Api, pool: str | None = None) -> list[FoundGroup]:
    """Return Skyward's security groups, of a pool or all."""
    async with api.open():
        told = await api.pages("ec2", "describe_security_groups", "SecurityGroups", Filters=_ours(pool))
    found = []
    for each in told:
        tags = {tag["Key"]: tag["Value"] for tag in each.get("Tags", [])}
        found.append(FoundGroup(each["GroupId"], each["GroupName"], tags.get(POOL_TAG, ""), tags))
    return found
