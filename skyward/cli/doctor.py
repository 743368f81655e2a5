"""`skyward doctor`: can these machines be nodes, can this program reach them, and if not, what is to be done?"""

import asyncio
import dataclasses
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from skyward.errors import MissingExtra
from skyward.providers.checkup import Finding, Needs
from skyward.providers.local import Local
from skyward.providers.provider import Examinable
from skyward.providers.ssh import SSH
from skyward.remote import bootstrap
from skyward.view.escape import escape

doctor = App(name="doctor", help="Say whether machines can be nodes, and how to mend what is not right.")

type Found = Mapping[str, Sequence[Finding]]

type AsJson = Annotated[bool, Parameter(help="Print a list of what was found.", negative="")]


@doctor.command
def local(*, json: AsJson = False) -> int:
    """Check this machine."""
    return report(examined(Local), json)


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
        Whom to log in as, where the machine's name does not say.
    key
        The private key to log in with.
    config
        A configuration to read instead of ~/.ssh/config.
    jump
        Machines to go through, as `ssh -J` has it.
    """
    return report(examined(lambda: SSH(hosts=hosts, user=user, key=key, config=config, jump=jump)), json)


def examined(provider: Callable[[], Examinable]) -> Found:
    """Return what a provider finds; an extra that is missing is found as well."""
    try:
        return asyncio.run(provider().examine(needs()))
    except MissingExtra as missing:
        text, _, fix = str(missing).partition(": ")
        return {"here": [Finding("extra", "FAIL", text, fix)]}


def needs() -> Needs:
    """Return what this program needs of a machine."""
    return Needs(
        python="{}.{}".format(*sys.version_info),
        suffix=str(sysconfig.get_config_var("EXT_SUFFIX")),
        looks=bootstrap.LOOKS,
        system=f"{platform.system()} {platform.machine()}",
        uv=os.access(shutil.which("uv") or "", os.R_OK),
    )


def report(found: Found, json: bool) -> int:
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
