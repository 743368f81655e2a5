"""`skyward ls` and `skyward down`: list and terminate Skyward pools on EC2, from any machine."""

import dataclasses
import datetime as dt
import sys
from collections.abc import Sequence
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from skyward.cli.options import AsJson
from skyward.cli.settings import spoken_as_options
from skyward.cli.table import columns
from skyward.errors import InvalidArgument, listed
from skyward.formatting import counted, dollars, span
from skyward.view.escape import escape

if TYPE_CHECKING:
    from skyward.providers.aws.inventory import CloudMachine, CloudPool

type Region = Annotated[
    str | None, Parameter(help="Region to search (default: the configured one, and all used from here).")
]
type Profile = Annotated[str | None, Parameter(help="Profile of ~/.aws/config.")]


def ls(*, region: Region = None, profile: Profile = None, json: AsJson = False) -> int:
    """List Skyward pools on EC2: machines, age, price, lease."""
    from skyward.providers.aws import inventory

    with spoken_as_options("region", "profile"):
        found = inventory.survey(region=region, profile=profile)
    found.warn()
    if json:
        print(dumps([as_dict(pool) for pool in found.pools], indent=2))
    else:
        nothing = f"no Skyward pools found in {listed(found.regions)}"
        print(escape("\n".join(told(found.pools, dt.datetime.now(dt.UTC))) or nothing))
    return 0


def down(
    *pools: Annotated[str, Parameter(help="Names of pools, as `skyward ls` lists them.", negative="")],
    stale: Annotated[bool, Parameter(help="All abandoned pools.", negative="")] = False,
    all: Annotated[bool, Parameter(help="All pools, including those in use.", negative="")] = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], help="Do not ask.", negative="")] = False,
    region: Region = None,
    profile: Profile = None,
    json: AsJson = False,
) -> int:
    """Terminate pools on EC2 and everything that belongs to them."""
    from skyward.providers.aws import inventory

    if bool(pools) + stale + all != 1:
        raise InvalidArgument("name the pools to terminate, or pass --stale or --all")
    asked = sys.stdin.isatty() and not yes
    if all and not (asked or yes):
        raise InvalidArgument("--all also terminates pools in use; there is no terminal to confirm on, so add --yes")
    with spoken_as_options("region", "profile"):
        found = inventory.survey(region=region, profile=profile, prices=asked)
    found.warn()
    chosen = found.chosen(pools, stale=stale, all=all)
    if chosen and asked and not agreed(chosen):
        print("skyward: nothing was terminated", file=sys.stderr)
        return 1
    inventory.end(chosen, profile=profile)
    if json:
        print(dumps([as_dict(pool) for pool in chosen], indent=2))
    else:
        nothing = f"nothing to terminate in {listed(found.regions)}"
        print(escape("\n".join(f"terminated {heading(pool)}" for pool in chosen) or nothing))
    if not pools:
        found.check()
    return 0


def agreed(pools: "Sequence[CloudPool]") -> bool:
    """Show what is about to be terminated, and ask on the terminal; only `y` or `yes` is a yes."""
    print(escape("\n".join(told(pools, dt.datetime.now(dt.UTC)))), file=sys.stderr)
    print(
        f"Terminate {'it' if len(pools) == 1 else f'these {len(pools)} pools'}? [y/N] ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def told(pools: "Sequence[CloudPool]", now: dt.datetime) -> list[str]:
    """Return a line for each pool and, below it, one for each machine and group."""
    lines = iter(columns([row(machine, now) for pool in pools for machine in pool.machines]))
    shown = []
    for pool in pools:
        shown.append(heading(pool))
        shown.extend(f"  {next(lines)}" for _ in pool.machines)
        shown.extend(f"  {group}  security group" for group in pool.groups)
    return shown


def heading(pool: "CloudPool") -> str:
    """Return what a pool is, in one line."""
    facts = [pool.region, f"by {pool.by}" if pool.by else "", "stale" if pool.stale else "in use"]
    facts.append(counted(len(pool.machines), "machine"))
    if pool.machines and pool.hourly is not None and pool.cost is not None:
        facts.append(f"{dollars(pool.hourly)}/h, {dollars(pool.cost)} so far")
    return f"{pool.name}  {', '.join(filter(None, facts))}"


def row(machine: "CloudMachine", now: dt.datetime) -> tuple[str, ...]:
    """Return what a machine is: its cells in the table."""
    ends = [] if machine.lease is None else [f"{span(machine.lease)} after its driver"]
    if machine.until is not None:
        ends.append(f"in {span((machine.until - now).total_seconds())}")
    price = "price unknown"
    if machine.hourly is not None and machine.cost is not None:
        price = f"{dollars(machine.hourly)}/h, {dollars(machine.cost)}"
    return (
        machine.id,
        f"{machine.kind}{' spot' if machine.spot else ''}",
        machine.zone,
        machine.state,
        span((now - machine.launched).total_seconds()),
        price,
        f"shuts down {' or '.join(ends)}" if ends else "",
    )


def as_dict(pool: "CloudPool") -> dict[str, Any]:
    """Return a pool as what JSON knows: times as text, the age in seconds, prices in dollars."""
    machines = [
        dataclasses.asdict(each)
        | {
            "launched": each.launched.isoformat(),
            "until": each.until and each.until.isoformat(),
            "age": each.age.total_seconds(),
            "cost": each.cost,
        }
        for each in pool.machines
    ]
    return dataclasses.asdict(pool) | {"machines": machines, "hourly": pool.hourly, "cost": pool.cost}
