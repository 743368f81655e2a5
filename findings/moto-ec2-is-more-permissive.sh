#!/usr/bin/env bash
# moto 5.2.5 accepts EC2 calls that Amazon documents as refused, so a test against it passes for a program that would
# launch twice, or fail to terminate, on Amazon.
#
# Guess: moto answers as the EC2 API reference says: RunInstances with the same ClientToken returns the same instance;
# a MinCount above MaxCount is InvalidParameterValue; TerminateInstances of an instance with DisableApiTermination is
# OperationNotPermitted; StartInstances of a terminated one is IncorrectInstanceState; DeleteSecurityGroup of a group
# that an instance uses is DependencyViolation. (It does check subnets, groups, zones, tags per resource and DryRun.)
# Seen: a second instance; MinCount instances; terminated; "pending" again; deleted.
# Environment: Python 3.12 or newer, Linux, no network but the package index. Exits with 1 if any of this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q 'moto[ec2]==5.2.5' boto3==1.40.61
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none AWS_DEFAULT_REGION=us-east-1
cat >"$folder/show.py" <<'PYTHON'
from collections.abc import Callable
from typing import Any

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws


def code(call: Callable[[], Any]) -> str:
    """The code of the error that the call raises, or what it returns."""
    try:
        return str(call())
    except ClientError as error:
        return str(error.response["Error"]["Code"])


@mock_aws
def main() -> None:
    ec2 = boto3.client("ec2")
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]

    def launch(**more: Any) -> list[str]:
        given = {"ImageId": image, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, **more}
        return [each["InstanceId"] for each in ec2.run_instances(**given)["Instances"]]

    group = ec2.create_security_group(GroupName="used", Description="used")["GroupId"]
    protected = launch(DisableApiTermination=True, SecurityGroupIds=[group])
    ended = launch()
    ec2.terminate_instances(InstanceIds=ended)
    seen = {
        "the same ClientToken twice": len({*launch(ClientToken="once"), *launch(ClientToken="once")}),
        "MinCount=3, MaxCount=1": len(launch(MinCount=3)),
        "delete a group in use": code(lambda: ec2.delete_security_group(GroupId=group) and "deleted"),
        "terminate a protected instance": code(
            lambda: ec2.terminate_instances(InstanceIds=protected)["TerminatingInstances"][0]["CurrentState"]["Name"]
        ),
        "start a terminated instance": code(
            lambda: ec2.start_instances(InstanceIds=ended)["StartingInstances"][0]["CurrentState"]["Name"]
        ),
    }
    for what, answer in seen.items():
        print(f"{what}: {answer}")
    assert list(seen.values()) == [2, 3, "deleted", "shutting-down", "pending"], "this has changed"


main()
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
