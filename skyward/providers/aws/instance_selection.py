"""Choose the type, zone and price of a machine. Pure: no I/O, no clock, no luck.

The choice uses the cloud's own lists: types, the zones that have them, and prices.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

HOURS_PER_MONTH = 730.0
"""Hours of a month in the prices of disks."""


@dataclass(frozen=True, slots=True)
class InstanceType:
    """A type of machine.

    Attributes
    ----------
    name
        `t4g.micro`, say.
    cpus, memory
        Virtual processors, and GB of memory.
    architectures
        Which images it can run.
    accelerators
        The names and makers of its accelerators, in lower case.
    markets
        `on-demand`, `spot`, or both.
    bare
        Whether it is a whole machine, which takes long to start.
    burstable
        Whether it can use its processors in full only while it has CPU credits.
    """

    name: str
    cpus: int
    memory: float
    architectures: tuple[str, ...]
    accelerators: tuple[str, ...] = ()
    markets: tuple[str, ...] = ("on-demand", "spot")
    bare: bool = False
    burstable: bool = False


@dataclass(frozen=True, slots=True)
class InstanceRequirements:
    """Minimum that a machine must have; None: any. `accelerator` is a name, a maker, or `gpu` for any."""

    cpus: int | None = None
    memory: float | None = None
    architecture: str | None = None
    accelerator: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """A machine that can be launched: its type, zone and market, and dollars per hour; None if no price is known.

    Attributes
    ----------
    machine, address, disk
        Dollars per hour of the machine, of its public address, and of its disk.
    burstable
        Whether it can use its processors in full only while it has CPU credits.
    """

    kind: str
    zone: str
    spot: bool
    architecture: str
    machine: float | None = None
    address: float | None = None
    disk: float | None = None
    burstable: bool = False

    @property
    def hourly(self) -> float | None:
        """Dollars per hour in total."""
        parts = (self.machine, self.address, self.disk)
        return sum(part for part in parts if part is not None) if self.machine is not None else None


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars an hour: `on_demand` by type, `spot` by type and zone, an `address`, and a `disk` by the GB."""

    on_demand: Mapping[str, float]
    spot: Mapping[tuple[str, str], float]
    address: float | None = None
    disk: float | None = None


def kinds(described: Iterable[Mapping[str, Any]]) -> list[InstanceType]:
    """Return the types that `DescribeInstanceTypes` listed."""
    return [_kind(each) for each in described]


def _kind(told: Mapping[str, Any]) -> InstanceType:
    devices = [
        *told.get("GpuInfo", {}).get("Gpus", []),
        *told.get("InferenceAcceleratorInfo", {}).get("Accelerators", []),
        *told.get("NeuronInfo", {}).get("NeuronDevices", []),
    ]
    names = {str(each.get(word, "")).lower() for each in devices for word in ("Name", "Manufacturer")}
    return InstanceType(
        told["InstanceType"],
        int(told["VCpuInfo"]["DefaultVCpus"]),
        told["MemoryInfo"]["SizeInMiB"] / 1024,
        tuple(told["ProcessorInfo"]["SupportedArchitectures"]),
        tuple(sorted({*names, "gpu"} - {""})) if devices else (),
        tuple(told.get("SupportedUsageClasses", ("on-demand", "spot"))),
        bool(told.get("BareMetal", False)),
        bool(told.get("BurstablePerformanceSupported", False)),
    )


def fits(kind: InstanceType, needs: InstanceRequirements) -> bool:
    """Whether a type meets the needs. A type with accelerators does so only if one is needed."""
    return (
        not kind.bare
        and kind.cpus >= (needs.cpus or 0)
        and kind.memory >= (needs.memory or 0)
        and architecture(kind, needs.architecture) is not None
        and (needs.accelerator.lower() in kind.accelerators if needs.accelerator else not kind.accelerators)
    )


def architecture(kind: InstanceType, wanted: str | None) -> str | None:
    """Return the architecture of the image for the type; None if the type does not have the requested one."""
    for each in ("arm64", "x86_64"):
        if each in kind.architectures and wanted in (None, each):
            return each
    return None


def offers(
    candidates: Iterable[InstanceType],
    zones: Mapping[str, Sequence[str]],
    prices: Prices,
    *,
    spot: bool | str,
    architecture_wanted: str | None = None,
    disk: float = 0.0,
    most: int = 5,
) -> list[Offer]:
    """Return the offers to try, of `most` types: the cheapest first, those without a known price last.

    Parameters
    ----------
    zones
        The zones that have each type.
    spot
        True: the spot market only; `"if-available"`: it first.
    disk
        GB of disk.
    """
    markets = {False: (False,), True: (True,)}.get(spot, (True, False)) if isinstance(spot, bool) else (True, False)
    found: list[Offer] = []
    for is_spot in markets:
        market = [
            priced(
                Offer(
                    kind.name,
                    zone,
                    is_spot,
                    architecture(kind, architecture_wanted) or "",
                    burstable=kind.burstable,
                ),
                prices,
                disk,
            )
            for kind in candidates
            if ("spot" if is_spot else "on-demand") in kind.markets
            for zone in zones.get(kind.name, ())
        ]
        market.sort(key=_order)
        allowed = list(dict.fromkeys(offer.kind for offer in market))[:most]
        found += [offer for offer in market if offer.kind in allowed]
    return found


def priced(offer: Offer, prices: Prices, disk: float) -> Offer:
    """Return an offer with its prices, for so many GB of disk."""
    on_demand = prices.on_demand.get(offer.kind)
    return replace(
        offer,
        machine=prices.spot.get((offer.kind, offer.zone)) if offer.spot else on_demand,
        address=prices.address,
        disk=None if prices.disk is None else prices.disk * disk,
    )


def _order(offer: Offer) -> tuple[float, str, str]:
    return math.inf if offer.machine is None else offer.machine, offer.kind, offer.zone


def prices_of(products: Iterable[str]) -> list[tuple[Mapping[str, str], str, float]]:
    """Return the attributes, unit and price of each product of the price list that costs something."""
    found: list[tuple[Mapping[str, str], str, float]] = []
    for text in products:
        product = json.loads(text)
        for term in product.get("terms", {}).get("OnDemand", {}).values():
            for dimension in term["priceDimensions"].values():
                price = float(dimension["pricePerUnit"].get("USD", 0))
                if price > 0:
                    found.append((product["product"]["attributes"], dimension["unit"], price))
    return found


def on_demand(products: Iterable[str]) -> dict[str, float]:
    """Return dollars an hour by type."""
    return {facts["instanceType"]: price for facts, unit, price in prices_of(products) if unit == "Hrs"}


def address_price(products: Iterable[str]) -> float | None:
    """Return dollars an hour for a public address that is used."""
    prices = [
        price for facts, _, price in prices_of(products) if facts["usagetype"].endswith("PublicIPv4:InUseAddress")
    ]
    return min(prices, default=None)


def disk_price(products: Iterable[str]) -> float | None:
    """Return dollars an hour for a GB of disk."""
    prices = [price / HOURS_PER_MONTH for _, unit, price in prices_of(products) if unit == "GB-Mo"]
    return min(prices, default=None)


def latest_prices(history: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Return the latest spot prices by type and zone, of a history that begins with the latest."""
    found: dict[tuple[str, str], float] = {}
    for each in history:
        found.setdefault((each["InstanceType"], each["AvailabilityZone"]), float(each["SpotPrice"]))
    return found
