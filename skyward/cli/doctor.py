"""`skyward doctor`: check whether machines can be nodes and can be reached, and how to fix what is wrong."""

import dataclasses
import platform
import sys
import sysconfig
from collections.abc import Callable, Coroutine, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from skyward import extras
from skyward.cli.options import AsJson, whole
from skyward.cli.settings import spoken_as_options
from skyward.errors import InvalidArgument, MissingExtra
from skyward.providers.health_checks import Finding, HostRequirements
from skyward.view.escape import escape

doctor = App(name="doctor", help="Check whether machines can be used as nodes, and how to fix what is wrong.")

type Findings = Mapping[str, Sequence[Finding]]


@doctor.command
def local(*, json: AsJson = False) -> int:
    """Check this machine."""
    from skyward.providers.local import Local

    return report(examined(lambda needs: Local().examine(needs)), json)


@doctor.command
def ssh(
    *hosts: str,
    user: str | None = None,
    key: Path | None = None,
    config: Path | None = None,
    jump: str | None = None,
    json: AsJson = False,
) -> int:
    """Check machines reached by SSH, all at once.

    Parameters
    ----------
    hosts
        Machines as ssh names them: alice@node-7 gpu-box 10.0.0.5:2222
    user
        User to log in as, unless given in the host name.
    key
        The private key to log in with.
    config
        Configuration file to read instead of ~/.ssh/config.
    jump
        Jump hosts, as in `ssh -J`.
    """
    from skyward.providers.ssh.ssh import SSH

    if not hosts:
        raise InvalidArgument("name at least one machine, for example: skyward doctor ssh alice@node-7")
    with spoken_as_options("user", "key", "config", "jump", positional="hosts"):
        return report(
            examined(lambda needs: SSH(hosts=hosts, user=user, key=key, config=config, jump=jump).examine(needs)), json
        )


@doctor.command
def aws(
    *,
    region: str | None = None,
    profile: str | None = None,
    instance_type: str | None = None,
    spot: Annotated[bool, Parameter(negative="")] = False,
    nodes: Annotated[int, Parameter(converter=whole)] = 1,
    allow: str | None = None,
    json: AsJson = False,
) -> int:
    """Check an AWS account: what a launch needs, and what it would cost.

    Parameters
    ----------
    region
        Region to launch in (default: the configured one).
    profile
        Profile of ~/.aws/config.
    instance_type
        Type of machine (default: t4g.micro).
    spot
        Check spot machines.
    nodes
        Number of machines that the quota must allow.
    allow
        Address from which you reach the machines (default: this machine's).
    """
    from skyward.providers.aws.account_doctor import examine
    from skyward.providers.aws.aws import AWS

    given = {"region": region, "profile": profile, "instance_type": instance_type, "allow": allow}
    wish: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if nodes < 1:
        raise InvalidArgument(f"--nodes {nodes}: must be at least 1")
    with spoken_as_options(*given):
        return report(examined(lambda needs: examine(AWS(**wish, spot=spot), needs, nodes)), json)


def examined(examine: Callable[[HostRequirements], Coroutine[Any, Any, Findings]]) -> Findings:
    """Return what an examination finds; an extra that is missing is found as well."""
    from skyward import interruptible

    try:
        return interruptible.run(examine(needs()))
    except MissingExtra as missing:
        text, _, fix = str(missing).partition(": ")
        return {"here": [Finding("extra", "FAIL", text, fix)]}


def needs() -> HostRequirements:
    """Return what this program needs of a machine."""
    from skyward.environment.bundle import find_uv
    from skyward.remote import bootstrap

    return HostRequirements(
        python="{}.{}".format(*sys.version_info),
        suffix=str(sysconfig.get_config_var("EXT_SUFFIX")),
        looks=bootstrap.LOOKS,
        system=f"{platform.system()} {platform.machine()}",
        uv=find_uv() is not None,
        installer=extras.installer(),
    )


def report(found: Findings, json: bool) -> int:
    """Print what was found, a line for each check, or a list; return 1 if a machine cannot be a node as it is."""
    rows = [(machine, each) for machine, findings in found.items() for each in findings]
    if json:
        listed = [{"machine": machine} | dataclasses.asdict(each) for machine, each in rows]
        print(dumps(listed, indent=2))
    else:
        named = max(len(machine) for machine, _ in rows)
        checked = max(len(each.check) for _, each in rows)
        for machine, each in rows:
            fix = f" -> {each.fix}" if each.fix else ""
            print(escape(f"{machine:<{named}}  {each.verdict:<4}  {each.check:<{checked}}  {each.text}{fix}"))
    return int(any(each.verdict == "FAIL" for _, each in rows))
