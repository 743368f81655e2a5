"""Turn an error code of Amazon into an error that says what to do. Pure: no I/O, no clock, no luck."""

import re

from skyward.errors import Denied, InvalidArgument, NoCapacity, ProvisioningError, QuotaExceeded

NO_ROOM = {
    "InsufficientAddressCapacity",
    "InsufficientCapacity",
    "InsufficientFreeAddressesInSubnet",
    "InsufficientHostCapacity",
    "InsufficientInstanceCapacity",
    "InsufficientReservedInstanceCapacity",
    "SpotMaxPriceTooLow",
    "Unsupported",  # what is said when a zone does not have the type
}
"""Another zone, or another type, may still do."""

BUSY = {
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
"""The same call may do in a moment."""

STRANGER = {
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
"""The credentials are not accepted at all."""

FORBIDDEN = {"AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation", "UnauthorizedOperation"}
"""They are, and are not enough."""

TOKEN_SPENT = "IdempotentInstanceTerminated"
"""The machines of an earlier launch with this client token have been terminated: it needs another token."""

_STANDARD = "Standard (A, C, D, H, I, M, R, T, Z)"
_FAMILIES = {"g": "G and VT", "vt": "G and VT", "inf": "Inf", "trn": "Trn", "p": "P", "x": "X", "f": "F", "dl": "DL"}
_QUOTAS = {
    "AddressLimitExceeded": "EC2-VPC Elastic IPs",
    "RulesPerSecurityGroupLimitExceeded": "Inbound or outbound rules per security group",
    "SecurityGroupLimitExceeded": "VPC security groups per Region",
    "SecurityGroupsPerInstanceLimitExceeded": "Security groups per network interface",
    "VolumeLimitExceeded": "Storage for General Purpose SSD (gp3) volumes, in TiB",
}
_OF_SIZE = {"InstanceLimitExceeded", "MaxSpotInstanceCountExceeded", "SpotLimitExceeded", "VcpuLimitExceeded"}


def is_busy(code: str, status: int) -> bool:
    """Whether the same call may do in a moment; a lack of room is told with a status of 500, too."""
    return code in BUSY or (status >= 500 and code not in NO_ROOM)


def concerns_all(code: str, status: int) -> bool:
    """Whether another call would be answered the same, whatever it is about."""
    return code in STRANGER or is_busy(code, status)


def quota(code: str, kind: str, spot: bool) -> str | None:
    """Return the name of the quota that is used up, as the console of service quotas has it; None if none is."""
    if code in _QUOTAS:
        return _QUOTAS[code]
    if code not in _OF_SIZE:
        return None
    named = _FAMILIES.get(family(kind), _STANDARD)
    if spot or code in ("MaxSpotInstanceCountExceeded", "SpotLimitExceeded"):
        return f"All {named} Spot Instance Requests"
    return f"Running On-Demand {named} instances"


def family(kind: str) -> str:
    """Return the letters that a type of machine begins with: `g` for `g5.xlarge`."""
    return re.split("[^a-z]", kind)[0]


def missing_action(action: str, text: str) -> str:
    """Return the permission that is missing, as a policy names it."""
    found = re.search(r"to perform:? (\w+:\w+)", text)
    return found[1] if found else action


def explained(action: str, code: str, text: str, *, kind: str = "", spot: bool = False) -> Exception:
    """Return the error to raise when `action`, named as in a policy, was answered with this code and text."""
    text = re.sub(r"Encoded authorization failure message:\s*\S+", "", " ".join(text.split())).strip()
    if code in NO_ROOM:
        return NoCapacity(f"{action}: {code}: {text}")
    if (name := quota(code, kind, spot)) is not None:
        fix = "ask for more in the console of Service Quotas, or use fewer or smaller machines"
        return QuotaExceeded(f"the quota {name!r} is exhausted ({code}: {text}); {fix}")
    if code in FORBIDDEN:
        missing = missing_action(action, text)
        return Denied(f"your credentials do not allow {missing}: {code}: {text}; allow {missing} in their policy")
    if code in STRANGER:
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
