"""What of ours is there in the cloud, and its end, from wherever one asks: `sky.ls()` and `sky.down()`.

They look for the tags of what we create and need nothing of the driver that created it: they work after it is gone, and
from another machine.
"""

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from skyward.errors import Denied, InvalidArgument, Leaked, ProvisioningError
from skyward.providers import aws_found, aws_prices, aws_stale, journal
from skyward.providers.aws_api import Api, Refusal
from skyward.providers.aws_found import LEASE, Found, FoundGroup, NotEnded
from skyward.providers.aws_stale import BY, UNTIL
from skyward.providers.shopping import Prices
from skyward.providers.together import side_by_side

log = logging.getLogger("skyward")

PATIENCE = 300.0
"""Seconds in which a security group can be removed, once the machines that had it go down."""


@dataclass(frozen=True, slots=True)
class CloudMachine:
    """A machine of ours that lives.

    Attributes
    ----------
    id, node, state, kind, zone, spot, address
        What it is, for which node it was launched, and where.
    launched
        When.
    lease
        Seconds after which it ends itself, when its driver is not heard from.
    until
        When it ends itself in any case.
    hourly
        Dollars an hour with address and disk; None where no price is known.
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
    """A pool of which something is there.

    Attributes
    ----------
    name, region
        Its name, and where it is.
    machines
        Its machines that live.
    groups
        Ids of its security groups.
    by
        Who made it: a machine and a process, as `host:pid`.
    stale
        Whether nobody needs it any more: its driver was on this machine and is surely gone, all its machines are older
        than they may get, or nothing but a security group is left.
    """

    name: str
    region: str
    machines: tuple[CloudMachine, ...]
    groups: tuple[str, ...]
    by: str
    stale: bool

    @property
    def hourly(self) -> float | None:
        """Dollars an hour of all its machines; None where a price is not known."""
        return _sum(machine.hourly for machine in self.machines)

    @property
    def cost(self) -> float | None:
        """Dollars so far of the machines that live."""
        return _sum(machine.cost for machine in self.machines)


def _sum(prices: Any) -> float | None:
    known = list(prices)
    return None if None in known else sum(known)


def ls(*, region: str | None = None, profile: str | None = None, prices: bool = True) -> tuple[CloudPool, ...]:
    """Return every pool of which a machine or a security group is there, whoever made it.

    Parameters
    ----------
    region
        Where to look; left out, in the region of the configuration, and in those where pools of this machine were begun
        of which nothing says that all is gone. One of several that cannot be looked at is told by the log `skyward`.
    profile
        A profile of `~/.aws/config`.
    prices
        Whether to ask what it costs.

    Raises
    ------
    Denied
        The credentials do not allow it.
    """
    found = survey(region=region, profile=profile, prices=prices)
    found.warn()
    return found.pools


@dataclass(frozen=True, slots=True)
class Survey:
    """What of ours is there: the pools that were found, and the regions that could not be looked at, with reasons."""

    pools: tuple[CloudPool, ...]
    refused: Mapping[str, str]

    def warn(self) -> None:
        """Tell the log where it could not be looked."""
        for region, why in self.refused.items():
            log.warning("%s could not be looked at: %s", region, why)

    def check(self) -> None:
        """Raise `Leaked` if there is a region of which nothing is known."""
        if self.refused:
            told = "; ".join(f"{region}: {why}" for region, why in self.refused.items())
            raise Leaked(f"something may be left where it could not be looked: {told}. Try again, or name a region")


def survey(*, region: str | None = None, profile: str | None = None, prices: bool = True) -> Survey:
    """Return what `ls` lists, and where it could not be looked."""
    return _ran(_everywhere(region, profile, prices))


def down(pool: str | None = None, *, region: str | None = None, profile: str | None = None) -> tuple[CloudPool, ...]:
    """End a pool, or all that are stale, and return what was ended. Nothing without our tags is ever touched.

    Raises
    ------
    InvalidArgument
        There is no such pool.
    Leaked
        Something could not be ended, though all was tried; the text names it by pool, with what was said. Or, where all
        stale ones are to be ended, a region could not be looked at.
    """
    return _ran(_down(pool, region, profile))


def end(pools: Sequence[CloudPool], *, profile: str | None = None) -> None:
    """End these pools, as `ls` told of them.

    Raises
    ------
    Leaked
        Something could not be ended, though all was tried; the text names it by pool, with what was said.
    """
    _ran(_end_all(pools, profile))


def _ran[T](work: Coroutine[Any, Any, T]) -> T:
    """Run on a loop of its own: the caller's thread may have one that runs, as in a notebook."""
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(asyncio.run, work).result()
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
        {each: aws_found.said(error) for each, error in refused.items()},
    )


async def _looked(api: Api, priced: bool) -> list[CloudPool] | ProvisioningError | Refusal:
    """Return the pools of one region, or why it could not be looked at."""
    try:
        return await _there(api, priced)
    except (ProvisioningError, Refusal) as error:
        return error


async def _there(api: Api, priced: bool) -> list[CloudPool]:
    """Return the pools of one region."""
    async with api.open():
        machines, groups = await side_by_side(aws_found.machines(api), aws_found.groups(api))
        alive = [machine for machine in machines if machine.is_alive]
        costs = await _hourly(api, alive) if priced and alive else {}
        names = sorted({*(each.pool for each in alive), *(each.pool for each in groups)})
        region = await api.region()
    return [_pool(name, region, alive, groups, costs) for name in names]


def _pool(
    name: str, region: str, alive: list[Found], groups: list[FoundGroup], costs: dict[str, float | None]
) -> CloudPool:
    machines = [each for each in alive if each.pool == name]
    mine = [each for each in groups if each.pool == name]
    of_machines, of_groups = [each.tags for each in machines], [each.tags for each in mine]
    stale = aws_stale.is_stale(of_machines, of_groups, dt.datetime.now(dt.UTC))
    by = [*of_machines, *of_groups][0].get(BY, "").rpartition(":")[0]
    shown = tuple(_machine(each, costs.get(each.id)) for each in sorted(machines, key=lambda each: each.node))
    return CloudPool(name, region, shown, tuple(each.id for each in mine), by, stale)


def _machine(found: Found, hourly: float | None) -> CloudMachine:
    lease = until = None
    with contextlib.suppress(KeyError, ValueError):
        lease = float(found.tags[LEASE])
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


async def _hourly(api: Api, machines: list[Found]) -> dict[str, float | None]:
    """Return what the machines cost an hour; nothing is said of what the credentials may not ask."""
    kinds = sorted({machine.kind for machine in machines})
    try:
        prices = await aws_prices.prices(api, kinds, spot=any(machine.spot for machine in machines))
        disks = await _disks(api)
    except (Denied, ProvisioningError, Refusal):
        return {}
    return {machine.id: _price(machine, prices, disks.get(machine.id, 0)) for machine in machines}


def _price(machine: Found, prices: Prices, disk: int) -> float | None:
    base = prices.spot.get((machine.kind, machine.zone)) if machine.spot else prices.on_demand.get(machine.kind)
    return None if base is None else base + (prices.address or 0.0) + (prices.disk or 0.0) * disk


async def _disks(api: Api) -> dict[str, int]:
    """Return the GB of disk of each machine of ours."""
    found: dict[str, int] = {}
    filters = [{"Name": "tag-key", "Values": [aws_found.POOL]}]
    for volume in await api.pages("ec2", "describe_volumes", "Volumes", Filters=filters):
        for attached in volume.get("Attachments", []):
            found[attached["InstanceId"]] = found.get(attached["InstanceId"], 0) + int(volume["Size"])
    return found


async def _down(pool: str | None, region: str | None, profile: str | None) -> tuple[CloudPool, ...]:
    found = await _everywhere(region, profile, prices=False)
    chosen = [each for each in found.pools if each.name == pool or (pool is None and each.stale)]
    if pool is not None and not chosen:
        found.check()
        names = ", ".join(each.name for each in found.pools) or "there is none"
        raise InvalidArgument.of("pool", pool, "there is no such pool", f"give one of those that are there: {names}")
    await _end_all(chosen, profile)
    if pool is None:
        found.check()
    return tuple(chosen)


async def _end_all(pools: Sequence[CloudPool], profile: str | None) -> None:
    """End these pools, each whatever becomes of the others."""
    ended = await asyncio.gather(*(_end(each, profile) for each in pools), return_exceptions=True)
    problems, left = list[str](), list[str]()
    for pool, error in zip(pools, ended, strict=True):
        if isinstance(error, Exception):
            problems.append(f"{pool.name} in {pool.region}: {aws_found.said(error)}")
            whole = [*(machine.id for machine in pool.machines), *pool.groups]
            left += error.errors if isinstance(error, NotEnded) else whole
    if problems:
        raise Leaked(f"these could not be ended: {'; '.join(problems)}", left)


async def _end(pool: CloudPool, profile: str | None) -> None:
    left = await aws_found.cleared(Api(pool.region, profile), pool.name, PATIENCE, aws_found.SETTLE)
    if left:
        raise NotEnded(dict.fromkeys(left, ProvisioningError("it is still going down, or held by what does")))
    try:
        await journal.usual().note("gone", pool=pool.name, by="down")
    except OSError as error:
        log.warning("that %s is gone could not be noted: %s", pool.name, error)
