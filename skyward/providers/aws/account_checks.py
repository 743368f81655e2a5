"""What an AWS account needs before machines can be launched, and how to fix what is missing. Pure: no I/O."""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from skyward.formatting import counted, dollars
from skyward.providers.aws import api_errors, region_names
from skyward.providers.aws.instance_selection import Offer
from skyward.providers.health_checks import MAX_CLOCK_OFFSET_S, Finding, HostRequirements

SIGNED_WITHIN_S = 300.0
"""Seconds by which the time of a signature may be off."""

EXPIRY_WARNING = dt.timedelta(hours=1)
"""Credentials that expire sooner are a warning."""

DRY_RUN_CODE = "DryRunOperation"
"""The error code of a dry run that is allowed."""

ACTIONS_WITHOUT_DRY_RUN = ("ec2:AuthorizeSecurityGroupIngress", "ec2:TerminateInstances", "ec2:DeleteSecurityGroup")
"""Permissions that depend on the tags of a resource, so that a dry run cannot check them."""

PYTHON = "3.12"
"""The Python of the default image."""

POLICY = "allow it in their policy: docs/aws.md has a policy with the least that is needed"

_QUOTAS = {"g": ("L-DB2E81BA", "L-3819A6DF"), "vt": ("L-DB2E81BA", "L-3819A6DF"), "p": ("L-417A185B", "L-7212CCBC")}
_STANDARD_QUOTA_CODES = "L-1216C47A", "L-34B43A08"
_OTHERS = ("dl", "f", "hpc", "inf", "mac", "trn", "u", "x")

_CREDENTIAL_SOURCES = {
    "assume-role": "a role of your profile",
    "assume-role-with-web-identity": "a web identity",
    "container-role": "the role of this container",
    "custom-process": "the credential_process of your profile",
    "env": "the environment",
    "iam-role": "the role of this machine",
    "shared-credentials-file": "~/.aws/credentials",
    "config-file": "~/.aws/config",
    "sso": "IAM Identity Center (SSO)",
}


def no_region(ignored: str | None) -> Finding:
    """Say that no region is set; `ignored` is the value of `AWS_REGION`, which the SDK does not read."""
    fix = "pass --region, set AWS_DEFAULT_REGION, or write it into ~/.aws/config (`aws configure`)"
    if ignored:
        return Finding("region", "FAIL", f"AWS_REGION={ignored} is not read, only AWS_DEFAULT_REGION is", fix)
    return Finding("region", "FAIL", "no region is set", fix)


def region(name: str, known: Collection[str], sdk: str) -> Finding:
    """Judge the name of a region by those that the SDK knows. It may be a newer one only if it has their form."""
    if name in known:
        return Finding("region", "ok", name)
    near = region_names.meant(name, known)
    if not region_names.has_form(name):
        return Finding("region", "FAIL", f"{name} is not a region", near or "pass another --region")
    newer = f"if it is a newer region, update {sdk.split(maxsplit=1)[0]}"
    return Finding("region", "warn", f"{sdk} does not know {name}", f"{near} {newer}".strip())


def not_enabled(region: str, text: str) -> Finding:
    """Say that a region does not know credentials that are good elsewhere."""
    fix = f"enable it (aws account enable-region --region-name {region}), or take another: --region"
    return Finding("region", "FAIL", f"{region} is not enabled for this account ({text})", fix)


def no_credentials(login_session: bool) -> Finding:
    """Say that there are no credentials; those of `aws login` are there, and unknown to the SDK."""
    if login_session:
        text = "the installed AWS library cannot read credentials made by `aws login`"
        return Finding("credentials", "FAIL", text, 'run: eval "$(aws configure export-credentials --format env)"')
    fix = "run `aws configure` with an access key, or `aws sso login`; or set AWS_PROFILE, or pass --profile"
    return Finding("credentials", "FAIL", "there are no AWS credentials", fix)


def credentials(
    source: str, *, temporary: bool, renewed: bool, expire: dt.datetime | None, now: dt.datetime
) -> Finding:
    """Judge where credentials come from, and how long they last."""
    origin = f"from {_CREDENTIAL_SOURCES.get(source, source)}"
    if renewed:
        return Finding("credentials", "ok", f"{origin}, renewed before they expire")
    if not temporary:
        return Finding("credentials", "ok", f"{origin}, which do not expire")
    fix = "use a profile that renews them (a role, SSO): a run outlasts them only with machines that end by themselves"
    if expire is None:
        return Finding("credentials", "warn", f"{origin}, temporary, and it is not known when they expire", fix)
    left = expire - now
    when = f"{origin}, expire at {expire.astimezone():%H:%M} (in {int(left.total_seconds() // 60)} min)"
    return Finding("credentials", "warn", when, fix) if left < EXPIRY_WARNING else Finding("credentials", "ok", when)


def not_accepted(code: str, text: str, ahead: float | None) -> Finding:
    """Judge credentials that Amazon does not accept; a wrong clock invalidates even good ones."""
    problem = f"the credentials are not accepted: {code}: {text}"
    if ahead is not None and abs(ahead) > SIGNED_WITHIN_S:
        return Finding("account", "FAIL", problem, "set the clock of this machine (see below)")
    if "Expired" in code:
        return Finding("account", "FAIL", problem, "renew them: `aws sso login`, or export new ones")
    return Finding("account", "FAIL", problem, "check the access key and its secret: `aws configure`")


def clock(ahead: float) -> Finding:
    """Judge the clock here by one that is so many seconds ahead of it, give or take a second."""
    off = max(abs(ahead) - 1.0, 0.0)
    if off <= MAX_CLOCK_OFFSET_S:
        return Finding("clock", "ok", f"within {max(abs(ahead), 1.0):.0f} s of Amazon's")
    text = f"the clock here is {abs(ahead):.0f} s {'slow' if ahead > 0 else 'fast'}"
    fix = "set it by the network: timedatectl set-ntp true"
    if off > SIGNED_WITHIN_S:
        return Finding("clock", "FAIL", f"{text}: Amazon refuses what is signed more than 5 minutes off", fix)
    return Finding("clock", "warn", text, fix)


def network(subnets: Sequence[Mapping[str, Any]], given: bool) -> Finding:
    """Judge the subnets that machines would be launched in: those that were `given`, or the default ones."""
    if not subnets:
        fix = "make one: aws ec2 create-default-vpc; or name a subnet: sky.AWS(subnet='subnet-...')"
        return Finding("network", "FAIL", "the region has no default network", fix)
    zones = ", ".join(sorted({each["AvailabilityZone"] for each in subnets}))
    if private := [each["SubnetId"] for each in subnets if not each.get("MapPublicIpOnLaunch")]:
        text = f"machines in {', '.join(private)} get no public address"
        fix = f"aws ec2 modify-subnet-attribute --map-public-ip-on-launch --subnet-id {private[0]}"
        return Finding("network", "warn", text, f"if you are not in that network yourself: {fix}")
    return Finding("network", "ok", f"{'subnets' if given else 'default subnets'} in {zones}")


def permissions(missing: Sequence[str], odd: Sequence[str], tried: int) -> list[Finding]:
    """Judge what came of dry runs: actions that are not allowed, and other errors, of so many that were tried."""
    found = [Finding("permissions", "FAIL", f"the credentials do not allow {each}", POLICY) for each in missing]
    found += [Finding("launch", "FAIL", f"a dry run says {each}", "see what it refers to") for each in odd]
    if found:
        return found
    later = f"not known before there are machines: {', '.join(ACTIONS_WITHOUT_DRY_RUN)}"
    return [Finding("permissions", "ok", f"all {tried} actions tried by dry run are allowed ({later})")]


def machine(offer: Offer) -> Finding:
    """Judge what the first machine would be, and cost."""
    what = f"{offer.kind}{' spot' if offer.spot else ''} in {offer.zone}"
    if offer.hourly is None:
        text = f"{what}, whose price is not known: budget= and max_hourly= would refuse it"
        return Finding("machine", "warn", text, "allow pricing:GetProducts in the policy: docs/aws.md")
    extras = [name for name, price in (("address", offer.address), ("disk", offer.disk)) if price is not None]
    with_them = f" with {' and '.join(extras)}" if extras else ""
    return Finding("machine", "ok", f"{what}: {dollars(offer.hourly)} an hour{with_them}")


def quota_code(kind: str, spot: bool) -> str | None:
    """Return the code of the quota that a type of machine counts against; None where it is not known."""
    family = api_errors.family(kind)
    return None if family in _OTHERS else _QUOTAS.get(family, _STANDARD_QUOTA_CODES)[spot]


def quota(limit: float, kind: str, cpus: int, nodes: int, *, spot: bool) -> Finding:
    """Judge a quota of so many virtual CPUs for this type of machine, of which `nodes` are wanted."""
    most = int(limit // cpus)
    text = f"{limit:g} vCPU: at most {most} {kind}{' spot' if spot else ''} at once, with those that run already"
    if most >= nodes:
        return Finding("quota", "ok", text)
    name = api_errors.quota("VcpuLimitExceeded", kind, spot)
    fix = f"ask for more of {name!r} in the console of Service Quotas, or use fewer or smaller machines"
    return Finding(
        "quota", "FAIL", f"{text}, but {counted(nodes, 'machine')} {'is' if nodes == 1 else 'are'} needed", fix
    )


def python(needs: HostRequirements, architecture: str, *, has_pip: bool) -> Finding:
    """Judge whether a node's Python, and packages for it, are available on the default image."""
    system = f"Linux {'aarch64' if architecture == 'arm64' else architecture}"
    if needs.python != PYTHON and not (needs.uv and needs.system == system):
        text = (
            f"the default image has Python {PYTHON}, your program runs on {needs.python}, "
            f"and there is no uv for {system} here"
        )
        fix = f"run your program with Python {PYTHON}, or use an image that has Python {needs.python}: sky.AWS(image=)"
        if needs.system == system:
            fix = f"{needs.installer} uv; or {fix}"
        return Finding("python", "FAIL", text, fix)
    if needs.system != system and not has_pip:
        text = f"the machines are {system}, this one is {needs.system}: they fetch packages with pip, which is not here"
        return Finding("python", "FAIL", text, f"install it in this environment: {needs.installer} pip")
    if needs.system != system:
        return Finding("python", "ok", f"{needs.python}; packages are fetched, as the machines are {system}")
    return Finding("python", "ok", f"{needs.python}; packages are sent from here")
