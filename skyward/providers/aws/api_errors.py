"""Turn an error code of AWS into an error that says what to do. Pure: no I/O, no clock, no luck."""

import re

from skyward.errors import Denied, InvalidArgument, NoCapacity, ProvisioningError, QuotaExceeded

CAPACITY_CODES = {
    "InsufficientAddressCapacity",
    "InsufficientCapacity",
    "InsufficientFreeAddressesInSubnet",
    "InsufficientHostCapacity",
    "InsufficientInstanceCapacity",
    "InsufficientReservedInstanceCapacity",
    "SpotMaxPriceTooLow",
    "Unsupported",  # the zone does not have the type
}
"""There is no capacity; another zone or type may have some."""

TEMPORARY_CODES = {
    "EC2ThrottledException",
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "Unavailable",
}
"""The same call may succeed in a moment."""

AUTHENTICATION_CODES = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
"""The credentials are not accepted."""

PERMISSION_CODES = {"AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation", "UnauthorizedOperation"}
"""The credentials are accepted, but do not allow the call."""

TOKEN_SPENT = "IdempotentInstanceTerminated"
"""The machines of an earlier launch with this client token have been terminated: it needs another token."""

_STANDARD_FAMILIES = "Standard (A, C, D, H, I, M, R, T, Z)"
_FAMILIES = {"g": "G and VT", "vt": "G and VT", "inf": "Inf", "trn": "Trn", "p": "P", "x": "X", "f": "F", "dl": "DL"}
_QUOTA_NAMES = {
    "AddressLimitExceeded": "EC2-VPC Elastic IPs",
    "RulesPerSecurityGroupLimitExceeded": "Inbound or outbound rules per security group",
    "SecurityGroupLimitExceeded": "VPC security groups per Region",
    "SecurityGroupsPerInstanceLimitExceeded": "Security groups per network interface",
    "VolumeLimitExceeded": "Storage for General Purpose SSD (gp3) volumes, in TiB",
}
_OF_SIZE = {"InstanceLimitExceeded", "MaxSpotInstanceCountExceeded", "SpotLimitExceeded", "VcpuLimitExceeded"}


def is_temporary(code: str, status: int) -> bool:
    """Whether the same call may succeed in a moment; a lack of capacity has a status of 500, too."""
    return code in TEMPORARY_CODES or (status >= 500 and code not in CAPACITY_CODES)


def concerns_every_call(code: str, status: int) -> bool:
    """Whether every other call would get the same answer."""
    return code in AUTHENTICATION_CODES or is_temporary(code, status)


def quota(code: str, kind: str, spot: bool) -> str | None:
    """Return the name of the exhausted quota, as in the console of Service Quotas; None if it is not about a quota."""
    if code in _QUOTA_NAMES:
        return _QUOTA_NAMES[code]
    if code not in _OF_SIZE:
        return None
    named = _FAMILIES.get(family(kind), _STANDARD_FAMILIES)
    if spot or code in ("MaxSpotInstanceCountExceeded", "SpotLimitExceeded"):
        return f"All {named} Spot Instance Requests"
    return f"Running On-Demand {named} instances"


def family(kind: str) -> str:
    """Return the letters that an instance type begins with: `g` for `g5.xlarge`."""
    return re.split("[^a-z]", kind)[0]


def missing_action(action: str, text: str) -> str:
    """Return the permission that is missing, as a policy names it."""
    found = re.search(r"to perform:? (\w+:\w+)", text)
    return found[1] if found else action


def explained(action: str, code: str, text: str, *, kind: str = "", spot: bool = False) -> Exception:
    """Return the error to raise when the answer to `action`, named as in a policy, has this code and text."""
    text = re.sub(r"Encoded authorization failure message:\s*\S+", "", " ".join(text.split())).strip()
    if code in CAPACITY_CODES:
        return NoCapacity(f"{action}: {code}: {text}")
    if (name := quota(code, kind, spot)) is not None:
        fix = "ask for more in the console of Service Quotas, or use fewer or smaller machines"
        return QuotaExceeded(f"the quota {name!r} is exhausted ({code}: {text}); {fix}")
    if code in PERMISSION_CODES:
        missing = missing_action(action, text)
        return Denied(f"your credentials do not allow {missing}: {code}: {text}; allow {missing} in their policy")
    if code in AUTHENTICATION_CODES:
        return Denied(f"the credentials are not accepted: {code}: {text}; renew them, or name others by profile=")
    if code.startswith("InvalidAMIID"):
        return InvalidArgument(f"image: {text}; give an image of this region")
    if code in ("InvalidInstanceType", "InvalidInstanceType.NotFound"):
        return InvalidArgument.of("instance_type", kind, text, "give a type that this region has")
    if code in ("VPCIdNotSpecified", "DefaultVpcDoesNotExist", "MissingInput"):
        return InvalidArgument(f"subnet=None: {text}; the region has no default network: give subnet=")
    if code.startswith(("InvalidSubnet", "InvalidGroup", "InvalidParameter", "InvalidIamInstanceProfile")):
        return InvalidArgument(f"{action}: {code}: {text}; fix the argument that it refers to")
    return ProvisioningError(f"{action}: {code}: {text}")
