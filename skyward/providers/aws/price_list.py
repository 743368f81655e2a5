"""Prices of machines, from Amazon's price list and its history of spot prices."""

import asyncio
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from skyward.providers.aws import instance_selection
from skyward.providers.aws.api import Api
from skyward.providers.aws.instance_selection import Prices
from skyward.providers.batching import side_by_side

MAX_PRICED_BY_NAME = 5
"""Instance types up to which the price list is queried for each; for more it is read as a whole."""

MAX_SPOT_TYPES = 100
"""Instance types at most whose spot prices are queried."""

_MACHINE = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}


async def prices(api: Api, kinds: Sequence[str], *, spot: bool) -> Prices:
    """Return the prices of these types, of the first hundred also on the spot market, of addresses and of disks."""
    region = await api.region()
    machines = [_MACHINE | {"instanceType": kind} for kind in kinds] if len(kinds) <= MAX_PRICED_BY_NAME else [_MACHINE]
    asked = (
        _products(api, "AmazonEC2", region, machines),
        _products(api, "AmazonVPC", region, [{}]),
        _products(api, "AmazonEC2", region, [{"productFamily": "Storage", "volumeApiName": "gp3"}]),
    )
    (of_machines, of_addresses, of_disks), of_spot = await side_by_side(
        side_by_side(*asked), spot_prices(api, kinds) if spot else asyncio.sleep(0, {})
    )
    addresses, disks = instance_selection.address_price(of_addresses), instance_selection.disk_price(of_disks)
    return Prices(instance_selection.on_demand(of_machines), of_spot, addresses, disks)


async def spot_prices(api: Api, kinds: Sequence[str]) -> dict[tuple[str, str], float]:
    """Return the latest spot prices by type and zone."""
    told = await api.pages(
        "ec2",
        "describe_spot_price_history",
        "SpotPriceHistory",
        InstanceTypes=list(kinds[:MAX_SPOT_TYPES]),
        ProductDescriptions=["Linux/UNIX"],
        StartTime=dt.datetime.now(dt.UTC),  # what is valid since then is the latest
    )
    return instance_selection.latest_prices(told)


async def _products(api: Api, service: str, region: str, asked: Sequence[Mapping[str, str]]) -> list[Any]:
    found = []
    for each in asked:
        fields = {"regionCode": region, **each}
        filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in fields.items()]
        found += await api.pages("pricing", "get_products", "PriceList", ServiceCode=service, Filters=filters)
    return found
