"""The security group of a pool in EC2, which allows its maker to connect to sshd, and nothing else."""

import asyncio
import contextlib
import ipaddress
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from skyward.errors import InvalidArgument, ProvisioningError
from skyward.providers.aws import resources
from skyward.providers.aws.api import Api, Refusal
from skyward.providers.aws.journal import Journal
from skyward.providers.aws.launch_plan import LaunchPlan
from skyward.providers.batching import side_by_side


async def create(api: Api, plan: LaunchPlan, journal: Journal, pool: str, allow: str, tags: Mapping[str, str]) -> str:
    """Create the group of a pool if it does not exist, and return its id."""
    network, subnets = await side_by_side(asyncio.to_thread(allowed_network, allow), plan.subnets())
    name = f"skyward-{pool}"
    more: dict[str, Any] = {"VpcId": next(iter(subnets.values()))[1]} if subnets else {}
    await journal.note("create_security_group", pool=pool, region=await api.region(), name=name)
    try:
        made = await api.call(
            "ec2",
            "create_security_group",
            GroupName=name,
            Description=f"sshd of the machines of skyward pool {pool}, for who made them",
            TagSpecifications=[{"ResourceType": "security-group", "Tags": resources.tag_list(tags)}],
            **more,
        )
        group = str(made["GroupId"])
    except Refusal as refusal:
        if refusal.code != "InvalidGroup.Duplicate":  # it is this pool's own: the answer was lost
            raise
        group = (await resources.groups(api, pool))[0].id
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    with _ignoring("InvalidPermission.Duplicate"):
        await api.call(
            "ec2",
            "authorize_security_group_ingress",
            GroupId=group,
            IpPermissions=[{**rule, "IpRanges": [{"CidrIp": network, "Description": "who made the pool"}]}],
        )
    return group


@contextlib.contextmanager
def _ignoring(code: str) -> Iterator[None]:
    """Ignore a refusal with this code."""
    try:
        yield
    except Refusal as refusal:
        if refusal.code != code:
            raise


def allowed_network(allow: str) -> str:
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
