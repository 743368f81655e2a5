"""Find and remove a pool's resources in a region. They carry the tag of their pool; nothing else is touched.

Machines and security groups are all that we create: a machine gets its keys in its user data, so there is no key pair.
"""

import asyncio
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skyward.errors import ProvisioningError
from skyward.providers.aws import api_errors
from skyward.providers.aws.api import Api, Refusal
from skyward.retry import backoff

POOL, NODES, LEASE = "skyward:pool", "skyward:nodes", "skyward:lease"
"""The tags of what is ours: its pool, its launch's nodes, and its lease in seconds; for others see `staleness`."""

PROPAGATION_TIME_S = 60.0
"""Seconds, from its launch, in which the API may say that it does not know of a machine, or not tell of it."""

SETTLE_DELAY_S = 10.0
"""Seconds after which it is looked once more whether a launch has come to something."""

ALIVE = ("pending", "running", "stopping", "stopped")
GOING = ("shutting-down", "terminated")
MAX_IDS_PER_CALL = 200


@dataclass(frozen=True, slots=True)
class Found:
    """A machine as the API tells of it."""

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
        """Whether it runs, or may still come to."""
        return self.state in ALIVE


@dataclass(frozen=True, slots=True)
class FoundGroup:
    """A security group as the API tells of it."""

    id: str
    name: str
    pool: str
    tags: dict[str, str]


def node_of(pool: str, nodes: str, index: int) -> str:
    """Return the node of the machine with that index in a launch for these nodes, as the tag has them."""
    short = nodes.split()
    return f"{pool}-{short[index]}" if index < len(short) else ""


def _machine(told: dict[str, Any]) -> Found:
    tags = {tag["Key"]: tag["Value"] for tag in told.get("Tags", [])}
    pool = tags.get(POOL, "")
    return Found(
        told["InstanceId"],
        pool,
        node_of(pool, tags.get(NODES, ""), int(told.get("AmiLaunchIndex", 0))),
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
    return [{"Name": "tag-key", "Values": [POOL]} if pool is None else {"Name": f"tag:{POOL}", "Values": [pool]}]


async def machines(api: Api, pool: str | None = None) -> list[Found]:
    """Return our machines, of a pool or all, those that have just ended included."""
    async with api.open():
        pages = await api.pages("ec2", "describe_instances", "Reservations", Filters=_ours(pool))
    return [_machine(each) for reservation in pages for each in reservation["Instances"]]


async def groups(api: Api, pool: str | None = None) -> list[FoundGroup]:
    """Return our security groups, of a pool or all."""
    async with api.open():
        told = await api.pages("ec2", "describe_security_groups", "SecurityGroups", Filters=_ours(pool))
    found = []
    for each in told:
        tags = {tag["Key"]: tag["Value"] for tag in each.get("Tags", [])}
        found.append(FoundGroup(each["GroupId"], each["GroupName"], tags.get(POOL, ""), tags))
    return found


class NotEnded(ProvisioningError):
    """Something of a pool could not be ended, though all was tried. `errors` are what was said, by ids."""

    def __init__(self, errors: Mapping[str, Exception]) -> None:
        self.errors = dict(errors)
        reasons: dict[str, list[str]] = {}
        for each, error in errors.items():
            reasons.setdefault(said(error), []).append(each)
        super().__init__("; ".join(f"{', '.join(ids)}: {reason}" for reason, ids in reasons.items()))


def said(error: Exception) -> str:
    """Return what an error says, as a user is told it."""
    return str(error.explained() if isinstance(error, Refusal) else error)


async def end(api: Api, ids: Sequence[str]) -> dict[str, Exception]:
    """End these machines, and return when the API says that they go down; those that do not, with what was said.

    For one that may not be ended the API refuses the whole call, so that they are ended one by one then. A machine that
    the API does not know is told as well: see `is_unknown`.
    """
    failed: dict[str, Exception] = {}
    async with api.open():
        for first in range(0, len(ids), MAX_IDS_PER_CALL):
            some = list(ids[first : first + MAX_IDS_PER_CALL])
            try:
                failed |= await _end(api, some)
            except (Refusal, ProvisioningError) as error:
                alike = not isinstance(error, Refusal) or api_errors.concerns_all(error.code, error.status)
                if len(some) == 1 or alike:
                    failed |= dict.fromkeys(some, error)
                    continue
                for each in some:
                    failed |= await end(api, [each])
    return failed


async def _end(api: Api, ids: list[str]) -> dict[str, Exception]:
    answer = await api.call("ec2", "terminate_instances", InstanceIds=ids)
    states = {each["InstanceId"]: each["CurrentState"]["Name"] for each in answer["TerminatingInstances"]}
    return {
        each: ProvisioningError(f"ec2:TerminateInstances: it is {state}, and not shutting down")
        for each, state in states.items()
        if state not in GOING
    }


def is_unknown(error: Exception) -> bool:
    """Whether it says that there is no such machine."""
    return isinstance(error, Refusal) and error.code == "InvalidInstanceID.NotFound"


async def remove(api: Api, group: str) -> bool:
    """Remove a security group; False when a machine that goes down still has it. One that is gone is no error."""
    async with api.open():
        try:
            await api.call("ec2", "delete_security_group", GroupId=group)
        except Refusal as refusal:
            if refusal.code not in ("DependencyViolation", "InvalidGroup.InUse", "InvalidGroup.NotFound"):
                raise
            return refusal.code == "InvalidGroup.NotFound"
    return True


@dataclass(frozen=True, slots=True)
class Swept:
    """What of a pool was there: machines that ran, and go down now; groups that are gone now, or still held by some."""

    ended: list[str]
    removed: list[str]
    held: list[str]

    @property
    def left(self) -> list[str]:
        """What has to be looked after again; if there is nothing, nothing is there any more."""
        return [*self.ended, *self.held]


async def sweep(api: Api, pool: str) -> Swept:
    """End what a pool has.

    Raises
    ------
    NotEnded
        Some of it may not be ended; the rest was.
    """
    async with api.open():
        alive = [each.id for each in await machines(api, pool) if each.is_alive]
        failed = {each: error for each, error in (await end(api, alive)).items() if not is_unknown(error)}
        removed, held = list[str](), list[str]()
        for each in await groups(api, pool):
            try:
                (removed if await remove(api, each.id) else held).append(each.id)
            except (Refusal, ProvisioningError) as error:
                failed[each.id] = error
    if failed:
        raise NotEnded(failed)
    return Swept(alive, removed, held)


def terminate_delays() -> Iterator[float]:
    """Yield the seconds between two attempts to end what the API may not know yet."""
    return backoff(0.2, 5.0, 1.5)


async def cleared(api: Api, pool: str, patience: float, settle: float) -> list[str]:
    """Terminate and remove what a pool has, repeatedly until nothing is left; return what could not be removed.

    An empty listing proves nothing: EC2 may not list a new machine yet. Removing the pool's security group does,
    because EC2 refuses that while a machine uses it; otherwise a second listing, `settle` seconds later, must be empty
    as well.
    """
    clock = asyncio.get_running_loop().time
    until, delays, clean, enough = clock() + patience, terminate_delays(), 0, 2 if settle else 1
    async with api.open():
        while True:
            swept = await sweep(api, pool)
            clean, enough = 0 if swept.left else clean + 1, 1 if swept.removed else enough
            if clean >= enough or clock() > until:
                return swept.left
            delay = next(delays)
            await asyncio.sleep(settle if clean else delay)
