"""List and terminate Skyward resources in the cloud, from any machine: `sky.ls()` and `sky.down()`.

They search for the tags of what Skyward creates and need nothing from the driver that created it: they work after it is
gone, and from another machine.
"""

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skyward import interruptible
from skyward.errors import Denied, InvalidArgument, Leaked, ProvisioningError, listed
from skyward.providers.aws import journal, price_list, resources, staleness, termination
from skyward.providers.aws.api import Api, Refusal
from skyward.providers.aws.instance_selection import Prices
from skyward.providers.aws.resources import LEASE_TAG, EC2Instance, FoundGroup
from skyward.providers.aws.staleness import BY, UNTIL
from skyward.providers.aws.termination import NotTerminated, Terminator
from skyward.providers.batching import side_by_side

log = logging.getLogger("skyward")


@dataclass(frozen=True, slots=True)
class CloudMachine:
    """A cloud machine of a Skyward pool that is not terminated.

    Attributes
    ----------
    id, node, state, kind, zone, spot, address
        What it is, the node that it was launched for, and where it is.
    launched
        When.
    lease
        Seconds without contact to its driver after which it shuts itself down.
    until
        When it shuts itself down in any case.
    hourly
        Dollars per hour with address and disk; None if the price is not known.
    """

    id: str
    node: str
    state: str
    kind: str
    zone: str
    spot: bool
    address: str
    launched: dt.datetime
    lease: float | None
    until: dt.datetime | None
    hourly: float | None

    @property
    def age(self) -> dt.timedelta:
        """How long ago it was launched."""
        return dt.datetime.now(dt.UTC) - self.launched

    @property
    def cost(self) -> float | None:
        """Dollars so far, at the price of today."""
        return None if self.hourly is None else self.hourly * self.age.total_seconds() / 3600


@dataclass(frozen=True, slots=True)
class CloudPool:
    """A pool that still has resources in the cloud.

    Attributes
    ----------
    name, region
        Its name, and where it is.
    machines
        Its machines that are not terminated.
    groups
        Ids of its security groups.
    by
        Who made it: a machine and a process, as `host:pid`.
    stale
        Whether it is abandoned: its driver ran on this machine and is certainly gone, all its machines are past their
        maximum lifetime, or only a security group is left.
    """

    name: str
    region: str
    machines: tuple[CloudMachine, ...]
    groups: tuple[str, ...]
    by: str
    stale: bool

    @property
    def hourly(self) -> float | None:
        """Dollars per hour of all its machines; None if a price is not known."""
        return _sum(machine.hourly for machine in self.machines)

    @property
    def cost(self) -> float | None:
        """Dollars so far of its machines that are not terminated."""
        return _sum(machine.cost for machine in self.machines)


def _sum(prices: Any) -> float | None:
    known = list(prices)
    return None if None in known else sum(known)


def ls(*, region: str | None = None, profile: str | None = None, prices: bool = True) -> tuple[CloudPool, ...]:
    """Return every pool that has a machine or a security group, whoever made it.

    Parameters
    ----------
    region
        Region to search. By default, the configured region and all regions in which this machine has started pools that
        may not be completely gone. If one of several cannot be searched, the logger `skyward` names it.
    profile
        A profile of `~/.aws/config`.
    prices
        Whether to look up prices.

    Raises
    ------
    Denied
        The credentials do not allow this.
    """
    found = survey(region=region, profile=profile, prices=prices)
    found.warn()
    return found.pools


@dataclass(frozen=True, slots=True)
class Survey:
    """The pools that were found in the `regions` that were searched, and why others could not be searched."""

    pools: tuple[CloudPool, ...]
    regions: tuple[str, ...]
    refused: Mapping[str, str]

    def warn(self) -> None:
        """Log which regions could not be searched."""
        for region, why in self.refused.items():
            log.warning("%s could not be searched: %s", region, why)

    def chosen(self, names: Sequence[str], *, stale: bool, all: bool) -> list[CloudPool]:
        """Return the pools of these names, or the stale ones, or all.

        Raises
        ------
        InvalidArgument
            No pool has one of the names.
        Leaked
            The same, but a region could not be searched.
        """
        chosen = [pool for pool in self.pools if all or (stale and pool.stale) or pool.name in names]
        if strangers := [name for name in names if name not in {pool.name for pool in chosen}]:
            self.check()
            found = ", ".join(pool.name for pool in self.pools) or "none"
            raise InvalidArgument(f"there is no pool {strangers[0]!r} in {listed(self.regions)}; found: {found}")
        return chosen

    def check(self) -> None:
        """Raise `Leaked` if there is a region of which nothing is known."""
        if self.refused:
            told = "; ".join(f"{region}: {why}" for region, why in self.refused.items())
            raise Leaked(
                f"something may be left in regions that could not be searched: {told}. Try again, or name a region"
            )


def survey(*, region: str | None = None, profile: str | None = None, prices: bool = True) -> Survey:
    """Return what `ls` lists, and which regions were searched."""
    return _ran(_everywhere(region, profile, prices))


def down(
    *pools: str, stale: bool = False, all: bool = False, region: str | None = None, profile: str | None = None
) -> tuple[CloudPool, ...]:
    """Terminate pools, and return them. Nothing without Skyward's tags is ever touched.

    Parameters
    ----------
    pools
        Names of pools, as returned by `ls`. Without names, nothing is terminated unless `stale` or `all` is true.
    stale
        Terminate all abandoned pools.
    all
        Terminate all pools, including those in use.
    region, profile
        As for `ls`.

    Raises
    ------
    InvalidArgument
        No pool has one of the names, or it is not said which pools to terminate.
    Leaked
        Something could not be terminated; the text names it by pool, with the reason. All pools are tried before it is
        raised. With `stale` or `all`, also raised if a region could not be searched.
    """
    if bool(pools) + stale + all != 1:
        raise InvalidArgument("name the pools to terminate, or pass stale=True or all=True")
    found = survey(region=region, profile=profile, prices=False)
    chosen = found.chosen(pools, stale=stale, all=all)
    end(chosen, profile=profile)
    if not pools:
        found.check()
    return tuple(chosen)


def end(pools: Sequence[CloudPool], *, profile: str | None = None) -> None:
    """Terminate these pools, as returned by `ls`.

    Raises
    ------
    Leaked
        Something could not be terminated; the text names it by pool, with the reason. All pools are tried before it is
        raised.
    """
    _ran(_end_all(pools, profile))


def _ran[T](work: Coroutine[Any, Any, T]) -> T:
    try:
        return interruptible.run(work)
    except Refusal as refusal:
        raise refusal.explained() from refusal


async def _everywhere(region: str | None, profile: str | None, prices: bool) -> Survey:
    regions = {await Api(region, profile).region()}
    if region is None:
        regions |= set(journal.usual().unfinished().values())
    found = await side_by_side(*(_looked(Api(each, profile), prices) for each in sorted(regions)))
    refused = {each: error for each, error in zip(sorted(regions), found, strict=True) if isinstance(error, Exception)}
    if len(refused) == len(found):
        raise next(iter(refused.values()))
    return Survey(
        tuple(pool for pools in found if isinstance(pools, list) for pool in pools),
        tuple(each for each in sorted(regions) if each not in refused),
        {each: termination.explanation(error) for each, error in refused.items()},
    )


async def _looked(api: Api, priced: bool) -> list[CloudPool] | ProvisioningError | Refusal:
    """Return the pools of one region, or why it could not be searched."""
    try:
        return await _there(api, priced)
    except (ProvisioningError, Refusal) as error:
        return error


async def _there(api: Api, priced: bool) -> list[CloudPool]:
    """Return the pools of one region."""
    async with api.open():
        machines, groups = await side_by_side(resources.machines(api), resources.groups(api))
        alive = [machine for machine in machines if machine.is_alive]
        costs = await _hourly(api, alive) if priced and alive else {}
        names = sorted({*(each.pool for each in alive), *(each.pool for each in groups)})
        region = await api.region()
    return [_pool(name, region, alive, groups, costs) for name in names]


def _pool(
    name: str, region: str, alive: list[EC2Instance], groups: list[FoundGroup], costs: dict[str, float | None]
) -> CloudPool:
    machines = [each for each in alive if each.pool == name]
    mine = [each for each in groups if each.pool == name]
    of_machines, of_groups = [each.tags for each in machines], [each.tags for each in mine]
    stale = staleness.is_stale(of_machines, of_groups, dt.datetime.now(dt.UTC))
    by = [*of_machines, *of_groups][0].get(BY, "").rpartition(":")[0]
    shown = tuple(_machine(each, costs.get(each.id)) for each in sorted(machines, key=lambda each: each.node))
    return CloudPool(name, region, shown, tuple(each.id for each in mine), by, stale)


def _machine(found: EC2Instance, hourly: float | None) -> CloudMachine:
    lease = until = None
    with contextlib.suppress(KeyError, ValueError):
        lease = float(found.tags[LEASE_TAG])
        until = dt.datetime.fromisoformat(found.tags[UNTIL])
    return CloudMachine(
        found.id,
        found.node,
        found.state,
        found.kind,
        found.zone,
        found.spot,
        found.address,
        found.launched,
        lease,
        until,
        hourly,
    )


async def _hourly(api: Api, machines: list[EC2Instance]) -> dict[str, float | None]:
    """Return what the machines cost an hour; nothing is said of what the credentials may not ask."""
    kinds = sorted({machine.kind for machine in machines})
    try:
        prices = await price_list.prices(api, kinds, spot=any(machine.spot for machine in machines))
        disks = await _disks(api)
    except (Denied, ProvisioningError, Refusal):
        return {}
    return {machine.id: _price(machine, prices, disks.get(machine.id, 0)) for machine in machines}


def _price(machine: EC2Instance, prices: Prices, disk: int) -> float | None:
    base = prices.spot.get((machine.kind, machine.zone)) if machine.spot else prices.on_demand.get(machine.kind)
    return None if base is None else base + (prices.address or 0.0) + (prices.disk or 0.0) * disk


async def _disks(api: Api) -> dict[str, int]:
    """Return the GB of disk of each machine of ours."""
    found: dict[str, int] = {}
    filters = [{"Name": "tag-key", "Values": [resources.POOL_TAG]}]
    for volume in await api.pages("ec2", "describe_volumes", "Volumes", Filters=filters):
        for attached in volume.get("Attachments", []):
            found[attached["InstanceId"]] = found.get(attached["InstanceId"], 0) + int(volume["Size"])
    return found


async def _end_all(pools: Sequence[CloudPool], profile: str | None) -> None:
    """End these pools, each whatever becomes of the others."""
    ended = await asyncio.gather(*(_end(each, profile) for each in pools), return_exceptions=True)
    problems, left = list[str](), list[str]()
    for pool, error in zip(pools, ended, strict=True):
        if isinstance(error, Exception):
            problems.append(f"{pool.name} in {pool.region}: {termination.explanation(error)}")
            whole = [*(machine.id for machine in pool.machines), *pool.groups]
            left += error.errors if isinstance(error, NotTerminated) else whole
    if problems:
        raise Leaked(f"these could not be terminated: {'; '.join(problems)}", left)


async def _end(pool: CloudPool, profile: str | None) -> None:
    terminator = Terminator(Api(pool.region, profile))
    await terminator.clear(pool.name, termination.GROUP_REMOVAL_TIMEOUT_S, termination.LISTED_AFTER_S)
    try:
        await journal.usual().note("gone", pool=pool.name, by="down")
    except OSError as error:
        log.warning("could not note that %s is gone: %s", pool.name, error)
