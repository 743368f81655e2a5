"""Check an AWS account before anything is launched. Nothing is created."""

import asyncio
import contextlib
import datetime as dt
import importlib.util
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from skyward.errors import Denied, InvalidArgument, NoCapacity, ProvisioningError
from skyward.providers.aws import account_checks, api_errors, security_group
from skyward.providers.aws.api import Api, Refusal, Unanswered, regions
from skyward.providers.aws.instance_selection import Offer
from skyward.providers.aws.launch_config import LaunchConfig
from skyward.providers.aws.launch_plan import LaunchPlan
from skyward.providers.batching import side_by_side
from skyward.providers.health_checks import Finding, HostRequirements

CALL_TIMEOUT_S = 10.0
"""Seconds for which a call with a temporary error is retried."""

TIMEOUT_S = 60.0
"""Seconds that all checks may take."""

TAGS = [{"Key": "skyward:pool", "Value": "doctor"}]

LOOKUP_ACTIONS = (
    "describe_images",
    "describe_instances",
    "describe_instance_type_offerings",
    "describe_instance_types",
    "describe_security_groups",
    "describe_subnets",
    "describe_volumes",
)
"""The lookups of a launch and its end."""


async def examine(config: LaunchConfig, needs: HostRequirements, nodes: int = 1) -> Mapping[str, Sequence[Finding]]:
    """Return the findings; what depends on a failed check is not checked. The quota must allow `nodes` machines."""
    found: list[Finding] = []
    api = Api(config.region, config.profile, CALL_TIMEOUT_S)
    try:
        async with asyncio.timeout(TIMEOUT_S), api.open():
            if await _account(api, found):
                await _region(api, config, needs, nodes, found)
    except TimeoutError:
        fix = "check whether a proxy or a firewall is in the way"
        found.append(Finding("network", "FAIL", f"Amazon did not answer everything within {TIMEOUT_S:g} s", fix))
    except ProvisioningError as error:
        found.append(_unreachable(error))
    return {"here": [Finding("extra", "ok", f"aioboto3 {version('aioboto3')}")], "aws": found}


async def _account(api: Api, found: list[Finding]) -> bool:
    """Check region, credentials and clock; return whether to go on."""
    try:
        session = await api.session()
    except InvalidArgument as error:
        found.append(Finding("profile", "FAIL", str(error).split(": ", 1)[-1], "pass another --profile"))
        return False
    if region := session.region_name:
        sdk = f"botocore {version('botocore')}"
        found.append(account_checks.region(region, await asyncio.to_thread(regions), sdk))
    else:
        found.append(account_checks.no_region(os.environ.get("AWS_REGION")))
    try:
        known = await api.credentials()
    except Denied as error:
        found.append(Finding("credentials", "FAIL", str(error), "run `aws sso login`, or see `aws configure list`"))
        return False
    if known is None:
        found.append(account_checks.no_credentials(await api.has_login_session()))
        return False
    now = dt.datetime.now(dt.UTC)
    found.append(
        account_checks.credentials(
            known.source, temporary=known.temporary, renewed=known.renewed, expire=known.expire, now=now
        )
    )
    try:
        who = await api.call("sts", "get_caller_identity")
        found.append(Finding("account", "ok", str(who["Arn"])))
    except Refusal as refusal:
        found.append(account_checks.not_accepted(refusal.code, refusal.text, api.ahead))
    if api.ahead is not None:
        found.append(account_checks.clock(api.ahead))
    return all(each.verdict != "FAIL" for each in found)


async def _region(api: Api, config: LaunchConfig, needs: HostRequirements, nodes: int, found: list[Finding]) -> None:
    """Check what a launch in the region needs."""
    try:
        network = await _network(api, config)
    except Refusal as refusal:
        if refusal.code not in api_errors.AUTHENTICATION_CODES:
            network = [_refused("network", refusal)]
        else:  # the account is known: it is the region that is not
            found.append(account_checks.not_enabled(await api.region(), refusal.code))
            return
    plan = LaunchPlan(config, api)
    offers, launching = await _offers(plan)
    more = await side_by_side(_permissions(api, plan, config, offers), _quota(api, offers, nodes), _address(config))
    found += [*network, *launching, *(each for some in more for each in some)]
    if config.image is None:
        architecture = offers[0].architecture if offers else "arm64"
        has_pip = importlib.util.find_spec("pip") is not None
        found.append(account_checks.python(needs, architecture, has_pip=has_pip))


async def _network(api: Api, config: LaunchConfig) -> list[Finding]:
    if config.subnet:
        told = await api.call("ec2", "describe_subnets", SubnetIds=list(config.subnet))
    else:
        filters = [{"Name": "default-for-az", "Values": ["true"]}]
        told = await api.call("ec2", "describe_subnets", Filters=filters)
    return [account_checks.network(told["Subnets"], bool(config.subnet))]


async def _offers(plan: LaunchPlan) -> tuple[Sequence[Offer], list[Finding]]:
    """Return the offers that a launch would try, and the finding about the first; without prices if none are known."""
    try:
        offers: Sequence[Offer] = await plan.launchable()
        with contextlib.suppress(Denied, Refusal, Unanswered):
            offers = await plan.with_prices(offers)
        return offers, [account_checks.machine(offers[0])]
    except Refusal as refusal:
        return [], [_refused("machine", refusal)]
    except NoCapacity as error:
        return [], [Finding("machine", "FAIL", str(error), "take another --instance-type or --region")]
    except (InvalidArgument, ProvisioningError) as error:
        return [], [Finding("machine", "FAIL", str(error), "see what it refers to")]


async def _permissions(api: Api, plan: LaunchPlan, config: LaunchConfig, offers: Sequence[Offer]) -> list[Finding]:
    tagged = [{"ResourceType": kind, "Tags": TAGS} for kind in ("instance", "volume", "security-group")]
    asked: dict[str, dict[str, Any]] = {name: {} for name in LOOKUP_ACTIONS}
    if config.spot:
        asked["describe_spot_price_history"] = {}
    if not config.security_groups:
        asked["create_security_group"] = {
            "GroupName": "skyward-doctor",
            "Description": "a dry run",
            "TagSpecifications": tagged[2:],
        }
    missing, odd = list[str](), list[str]()
    if offers:
        try:
            image = await plan.image_id(offers[0].architecture)
        except Refusal as refusal:
            (missing if refusal.code in api_errors.PERMISSION_CODES else odd).append(_named(refusal))
        except InvalidArgument as error:
            odd.append(str(error))
        else:
            asked["run_instances"] = _launch(offers[0], image, config) | {"TagSpecifications": tagged[:2]}

    async def dry(action: str, more: dict[str, Any]) -> None:
        try:
            await api.call("ec2", action, DryRun=True, **more)
        except Refusal as refusal:
            if refusal.code in api_errors.PERMISSION_CODES:
                missing.append(_named(refusal))
            elif refusal.code != account_checks.DRY_RUN_CODE:
                odd.append(_named(refusal))

    await side_by_side(*(dry(action, more) for action, more in asked.items()))
    return account_checks.permissions(sorted(set(missing)), sorted(odd), len(asked) + 1)


def _launch(offer: Offer, image: str, config: LaunchConfig) -> dict[str, Any]:
    """Return the parameters for a dry run of a launch."""
    asked: dict[str, Any] = {"ImageId": image, "InstanceType": offer.kind, "MinCount": 1, "MaxCount": 1}
    asked |= {"SubnetId": config.subnet[0]} if config.subnet else {"Placement": {"AvailabilityZone": offer.zone}}
    if offer.spot:
        asked["InstanceMarketOptions"] = {"MarketType": "spot"}
    return asked


async def _quota(api: Api, offers: Sequence[Offer], nodes: int) -> list[Finding]:
    if not offers:
        return []
    first = offers[0]
    code = account_checks.quota_code(first.kind, first.spot)
    fix = "see the console of Service Quotas; the permission servicequotas:GetServiceQuota lets doctor look"
    if code is None:
        return [Finding("quota", "warn", f"that of {first.kind} is not looked up here", fix)]
    try:
        told = await api.call("service-quotas", "get_service_quota", ServiceCode="ec2", QuotaCode=code)
        kinds = await api.call("ec2", "describe_instance_types", InstanceTypes=[first.kind])
    except (Refusal, ProvisioningError) as error:
        return [Finding("quota", "warn", f"not known: {error}", fix)]
    limit, cpus = float(told["Quota"]["Value"]), int(kinds["InstanceTypes"][0]["VCpuInfo"]["DefaultVCpus"])
    return [account_checks.quota(limit, first.kind, cpus, nodes, spot=first.spot)]


async def _address(config: LaunchConfig) -> list[Finding]:
    if config.security_groups:
        return []
    try:
        network = await asyncio.to_thread(security_group.allowed_network, config.allow)
        return [Finding("address", "ok", f"{network} is let in")]
    except (InvalidArgument, ProvisioningError) as error:
        return [Finding("address", "FAIL", str(error), "pass the address from which you reach machines: --allow")]


def _named(refusal: Refusal) -> str:
    if refusal.code in api_errors.PERMISSION_CODES:
        return api_errors.missing_action(refusal.action, refusal.text)
    return f"{refusal.action}: {refusal.code}: {refusal.text}"


def _refused(check: str, refusal: Refusal) -> Finding:
    text, _, fix = str(refusal.explained()).rpartition("; ")
    return Finding(check, "FAIL", text, fix) if text else Finding(check, "FAIL", fix, "see what it refers to")


def _unreachable(error: ProvisioningError) -> Finding:
    return Finding("network", "FAIL", str(error), "check the network, a proxy (HTTPS_PROXY), and the region's name")
