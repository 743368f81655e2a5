"""What an error code of Amazon means."""

import pytest

import skyward as sky
from skyward.providers.aws.api_errors import concerns_every_call, explained, is_temporary, missing_action, quota

RUN = "ec2:RunInstances"


@pytest.mark.parametrize(
    ("code", "status", "busy"),
    [
        ("RequestLimitExceeded", 503, True),
        ("Throttling", 400, True),
        ("Whatever", 500, True),
        ("InsufficientInstanceCapacity", 500, False),
        ("UnauthorizedOperation", 403, False),
    ],
)
def test_what_may_pass_is_tried_again(code: str, status: int, busy: bool) -> None:
    assert is_temporary(code, status) is busy


@pytest.mark.parametrize(
    ("code", "status", "all_of_them"),
    [("AuthFailure", 401, True), ("RequestLimitExceeded", 503, True), ("UnauthorizedOperation", 403, False)],
)
def test_what_another_call_would_be_told_as_well(code: str, status: int, all_of_them: bool) -> None:
    assert concerns_every_call(code, status) is all_of_them


@pytest.mark.parametrize(
    ("code", "kind", "spot", "name"),
    [
        ("VcpuLimitExceeded", "t4g.micro", False, "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"),
        ("VcpuLimitExceeded", "g5.xlarge", False, "Running On-Demand G and VT instances"),
        ("VcpuLimitExceeded", "p4d.24xlarge", True, "All P Spot Instance Requests"),
        (
            "MaxSpotInstanceCountExceeded",
            "c7g.large",
            False,
            "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
        ),
        ("SecurityGroupLimitExceeded", "", False, "VPC security groups per Region"),
        ("InternalError", "t4g.micro", False, None),
    ],
)
def test_a_quota_is_called_what_the_console_calls_it(code: str, kind: str, spot: bool, name: str | None) -> None:
    assert quota(code, kind, spot) == name


def test_the_missing_permission_is_the_one_that_the_answer_names() -> None:
    text = "You are not authorized to perform: iam:PassRole on resource: arn:x"

    assert missing_action(RUN, text) == "iam:PassRole"
    assert missing_action(RUN, "You are not authorized to perform this operation.") == RUN


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        ("InsufficientInstanceCapacity", sky.NoCapacity, "InsufficientInstanceCapacity: why"),
        ("VcpuLimitExceeded", sky.QuotaExceeded, "the quota 'Running On-Demand G and VT instances' is exhausted"),
        ("UnauthorizedOperation", sky.Denied, "your credentials do not allow ec2:RunInstances"),
        ("AuthFailure", sky.Denied, "the credentials are not accepted"),
        ("InvalidAMIID.NotFound", sky.InvalidArgument, "give an image of this region"),
        ("InvalidInstanceType.NotFound", sky.InvalidArgument, "instance_type='g5.xlarge': why; give a type"),
        ("VPCIdNotSpecified", sky.InvalidArgument, "give subnet="),
        ("InvalidSubnetID.NotFound", sky.InvalidArgument, "fix the argument"),
        ("SomethingNew", sky.ProvisioningError, "ec2:RunInstances: SomethingNew: why"),
    ],
)
def test_an_error_says_who_can_do_what_about_it(code: str, kind: type[Exception], told: str) -> None:
    error = explained(RUN, code, "why", kind="g5.xlarge")

    assert type(error) is kind
    assert told in str(error)


def test_what_only_amazon_can_decode_is_left_out() -> None:
    text = "You are not authorized to perform this operation. Encoded authorization failure message: aBc-123_x"

    assert "aBc" not in str(explained(RUN, "UnauthorizedOperation", text))
