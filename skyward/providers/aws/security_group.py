"""The security group of a pool in EC2: it lets in the one who makes it, to sshd, and nobody else to nothing."""

import asyncio
import contextlib
import ipaddress
import logging
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from skyward.errors import InvalidArgument, ProvisioningError
from skyward.providers.aws import resources, staleness
from skyward.providers.aws.api import Api, Refusal
from skyward.providers.aws.journal import Journal
from skyward.providers.aws.launch_plan import LaunchPlan
from skyward.providers.batching import side_by_side

log = logging.getLogger("skyward")


async def make(api: Api, plan: LaunchPlan, journal: Journal, pool: str, allow: str, tags: Mapping[str, str]) -> str:
    """Make the group of a pool, if it is not there, and return its id."""
    network, subnets = await side_by_side(asyncio.to_thread(source, allow), plan.subnets())
    name = f"skyward-{pool}"
    more: dict[str, Any] = {"VpcId": next(iter(subnets.values()))[1]} if subnets else {}
    await journal.note("create_security_group", pool=pool, region=await api.region(), name=name)
    try:
        made = await api.call(
            "ec2",
            "create_security_group",
            GroupName=name,
            Description=f"sshd of the machines of skyward pool {pool}, for who made them",
            TagSpecifications=[{"ResourceType": "security-group", "Tags": listed(tags)}],
            **more,
        )
        group = str(made["GroupId"])
    except Refusal as refusal:
        if refusal.code != "InvalidGroup.Duplicate":  # which is our own, if only the answer was lost
            raise
        group = (await resources.groups(api, pool))[0].id
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    with _passing("InvalidPermission.Duplicate"):
        await api.call(
            "ec2",
            "authorize_security_group_ingress",
            GroupId=group,
            IpPermissions=[{**rule, "IpRanges": [{"CidrIp": network, "Description": "who made the pool"}]}],
        )
    return group


async def remove_those_left_behind(api: Api) -> None:
    """Remove the groups of pools of this machine whose driver and guard were killed."""
    for each in await resources.groups(api):
        if staleness.is_orphan(each.tags):
            log.info("the security group %s of pool %s was left behind; removing it", each.id, each.pool)
            with contextlib.suppress(Refusal):  # it is not this pool's trouble
                await resources.remove(api, each.id)


def listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as the API takes them."""
    return [{"Key": name, "Value": value} for name, value in tags.items()]


@contextlib.contextmanager
def _passing(code: str) -> Iterator[None]:
    """Pass over a refusal with this code."""
    try:
        yield
    except Refusal as refusal:
        if refusal.code != code:
            raise


def source(allow: str) -> str:
    """Return the network that may reach sshd: as it was given, or this machine's address as a server sees it."""
    text = allow
    if "://" in allow:
        try:
            with urllib.request.urlopen(allow, timeout=10) as answer:
                text = answer.read(100).decode().strip()
        except OSError as error:
            fix = "give the address from which you reach the machines, for example allow='203.0.113.7'"
            raise ProvisioningError(f"allow={allow!r}: it did not answer with your address: {error}; {fix}") from error
    try:
        return str(ipaddress.IPv4Network(text, strict=False))
    except ValueError as error:
        raise InvalidArgument.of(
            "allow", text, f"not an address: {error}", "give one, for example '203.0.113.7'"
        ) from None
