"""What to think of an AWS account by what its services say."""

import datetime as dt
from dataclasses import replace

import pytest

from skyward.providers.aws import account_checks
from skyward.providers.aws.instance_selection import Offer
from skyward.providers.health_checks import Finding, HostRequirements

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
NEEDS = HostRequirements("3.12", ".so", "", "Linux x86_64", uv=False, installer="python -m pip install")
OFFER = Offer("t4g.micro", "eu-central-1a", False, "arm64", 0.01, 0.005, 0.001)


def brief(found: Finding) -> tuple[str, str]:
    assert bool(found.fix) == (found.verdict != "ok")
    return found.verdict, found.text


def test_a_region_that_only_other_tools_read_is_named() -> None:
    assert brief(account_checks.no_region(None)) == ("FAIL", "no region is set")
    text = "AWS_REGION=eu-west-1 is not read, only AWS_DEFAULT_REGION is"
    assert brief(account_checks.no_region("eu-west-1")) == ("FAIL", text)
    assert "--region-name eu-south-2" in account_checks.not_enabled("eu-south-2", "OptInRequired").fix


def test_a_region_that_is_not_known_is_said_to_be_with_those_that_may_be_meant() -> None:
    known = ("eu-central-1", "us-east-1")

    assert brief(account_checks.region("us-east-1", known, "botocore 1.40")) == ("ok", "us-east-1")
    wrong = account_checks.region("us-esat-1", known, "botocore 1.40")
    assert (*brief(wrong), wrong.fix) == ("FAIL", "us-esat-1 is not a region", "did you mean 'us-east-1'?")
    assert account_checks.region("frankfurt", known, "botocore 1.40").fix == "pass another --region"
    new = account_checks.region("us-east-9", known, "botocore 1.40")
    assert brief(new) == ("warn", "botocore 1.40 does not know us-east-9")
    assert new.fix == "did you mean 'us-east-1'? if it is a newer region, update botocore"


def test_without_credentials_it_depends_on_who_made_some() -> None:
    assert "run `aws configure`" in account_checks.no_credentials(False).fix
    assert "aws configure export-credentials" in account_checks.no_credentials(True).fix


@pytest.mark.parametrize(
    ("source", "temporary", "renewed", "minutes", "verdict", "text"),
    [
        ("shared-credentials-file", False, False, None, "ok", "from ~/.aws/credentials, which do not expire"),
        ("sso", True, True, 5, "ok", "from IAM Identity Center (SSO), renewed before they expire"),
        ("env", True, False, None, "warn", "from the environment, temporary, and it is not known when they expire"),
        ("env", True, False, 59, "warn", "from the environment, expire at "),
        ("env", True, False, 61, "ok", "from the environment, expire at "),
        ("something-new", False, False, None, "ok", "from something-new, which do not expire"),
    ],
)
def test_credentials_are_judged_by_how_long_they_last(
    source: str, temporary: bool, renewed: bool, minutes: int | None, verdict: str, text: str
) -> None:
    expire = None if minutes is None else NOW + dt.timedelta(minutes=minutes)
    found = account_checks.credentials(source, temporary=temporary, renewed=renewed, expire=expire, now=NOW)

    assert brief(found)[0] == verdict
    assert found.text.startswith(text)
    assert (f"(in {minutes} min)" in found.text) == (not renewed and minutes is not None)


@pytest.mark.parametrize(
    ("code", "ahead", "fix"),
    [
        ("ExpiredToken", None, "renew them"),
        ("ExpiredToken", -400.0, "set the clock"),
        ("SignatureDoesNotMatch", 400.0, "set the clock"),
        ("SignatureDoesNotMatch", 2.0, "check the access key"),
        ("InvalidClientTokenId", None, "check the access key"),
    ],
)
def test_credentials_that_are_not_accepted_are_wrong_old_or_signed_at_a_wrong_time(
    code: str, ahead: float | None, fix: str
) -> None:
    found = account_checks.not_accepted(code, "no", ahead)
    assert brief(found) == ("FAIL", f"the credentials are not accepted: {code}: no")
    assert found.fix.startswith(fix)


@pytest.mark.parametrize(
    ("ahead", "verdict", "text"),
    [
        (-0.4, "ok", "within 1 s of Amazon's"),
        (30.9, "ok", "within 31 s of Amazon's"),
        (40.0, "warn", "the clock here is 40 s slow"),
        (-40.0, "warn", "the clock here is 40 s fast"),
        (302.0, "FAIL", "the clock here is 302 s slow: Amazon refuses what is signed more than 5 minutes off"),
    ],
)
def test_a_clock_may_be_wrong_by_less_than_signatures_may(ahead: float, verdict: str, text: str) -> None:
    assert brief(account_checks.clock(ahead)) == (verdict, text)


def test_a_network_has_subnets_with_public_addresses() -> None:
    public = {"AvailabilityZone": "b", "SubnetId": "subnet-1", "MapPublicIpOnLaunch": True}
    private = {"AvailabilityZone": "a", "SubnetId": "subnet-2", "MapPublicIpOnLaunch": False}

    assert brief(account_checks.network([public, {**public, "AvailabilityZone": "a"}], given=False)) == (
        "ok",
        "default subnets in a, b",
    )
    assert brief(account_checks.network([public], given=True)) == ("ok", "subnets in b")
    assert brief(account_checks.network([], given=False))[0] == "FAIL"
    found = account_checks.network([public, private], given=False)
    assert brief(found) == ("warn", "machines in subnet-2 get no public address")
    assert found.fix.endswith("--map-public-ip-on-launch --subnet-id subnet-2")


def test_each_permission_that_is_missing_is_a_line() -> None:
    (well,) = account_checks.permissions([], [], 9)
    assert brief(well)[1].startswith(
        "all 9 actions tried by dry run are allowed (not known before there are machines: "
    )
    found = account_checks.permissions(["ec2:A", "ec2:B"], ["ec2:RunInstances: Blocked: no"], 9)
    assert [brief(each) for each in found] == [
        ("FAIL", "the credentials do not allow ec2:A"),
        ("FAIL", "the credentials do not allow ec2:B"),
        ("FAIL", "a dry run says ec2:RunInstances: Blocked: no"),
    ]


def test_a_machine_is_said_with_its_price_and_what_is_in_it() -> None:
    text = "t4g.micro in eu-central-1a: $0.016 an hour with address and disk"
    assert brief(account_checks.machine(OFFER)) == ("ok", text)
    bare = replace(OFFER, address=None, disk=None, spot=True)
    assert brief(account_checks.machine(bare)) == ("ok", "t4g.micro spot in eu-central-1a: $0.01 an hour")
    assert brief(account_checks.machine(replace(OFFER, machine=None)))[0] == "warn"


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        ("t4g.micro", ("L-1216C47A", "L-34B43A08")),
        ("m7i-flex.large", ("L-1216C47A", "L-34B43A08")),
        ("g5.xlarge", ("L-DB2E81BA", "L-3819A6DF")),
        ("p5.48xlarge", ("L-417A185B", "L-7212CCBC")),
        ("trn1.2xlarge", (None, None)),
    ],
)
def test_a_type_counts_against_the_quota_of_its_family(kind: str, codes: tuple[str | None, str | None]) -> None:
    assert (account_checks.quota_code(kind, False), account_checks.quota_code(kind, True)) == codes


def test_a_quota_is_told_in_machines() -> None:
    text = "5 vCPU: at most 2 t4g.micro at once, with those that run already"
    assert brief(account_checks.quota(5.0, "t4g.micro", 2, 2, spot=False)) == ("ok", text)
    found = account_checks.quota(5.0, "t4g.micro", 2, 3, spot=True)
    assert brief(found) == ("FAIL", text.replace("micro", "micro spot") + ", but 3 machines are needed")
    assert "'All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests'" in found.fix
    found = account_checks.quota(1, "t4g.micro", 2, 1, spot=False)
    assert found.text == "1 vCPU: at most 0 t4g.micro at once, with those that run already, but 1 machine is needed"


@pytest.mark.parametrize(
    ("needs", "architecture", "has_pip", "verdict", "text"),
    [
        (NEEDS, "x86_64", False, "ok", "3.12; packages are sent from here"),
        (NEEDS, "arm64", True, "ok", "3.12; packages are fetched, as the machines are Linux aarch64"),
        (
            NEEDS,
            "arm64",
            False,
            "FAIL",
            "the machines are Linux aarch64, this one is Linux x86_64: they fetch packages",
        ),
        (replace(NEEDS, python="3.13", uv=True), "x86_64", False, "ok", "3.13; packages are sent from here"),
        (
            replace(NEEDS, python="3.13"),
            "x86_64",
            True,
            "FAIL",
            "the default image has Python 3.12, your program runs on",
        ),
        (
            replace(NEEDS, python="3.13", uv=True),
            "arm64",
            True,
            "FAIL",
            "the default image has Python 3.12, your program",
        ),
    ],
)
def test_a_python_is_that_of_the_image_or_installed_by_uv(
    needs: HostRequirements, architecture: str, has_pip: bool, verdict: str, text: str
) -> None:
    found = account_checks.python(needs, architecture, has_pip=has_pip)
    assert brief(found)[0] == verdict
    assert found.text.startswith(text)
    assert ("python -m pip install uv; " in found.fix) == (needs.python == "3.13" and not needs.uv)
