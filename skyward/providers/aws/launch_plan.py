"""Choose what to launch, from Amazon's own lists: image, type, zone and price; and say it to `RunInstances`."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skyward.errors import InvalidArgument, NoCapacity
from skyward.providers.aws import instance_selection, price_list, resources
from skyward.providers.aws.api import Api, Refusal
from skyward.providers.aws.instance_selection import InstanceRequirements, InstanceType, Offer, Prices
from skyward.providers.aws.launch_config import LaunchConfig
from skyward.providers.batching import side_by_side

UBUNTU_PARAMETER = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"
"""The public parameter in which Canonical publishes its latest image, in every region."""

UBUNTU_ARCHITECTURES = {"arm64": "arm64", "x86_64": "amd64"}
DEFAULT_TYPE = "t4g.micro"


@dataclass(frozen=True, slots=True)
class AMI:
    """An image of a region: the device of its disk, and its size in GB."""

    id: str
    architecture: str
    device: str
    disk: int


PRICE_TTL_S = 300.0
"""Seconds for which spot prices are kept: they change a few times a day."""


class LaunchPlan:
    """Looks up what the configuration asks for, each thing once, except for offers at spot prices."""

    def __init__(self, config: LaunchConfig, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._api, self._clock = config, api, clock
        self._found_at = 0.0
        self._ids: dict[str, str] = {}
        self._images: dict[str, AMI] = {}
        self._offers: list[Offer] | None = None
        self._prices: Prices | None = None
        self._disk = 0.0
        self._subnets: dict[str, tuple[str, str]] | None = None

    async def launchable(self) -> list[Offer]:
        """Return the offers to try, in order. Prices are looked up only if the order depends on them."""
        if self._offers is None or (self._config.spot and self._clock() > self._found_at + PRICE_TTL_S):
            self._offers = await self._find(priced=self._config.has_needs)
            self._prices, self._found_at = None, self._clock()
        return self._offers

    async def priced(self) -> list[Offer]:
        """Return the same offers with prices."""
        return await self._find(priced=True)

    async def with_prices(self, offers: Sequence[Offer]) -> list[Offer]:
        """Return these offers with prices, including those of address and disk, which are looked up once."""
        if self._config.has_needs and all(offer.hourly is not None for offer in offers):
            return list(offers)
        if self._prices is None:
            kinds = list(dict.fromkeys(offer.kind for offer in offers))
            spot = any(offer.spot for offer in offers)
            found, image = await side_by_side(
                price_list.prices(self._api, kinds, spot=spot), self.image(offers[0].architecture)
            )
            self._prices, self._disk = found, float(self._config.volume_gb or image.disk)
        prices, disk = self._prices, self._disk
        return [instance_selection.priced(offer, prices, disk) for offer in offers]

    async def image_id(self, architecture: str) -> str:
        """Return the id of the image for an architecture."""
        if architecture not in self._ids:
            named = self._config.image or UBUNTU_PARAMETER.format(UBUNTU_ARCHITECTURES[architecture])
            self._ids[architecture] = await self._parameter(named) if named.startswith("/") else named
        return self._ids[architecture]

    async def image(self, architecture: str) -> AMI:
        """Return the image for an architecture, as the API describes it."""
        if architecture not in self._images:
            named = await self.image_id(architecture)
            found = await self._api.call("ec2", "describe_images", ImageIds=[named])
            if not found["Images"]:
                raise InvalidArgument.of("image", named, "there is no such image", "give one of this region")
            self._images[architecture] = _image(found["Images"][0])
        return self._images[architecture]

    async def parameters(
        self,
        offer: Offer,
        count: int,
        user_data: str,
        groups: Sequence[str],
        tags: Mapping[str, str],
        *,
        standard_credits: bool,
    ) -> dict[str, Any]:
        """Return the parameters of `RunInstances` for `count` machines or fewer.

        With `standard_credits`, a machine gets no more processor time than its price includes.
        """
        subnet = (await self.subnets()).get(offer.zone)
        asked: dict[str, Any] = {
            "ImageId": await self.image_id(offer.architecture),
            "InstanceType": offer.kind,
            "MinCount": 1,
            "MaxCount": count,
            "UserData": user_data,
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            "SecurityGroupIds": list(groups),
            "TagSpecifications": [
                {"ResourceType": kind, "Tags": resources.tag_list(tags)} for kind in ("instance", "volume")
            ],
        }
        asked |= {"SubnetId": subnet[0]} if subnet else {"Placement": {"AvailabilityZone": offer.zone}}
        if offer.spot:
            how = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
            asked["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": how}
        if standard_credits:
            asked["CreditSpecification"] = {"CpuCredits": "standard"}
        if self._config.volume_gb is not None:
            disk = {"VolumeSize": self._config.volume_gb, "VolumeType": "gp3", "DeleteOnTermination": True}
            device = (await self.image(offer.architecture)).device
            asked["BlockDeviceMappings"] = [{"DeviceName": device, "Ebs": disk}]
        if self._config.role is not None:
            asked["IamInstanceProfile"] = {"Name": self._config.role}
        return asked

    async def subnets(self) -> dict[str, tuple[str, str]]:
        """Return the subnet of each zone and its network, if the user has named subnets."""
        if self._subnets is None:
            self._subnets = {}
            if self._config.subnet:
                told = await self._api.call("ec2", "describe_subnets", SubnetIds=list(self._config.subnet))
                self._subnets = {
                    each["AvailabilityZone"]: (each["SubnetId"], each["VpcId"]) for each in told["Subnets"]
                }
                if len({network for _, network in self._subnets.values()}) > 1:
                    fix = "give subnets of one network"
                    raise InvalidArgument.of("subnet", self._config.subnet, "they are of several networks", fix)
        return self._subnets

    async def _parameter(self, name: str) -> str:
        try:
            told = await self._api.call("ssm", "get_parameter", Name=name)
        except Refusal as refusal:
            if refusal.code != "ParameterNotFound":
                raise
            fix = "give an image, for example image='ami-...'"
            raise InvalidArgument.of("image", name, "there is no such parameter in this region", fix) from None
        return str(told["Parameter"]["Value"])

    async def _find(self, *, priced: bool) -> list[Offer]:
        config = self._config
        wanted: str | None = config.architecture
        if config.image is not None:  # it is for one architecture only
            given = (await self.image(wanted or "")).architecture
            if wanted not in (None, given):
                raise InvalidArgument.of("architecture", wanted, f"the image is for {given}", "leave one of them out")
            wanted = given
        candidates, zones = await self._candidates(wanted)
        # the cheapest spot machine is a small one
        names = [kind.name for kind in sorted(candidates, key=lambda kind: (kind.cpus, kind.memory))]
        if priced:
            prices = await price_list.prices(self._api, names, spot=bool(config.spot))
        else:
            prices = Prices({}, await price_list.spot_prices(self._api, names) if config.spot else {})
        disk = 0.0
        if priced and candidates:
            image = await self.image(instance_selection.architecture(candidates[0], wanted) or "")
            disk = float(config.volume_gb or image.disk)
        offers = instance_selection.offers(
            candidates, zones, prices, spot=config.spot, architecture_wanted=wanted, disk=disk
        )
        if not offers:
            market = "spot " if config.spot is True else ""
            raise NoCapacity(f"no availability zone of this region offers a {market}machine with {config.summary}")
        return offers

    async def _candidates(self, architecture: str | None) -> tuple[list[InstanceType], dict[str, list[str]]]:
        """Return the types that meet the needs, and the zones that have them."""
        config = self._config
        if not config.has_needs:
            name = config.instance_type or DEFAULT_TYPE
            one, zones = await side_by_side(
                self._api.call("ec2", "describe_instance_types", InstanceTypes=[name]), self._zones([name])
            )
            (kind,) = instance_selection.kinds(one["InstanceTypes"])
            if instance_selection.architecture(kind, architecture) is None:
                problem = f"it cannot run an image for {architecture}"
                raise InvalidArgument.of("instance_type", name, problem, "give another type, or another image")
            return [kind] if zones else [], zones
        filters = [{"Name": "current-generation", "Values": ["true"]}, {"Name": "bare-metal", "Values": ["false"]}]
        told = await self._api.pages("ec2", "describe_instance_types", "InstanceTypes", Filters=filters)
        needs = InstanceRequirements(config.cpus, config.memory_gb, architecture, config.accelerator)
        fitting = [kind for kind in instance_selection.kinds(told) if instance_selection.fits(kind, needs)]
        zones = await self._zones([kind.name for kind in fitting])
        return [kind for kind in fitting if zones.get(kind.name)], zones

    async def _zones(self, names: Sequence[str]) -> dict[str, list[str]]:
        filters = [{"Name": "instance-type", "Values": names}] if len(names) <= 100 else []
        told = await self._api.pages(
            "ec2",
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=filters,
        )
        allowed = set(await self.subnets()) or set(self._config.zones)
        found: dict[str, list[str]] = {}
        for each in told:
            if not allowed or each["Location"] in allowed:
                found.setdefault(each["InstanceType"], []).append(each["Location"])
        return found


def _image(told: dict[str, Any]) -> AMI:
    device = told.get("RootDeviceName", "/dev/sda1")
    sizes = [
        each["Ebs"].get("VolumeSize", 0)
        for each in told.get("BlockDeviceMappings", [])
        if each.get("DeviceName") == device and "Ebs" in each
    ]
    return AMI(told["ImageId"], told["Architecture"], device, math.ceil(max(sizes, default=8)))
