"""An EC2 in memory, for tests of what calls it: it replaces the API, so that nothing is sent and nobody waits."""

import datetime as dt
import json
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from skyward.providers.aws.api import Api, Refusal

REGION = "eu-central-1"
ZONES = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
PRICE = 0.01
"""Dollars an hour of every machine, without address and disk."""


@dataclass
class Machine:
    """A machine of the account."""

    id: str
    zone: str
    index: int
    groups: list[str]
    tags: dict[str, str]
    state: str = "pending"


@dataclass
class Fault:
    """What happens at one call: `do` runs, and then `error` is raised, before or after the call is carried out."""

    error: Exception | None = None
    after: bool = False
    do: Callable[[], object] = lambda: None


def refusal(action: str, code: str, *, certain: bool = True) -> Refusal:
    """An error as EC2 answers it."""
    return Refusal(f"ec2:{action}", code, "because", certain=certain)


class FakeEC2(Api):
    """An account in one region with three zones.

    Attributes
    ----------
    calls
        Every call, as its action and its parameters.
    capacity
        How many machines can be launched in a zone; without an entry, any number.
    unknown
        Ids of machines that EC2 does not list or know yet.
    protected
        Ids of machines and groups that nobody may terminate or delete.
    """

    def __init__(self) -> None:
        super().__init__(REGION, None)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.capacity: dict[str, int] = {}
        self.unknown: set[str] = set()
        self.protected: set[str] = set()
        self.machines: dict[str, Machine] = {}
        self.groups: dict[str, dict[str, str]] = {}
        self._faults: dict[str, deque[Fault]] = defaultdict(deque)
        self._tokens: dict[str, list[Machine]] = {}

    def fail(self, action: str, error: Exception | None = None, *, after: bool = False, **more: Any) -> None:
        """Have the next call of an action go wrong; see `Fault`."""
        self._faults[action].append(Fault(error, after, **more))

    def asked(self, action: str) -> list[dict[str, Any]]:
        """The parameters of each call of an action."""
        return [parameters for name, parameters in self.calls if name == action]

    @property
    def alive(self) -> list[str]:
        """The ids of the machines that are not terminating."""
        return [each.id for each in self.machines.values() if each.state in ("pending", "running")]

    @property
    def zones(self) -> Counter[str]:
        """The machines of each zone."""
        return Counter(self.machines[each].zone for each in self.alive)

    async def region(self) -> str:
        """Return the name of the region."""
        return REGION

    async def call(self, service: str, action: str, *, patience: float | None = None, **asked: Any) -> dict[str, Any]:
        """Carry out a call of the API."""
        self.calls.append((action, asked))
        fault = self._faults[action].popleft() if self._faults[action] else Fault()
        if not fault.after:
            fault.do()
            if fault.error is not None:
                raise fault.error
        answer: dict[str, Any] = getattr(self, f"_{action}")(**asked)
        if fault.after:
            fault.do()
            if fault.error is not None:
                raise fault.error
        return answer

    # ---------------------------------------------------------------- what there is to choose from

    def _describe_instance_types(self, **_: Any) -> dict[str, Any]:
        micro = {
            "InstanceType": "t4g.micro",
            "VCpuInfo": {"DefaultVCpus": 2},
            "MemoryInfo": {"SizeInMiB": 1024},
            "ProcessorInfo": {"SupportedArchitectures": ["arm64"]},
            "BurstablePerformanceSupported": True,
        }
        return {"InstanceTypes": [micro]}

    def _describe_instance_type_offerings(self, **_: Any) -> dict[str, Any]:
        return {"InstanceTypeOfferings": [{"InstanceType": "t4g.micro", "Location": zone} for zone in ZONES]}

    def _describe_images(self, ImageIds: list[str]) -> dict[str, Any]:
        return {"Images": [{"ImageId": each, "Architecture": "arm64"} for each in ImageIds]}

    def _describe_subnets(self, SubnetIds: list[str]) -> dict[str, Any]:
        named = zip(ZONES, SubnetIds, strict=False)
        return {"Subnets": [{"AvailabilityZone": zone, "SubnetId": each, "VpcId": "vpc-0"} for zone, each in named]}

    def _get_parameter(self, **_: Any) -> dict[str, Any]:
        return {"Parameter": {"Value": "ami-ubuntu"}}

    def _get_products(self, **_: Any) -> dict[str, Any]:
        dimension = {"unit": "Hrs", "pricePerUnit": {"USD": str(PRICE)}}
        attributes = {"instanceType": "t4g.micro", "usagetype": "EUC1-BoxUsage:t4g.micro"}
        terms = {"OnDemand": {"1": {"priceDimensions": {"1": dimension}}}}
        return {"PriceList": [json.dumps({"product": {"attributes": attributes}, "terms": terms})]}

    # ---------------------------------------------------------------- machines

    def _run_instances(self, **asked: Any) -> dict[str, Any]:
        token = asked["ClientToken"]
        if token not in self._tokens:
            zone = asked["Placement"]["AvailabilityZone"]
            room = self.capacity.get(zone, asked["MaxCount"]) - self.zones[zone] * (zone in self.capacity)
            if room < asked["MinCount"]:
                raise refusal("RunInstances", "InsufficientInstanceCapacity")
            self._tokens[token] = [self._made(index, asked) for index in range(min(room, asked["MaxCount"]))]
        made = self._tokens[token]
        return {"Instances": [{"InstanceId": each.id, "AmiLaunchIndex": each.index} for each in made]}

    def _made(self, index: int, asked: dict[str, Any]) -> Machine:
        tags = {tag["Key"]: tag["Value"] for tag in asked["TagSpecifications"][0]["Tags"]}
        zone, number = asked["Placement"]["AvailabilityZone"], len(self.machines)
        made = Machine(f"i-{number}", zone, index, asked["SecurityGroupIds"], tags)
        self.machines[made.id] = made
        return made

    def _describe_instances(self, Filters: list[dict[str, Any]]) -> dict[str, Any]:
        listed = [
            {
                "InstanceId": each.id,
                "State": {"Name": each.state},
                "AmiLaunchIndex": each.index,
                "LaunchTime": dt.datetime.now(dt.UTC),
                "Tags": _tags(each.tags),
            }
            for each in self.machines.values()
            if each.id not in self.unknown and _fits(each.tags, Filters)
        ]
        return {"Reservations": [{"Instances": listed}]}

    def _terminate_instances(self, InstanceIds: list[str]) -> dict[str, Any]:
        if any(each in self.unknown or each not in self.machines for each in InstanceIds):
            raise refusal("TerminateInstances", "InvalidInstanceID.NotFound")
        if self.protected.intersection(InstanceIds):
            raise refusal("TerminateInstances", "OperationNotPermitted")
        for each in InstanceIds:
            self.machines[each].state = "shutting-down"
        told = [{"InstanceId": each, "CurrentState": {"Name": "shutting-down"}} for each in InstanceIds]
        return {"TerminatingInstances": told}

    # ---------------------------------------------------------------- security groups

    def _create_security_group(self, GroupName: str, TagSpecifications: Any, **_: Any) -> dict[str, Any]:
        self.groups[group := f"sg-{len(self.groups)}"] = {
            tag["Key"]: tag["Value"] for tag in TagSpecifications[0]["Tags"]
        }
        return {"GroupId": group}

    def _authorize_security_group_ingress(self, **_: Any) -> dict[str, Any]:
        return {}

    def _describe_security_groups(self, Filters: list[dict[str, Any]]) -> dict[str, Any]:
        fitting = {group: tags for group, tags in self.groups.items() if _fits(tags, Filters)}
        return {
            "SecurityGroups": [
                {"GroupId": group, "GroupName": tags.get("Name", ""), "Tags": _tags(tags)}
                for group, tags in fitting.items()
            ]
        }

    def _delete_security_group(self, GroupId: str) -> dict[str, Any]:
        """A machine that is shutting down has terminated when the next call comes."""
        users = [each for each in self.machines.values() if GroupId in each.groups and each.state != "terminated"]
        if GroupId in self.protected:
            raise refusal("DeleteSecurityGroup", "UnauthorizedOperation")
        if GroupId not in self.groups:
            raise refusal("DeleteSecurityGroup", "InvalidGroup.NotFound")
        for each in users:
            each.state = "terminated" if each.state == "shutting-down" else each.state
        if users:
            raise refusal("DeleteSecurityGroup", "DependencyViolation")
        del self.groups[GroupId]
        return {}


def _tags(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def _fits(tags: dict[str, str], filters: list[dict[str, Any]]) -> bool:
    """Whether tags pass filters for the presence of a tag, or for its value."""
    for each in filters:
        name, values = each["Name"], each["Values"]
        found = re.fullmatch("tag:(.+)", name)
        if not (tags.get(found[1]) in values if found else tags.keys() & set(values)):
            return False
    return True
