"""Which machine to take, from what the lists say."""

import json
from typing import Any

import pytest

from skyward.providers.aws import instance_selection
from skyward.providers.aws.instance_selection import InstanceRequirements, InstanceType, Offer, Prices

SMALL = InstanceType("t4g.micro", 2, 1.0, ("arm64",))
INTEL = InstanceType("t3.micro", 2, 1.0, ("i386", "x86_64"))
LARGE = InstanceType("c7g.xlarge", 4, 8.0, ("arm64",))
GPU = InstanceType("g5.xlarge", 4, 16.0, ("x86_64",), ("a10g", "gpu", "nvidia"))
METAL = InstanceType("c7g.metal", 64, 128.0, ("arm64",), bare=True)


def told(name: str, **more: Any) -> dict[str, Any]:
    usual = {
        "InstanceType": name,
        "VCpuInfo": {"DefaultVCpus": 4},
        "MemoryInfo": {"SizeInMiB": 16384},
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
    }
    return usual | more


def product(price: str, unit: str, **attributes: str) -> str:
    dimension = {"unit": unit, "pricePerUnit": {"USD": price}}
    return json.dumps(
        {"product": {"attributes": attributes}, "terms": {"OnDemand": {"a": {"priceDimensions": {"b": dimension}}}}}
    )


def test_a_type_is_read_as_it_is_told() -> None:
    gpus = {"Gpus": [{"Name": "A10G", "Manufacturer": "NVIDIA"}]}
    burst = told("t3.xlarge", BurstablePerformanceSupported=True)
    plain, gpu, burstable = instance_selection.kinds(
        [told("m5.xlarge", SupportedUsageClasses=["spot"]), told("g5.xlarge", GpuInfo=gpus), burst]
    )

    assert plain == InstanceType("m5.xlarge", 4, 16.0, ("x86_64",), markets=("spot",))
    assert burstable == InstanceType("t3.xlarge", 4, 16.0, ("x86_64",), burstable=True)
    assert [
        each.burstable for each in instance_selection.offers([burstable], {"t3.xlarge": ["a"]}, PRICES, spot=False)
    ] == [True]
    assert gpu == GPU


@pytest.mark.parametrize(
    ("needs", "names"),
    [
        (InstanceRequirements(), ["t4g.micro", "t3.micro", "c7g.xlarge"]),
        (InstanceRequirements(cpus=3), ["c7g.xlarge"]),
        (InstanceRequirements(memory=4), ["c7g.xlarge"]),
        (InstanceRequirements(architecture="x86_64"), ["t3.micro"]),
        (InstanceRequirements(accelerator="A10G"), ["g5.xlarge"]),
        (InstanceRequirements(accelerator="NVIDIA", memory=32), []),
    ],
)
def test_what_fits_has_at_least_what_is_needed(needs: InstanceRequirements, names: list[str]) -> None:
    assert [kind.name for kind in (SMALL, INTEL, LARGE, GPU, METAL) if instance_selection.fits(kind, needs)] == names


ZONES = {"t4g.micro": ["b", "a"], "t3.micro": ["a"], "c7g.xlarge": ["a"]}
PRICES = Prices(
    {"t4g.micro": 0.008, "t3.micro": 0.01},
    {("t4g.micro", "a"): 0.004, ("t4g.micro", "b"): 0.002},
    address=0.005,
    disk=0.0001,
)


def order(spot: bool | str, most: int = 5) -> list[tuple[str, str, bool]]:
    found = instance_selection.offers([LARGE, INTEL, SMALL], ZONES, PRICES, spot=spot, most=most)
    return [(offer.kind, offer.zone, offer.spot) for offer in found]


def test_the_cheapest_comes_first_and_what_has_no_price_last() -> None:
    assert order(False) == [
        ("t4g.micro", "a", False),
        ("t4g.micro", "b", False),
        ("t3.micro", "a", False),
        ("c7g.xlarge", "a", False),
    ]


def test_spare_machines_come_first_where_others_would_do() -> None:
    spot = [("t4g.micro", "b", True), ("t4g.micro", "a", True)]
    assert order(True, most=1) == spot
    assert order("if-available", most=1) == [*spot, ("t4g.micro", "a", False), ("t4g.micro", "b", False)]


def test_a_type_is_not_offered_in_a_market_or_zone_that_does_not_have_it() -> None:
    only_spot = InstanceType("x", 1, 1.0, ("arm64",), markets=("spot",))

    assert instance_selection.offers([only_spot], {"x": ["a"]}, PRICES, spot=False) == []
    assert instance_selection.offers([only_spot], {}, PRICES, spot=True) == []


def test_an_hour_costs_machine_address_and_disk() -> None:
    (offer,) = instance_selection.offers([INTEL], ZONES, PRICES, spot=False, disk=10)

    assert offer.hourly == pytest.approx(0.01 + 0.005 + 0.001)
    assert offer.architecture == "x86_64"
    assert Offer("x", "a", False, "arm64").hourly is None
    assert Offer("x", "a", False, "arm64", machine=1.0).hourly == 1.0
    (unknown,) = instance_selection.offers([INTEL], ZONES, Prices({}, {}), spot=False, architecture_wanted="arm64")
    assert (unknown.disk, unknown.architecture) == (None, "")


def test_prices_are_read_from_the_price_list() -> None:
    machines = [product("0.0084", "Hrs", instanceType="t4g.micro"), product("0", "Hrs", instanceType="free")]
    addresses = [
        product("0.004", "Hrs", usagetype="EU-PublicIPv4:IdleAddress"),
        product("0.005", "Hrs", usagetype="EU-PublicIPv4:InUseAddress"),
    ]

    assert instance_selection.on_demand(machines) == {"t4g.micro": 0.0084}
    assert instance_selection.address_price(addresses) == 0.005
    assert instance_selection.address_price([]) is None
    assert instance_selection.disk_price([product("0.073", "GB-Mo", volumeApiName="gp3")]) == pytest.approx(0.0001)
    assert instance_selection.disk_price([]) is None


def test_the_latest_spot_price_is_the_first_of_the_history() -> None:
    history = [
        {"InstanceType": "t4g.micro", "AvailabilityZone": "a", "SpotPrice": "0.002"},
        {"InstanceType": "t4g.micro", "AvailabilityZone": "a", "SpotPrice": "0.003"},
    ]

    assert instance_selection.latest_prices(history) == {("t4g.micro", "a"): 0.002}
