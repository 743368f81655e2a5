"""`skyward doctor aws`, told of an account: what is right and what is wrong with it. Nothing is launched."""

import datetime as dt
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.cloud import REGION, Cloud
from tests.lab.endpoint import DROP
from tests.lab.lab import NEAR

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]

type Found = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Told:
    """What the command has said, by check."""

    code: int
    found: Found

    def wrong(self) -> dict[str, str]:
        return {check: each["verdict"] for check, each in self.found.items() if each["verdict"] != "ok"}


def doctor(*words: str, allow: str = NEAR, **environment: str) -> Told:
    command = [sys.executable, "-m", "skyward", "doctor", "aws", "--allow", allow, *words, "--json"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "HOME": "/nonexistent"} | environment
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert ran.stderr == ""
    return Told(ran.returncode, {each["check"]: each for each in json.loads(ran.stdout)})


def test_an_account_that_is_well_is_said_to_be_and_nothing_is_left(cloud: Cloud) -> None:
    cloud.market.prices["t4g.micro"] = 0.0084
    told = doctor("--nodes", "16")

    assert told.wrong() == {}
    assert told.code == 0
    checks = ["extra", "region", "credentials", "account", "clock", "network", "machine", "permissions", "quota"]
    assert list(told.found) == [*checks, "address", "python"]
    assert told.found["machine"]["text"] == f"t4g.micro in {REGION}a: $0.015 an hour with address and disk"
    assert told.found["quota"]["text"] == "32 vCPU: at most 16 t4g.micro at once, with those that run already"
    assert told.found["address"]["text"] == f"{NEAR}/32 is let in"
    assert cloud.left() == []


def test_a_permission_that_is_missing_is_named_by_a_dry_run(cloud: Cloud) -> None:
    message = "You are not authorized to perform: ec2:CreateTags on resource: arn:aws:ec2:us-east-1:1:instance/*"
    cloud.fail("RunInstances", "UnauthorizedOperation", times=9, message=message)
    cloud.fail("DescribeVolumes", "UnauthorizedOperation", times=9)
    command = [sys.executable, "-m", "skyward", "doctor", "aws", "--allow", NEAR]
    ran = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100, check=False
    )

    assert ran.returncode == 1
    lines = [line for line in ran.stdout.splitlines() if "FAIL" in line]
    assert [line.split()[:3] for line in lines] == [["aws", "FAIL", "permissions"]] * 2
    assert "the credentials do not allow ec2:CreateTags -> allow it in their policy" in lines[0]
    assert "the credentials do not allow ec2:DescribeVolumes -> " in lines[1]
    assert {call.params.get("DryRun") for call in cloud.calls if call.action == "RunInstances"} == {"true"}


def test_a_launch_that_would_be_refused_for_another_reason_says_it(cloud: Cloud) -> None:
    cloud.fail("RunInstances", "PendingVerification", times=9, message="Your account is being verified")
    told = doctor()

    assert (told.code, told.wrong()) == (1, {"launch": "FAIL"})
    assert "PendingVerification: Your account is being verified" in told.found["launch"]["text"]


def test_prices_and_quotas_that_may_not_be_asked_for_are_warnings(cloud: Cloud) -> None:
    cloud.fail("GetProducts", "AccessDeniedException", times=99)
    cloud.fail("GetServiceQuota", "AccessDeniedException", times=9)
    told = doctor()

    assert (told.code, told.wrong()) == (0, {"machine": "warn", "quota": "warn"})
    assert "allow pricing:GetProducts" in told.found["machine"]["fix"]
    assert "servicequotas:GetServiceQuota" in told.found["quota"]["fix"]


def test_a_quota_that_is_too_small_is_named_with_what_it_allows(cloud: Cloud) -> None:
    cloud.quota = 5
    assert doctor("--nodes", "2").wrong() == {}
    told = doctor("--nodes", "3")

    assert (told.code, told.wrong()) == (1, {"quota": "FAIL"})
    assert told.found["quota"]["text"].startswith("5 vCPU: at most 2 t4g.micro at once")
    assert "'Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances'" in told.found["quota"]["fix"]
    cloud.quota = 1
    assert "All Standard" in doctor("--spot").found["quota"]["fix"]


def test_a_region_without_a_default_network_is_named(cloud: Cloud) -> None:
    for subnet in [each for zone in cloud.model.subnets.values() for each in zone.values()]:
        cloud.model.delete_subnet(subnet.id)
    told = doctor()

    assert told.code == 1
    assert told.wrong()["network"] == "FAIL"
    assert "aws ec2 create-default-vpc" in told.found["network"]["fix"]


def test_subnets_whose_machines_get_no_public_address_are_a_warning(cloud: Cloud) -> None:
    for subnet in [each for zone in cloud.model.subnets.values() for each in zone.values()]:
        subnet.map_public_ip_on_launch = "false"
    told = doctor()

    assert (told.code, told.wrong()) == (0, {"network": "warn"})
    assert "--map-public-ip-on-launch --subnet-id subnet-" in told.found["network"]["fix"]


def test_credentials_that_are_not_accepted_end_the_examination(cloud: Cloud) -> None:
    cloud.fail("GetCallerIdentity", "ExpiredToken", message="The security token included in the request is expired")
    told = doctor()

    assert (told.code, told.wrong()) == (1, {"account": "FAIL"})
    assert "ExpiredToken" in told.found["account"]["text"]
    assert told.found["account"]["fix"].startswith("renew them: `aws sso login`")
    assert list(told.found) == ["extra", "region", "credentials", "account", "clock"]


@pytest.mark.parametrize(
    ("ahead", "code", "verdict", "text"),
    [
        (3600.0, 1, "FAIL", r"(35\d\d|3600) s slow: Amazon refuses"),
        (-3600.0, 1, "FAIL", r"36\d\d s fast: Amazon refuses"),
        (120.0, 0, "warn", r"1[12]\d s slow"),
    ],
)
def test_a_clock_that_is_wrong_is_told_by_that_of_amazon(
    cloud: Cloud, ahead: float, code: int, verdict: str, text: str
) -> None:
    cloud.endpoint.ahead = ahead
    told = doctor()

    assert (told.code, told.wrong()) == (code, {"clock": verdict})
    assert re.search(text, told.found["clock"]["text"])
    assert "timedatectl" in told.found["clock"]["fix"]


def test_a_wrong_clock_is_the_reason_why_signatures_are_refused(cloud: Cloud) -> None:
    cloud.endpoint.ahead = 3600.0
    cloud.fail("GetCallerIdentity", "SignatureDoesNotMatch", message="Signature expired")
    told = doctor()

    assert told.wrong() == {"account": "FAIL", "clock": "FAIL"}
    assert told.found["account"]["fix"].startswith("set the clock of this machine")


def test_a_region_that_is_not_enabled_is_told_from_bad_credentials(cloud: Cloud) -> None:
    cloud.fail("*", "AuthFailure", times=9, match=lambda call: call.action != "GetCallerIdentity")
    told = doctor("--region", "eu-south-2")

    assert told.code == 1
    assert list(told.found) == ["extra", "region", "credentials", "account", "clock"]
    assert "eu-south-2 is not enabled for this account (AuthFailure)" in told.found["region"]["text"]


@pytest.mark.parametrize(("minutes", "verdict"), [(30, "warn"), (600, "ok")])
def test_how_long_credentials_last_is_told(cloud: Cloud, minutes: int, verdict: str) -> None:
    expire = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes, seconds=50)
    told = doctor(AWS_SESSION_TOKEN="token", AWS_CREDENTIAL_EXPIRATION=expire.isoformat())

    assert told.found["credentials"]["verdict"] == verdict
    assert re.search(rf"expire at \d\d:\d\d \(in ({minutes}|{minutes - 1}) min\)", told.found["credentials"]["text"])


def test_credentials_that_end_at_a_time_that_nobody_knows_are_a_warning(cloud: Cloud) -> None:
    told = doctor(AWS_SESSION_TOKEN="token")

    assert (told.code, told.wrong()) == (0, {"credentials": "warn"})
    assert "it is not known when they expire" in told.found["credentials"]["text"]


def test_credentials_that_have_expired_are_not_even_tried(cloud: Cloud) -> None:
    told = doctor(AWS_SESSION_TOKEN="token", AWS_CREDENTIAL_EXPIRATION="2026-01-01T00:00:00Z")

    assert (told.code, told.wrong()) == (1, {"credentials": "FAIL"})
    assert "the AWS credentials have expired" in told.found["credentials"]["text"]
    assert not cloud.calls


def test_a_type_that_does_not_exist_is_named(cloud: Cloud) -> None:
    told = doctor("--instance-type", "t9g.micro")

    assert (told.code, told.wrong()["machine"]) == (1, "FAIL")
    assert "t9g.micro" in told.found["machine"]["text"]


def test_an_address_that_cannot_be_found_out_is_named(cloud: Cloud) -> None:
    told = doctor(allow="http://127.0.0.1:1/")

    assert (told.code, told.wrong()) == (1, {"address": "FAIL"})
    assert told.found["address"]["fix"].endswith("--allow")


def test_what_does_not_answer_is_named(cloud: Cloud) -> None:
    cloud.fail("GetCallerIdentity", DROP, times=999)
    told = doctor()

    assert (told.code, told.wrong()) == (1, {"network": "FAIL"})
    assert "sts:GetCallerIdentity: Amazon does not answer" in told.found["network"]["text"]


def test_without_credentials_it_says_how_to_give_some(cloud: Cloud) -> None:
    told = doctor(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")

    assert (told.code, told.wrong()) == (1, {"credentials": "FAIL"})
    assert told.found["credentials"]["fix"].startswith("run `aws configure`")
    assert not cloud.calls
