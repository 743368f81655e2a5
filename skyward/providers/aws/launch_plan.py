"""Choose what to launch: image, type, zone and price, from Amazon's own lists."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from skyward.errors import InvalidArgument, NoCapacity
from skyward.providers.aws import instance_selection, price_list
from skyward.providers.aws.api import Api, Refusal
from skyward.providers.aws.instance_selection import InstanceType, Needs, Offer, Prices
from skyward.providers.aws.launch_config import LaunchConfig
from skyward.providers.batching import side_by_side

UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/{}/hvm/ebs-gp3/ami-id"
"""Where Canonical tells the image of its latest build, in every region."""

NAMES = {"arm64": "arm64", "x86_64": "amd64"}
USUAL = "t4g.micro"


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a region: the device of its disk, and its size in GB."""

    id: str
    architecture: str
    device: str
    disk: int


PRICE_TTL_S = 300.0
"""Seconds for which spot prices are good: they change a few times a day."""


class LaunchPlan:
    """Looks up what is wished for; what was found once is not asked for again, but for offers at spot prices."""

    def __init__(self, config: LaunchConfig, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._api, self._clock = config, api, clock
        self._found_at = 0.0
        self._ids: dict[str, str] = {}
        self._images: dict[str, Image] = {}
        self._offers: list[Offer] | None = None
        self._prices: Prices | None = None
        self._disk = 0.0
        self._subnets: dict[str, tuple[str, str]] | None = None

    async def launchable(self) -> list[Offer]:
        """Return what to try in order. Prices are asked for only where they matter for that."""
        if self._offers is None or (self._config.spot and self._clock() > self._found_at + PRICE_TTL_S):
            self._offers = await self._find(priced=self._config.has_needs)
            self._prices, self._found_at = None, self._clock()
        return self._offers

    async def priced(self) -> list[Offer]:
        """Return the same with prices."""
        return await self._find(priced=True)

    async def with_prices(self, offers: Sequence[Offer]) -> list[Offer]:
        """Return these with prices, of address and disk, too; asked for once."""
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
            named = self._config.image or UBUNTU.format(NAMES[architecture])
            self._ids[architecture] = await self._parameter(named) if named.startswith("/") else named
        return self._ids[architecture]

    async def image(self, architecture: str) -> Image:
        """Return the image for an architecture, with what the API tells of it."""
        if architecture not in self._images:
            named = await self.image_id(architecture)
            found = await self._api.call("ec2", "describe_images", ImageIds=[named])
            if not found["Images"]:
                raise InvalidArgument.of("image", named, "there is no such image", "give one of this region")
            self._images[architecture] = _image(found["Images"][0])
        return self._images[architecture]

    async def subnets(self) -> dict[str, tuple[str, str]]:
        """Return the subnet of each zone and its network, where the user has named subnets."""
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
        """Return the types that would do, and the zones that have them."""
        config = self._config
        if not config.has_needs:
            name = config.instance_type or USUAL
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
        needs = Needs(config.cpus, config.memory_gb, architecture, config.accelerator)
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


def _image(told: dict[str, Any]) -> Image:
    device = told.get("RootDeviceName", "/dev/sda1")
    sizes = [
        each["Ebs"].get("VolumeSize", 0)
        for each in told.get("BlockDeviceMappings", [])
        if each.get("DeviceName") == device and "Ebs" in each
    ]
    return Image(told["ImageId"], told["Architecture"], device, math.ceil(max(sizes, default=8)))
