"""The prices of the lab's EC2, as the price list and the spot price history tell them: invented, but all different."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

PAGE = 100
DISK, ADDRESS = 0.08, 0.005
"""Dollars for a GB of disk a month, and for a public address an hour."""


class Market:
    """What machines cost.

    Attributes
    ----------
    prices
        Dollars an hour by type, where they are not what their size says.
    spot
        What share of it a spot machine costs, by zone.
    """

    def __init__(self, kinds: Sequence[Mapping[str, Any]], offerings: Sequence[Mapping[str, str]]) -> None:
        self._kinds = {kind["InstanceType"]: kind for kind in kinds}
        self._offerings = offerings
        self.prices: dict[str, float] = {}
        self.spot: dict[str, float] = {}

    def price(self, kind: str) -> float:
        """Dollars an hour for a machine of a type."""
        if kind in self.prices:
            return self.prices[kind]
        facts = self._kinds[kind]
        memory = facts["MemoryInfo"]["SizeInMiB"] / 1024
        gpus = sum(gpu.get("Count", 1) for gpu in facts.get("GpuInfo", {}).get("Gpus", []))
        intel = 1.0 if "arm64" in facts["ProcessorInfo"]["SupportedArchitectures"] else 1.2
        return float((0.002 * facts["VCpuInfo"]["DefaultVCpus"] + 0.0044 * memory) * intel + 0.5 * gpus)

    def products(self, asked: Mapping[str, Any]) -> bytes:
        """The answer to `GetProducts`."""
        want = {each["Field"]: each["Value"] for each in asked.get("Filters", [])}
        if asked["ServiceCode"] == "AmazonVPC":
            items = [
                _item({"usagetype": "PublicIPv4:IdleAddress"}, ADDRESS, "Hrs"),
                _item({"usagetype": "PublicIPv4:InUseAddress"}, ADDRESS, "Hrs"),
            ]
        elif want.get("productFamily") == "Storage":
            items = [_item({"volumeApiName": "gp3"}, DISK, "GB-Mo")]
        else:
            kinds = [want["instanceType"]] if "instanceType" in want else sorted(self._kinds)
            items = [_item({"instanceType": kind}, self.price(kind), "Hrs") for kind in kinds if kind in self._kinds]
        first = int(asked.get("NextToken") or 0)
        page = {"FormatVersion": "aws_v1", "PriceList": items[first : first + PAGE]}
        more = {"NextToken": str(first + PAGE)} if first + PAGE < len(items) else {}
        return json.dumps(page | more).encode()

    def history(self, asked: Mapping[str, Any]) -> bytes:
        """The answer to `DescribeSpotPriceHistory`."""
        kinds = {value for name, value in asked.items() if name.startswith("InstanceType.")}
        rows = [
            f"<item><instanceType>{kind}</instanceType><productDescription>Linux/UNIX</productDescription>"
            f"<spotPrice>{self.price(kind) * self.spot.get(zone, 0.4):.6f}</spotPrice>"
            f"<timestamp>2026-11-01T00:00:00.000Z</timestamp><availabilityZone>{zone}</availabilityZone></item>"
            for each in self._offerings
            if (kind := each["InstanceType"]) in kinds and (zone := each["Location"])
        ]
        head, tail = "<DescribeSpotPriceHistoryResponse><spotPriceHistorySet>", "</spotPriceHistorySet>"
        return f"{head}{''.join(rows)}{tail}<nextToken></nextToken></DescribeSpotPriceHistoryResponse>".encode()


def _item(attributes: Mapping[str, str], price: float, unit: str) -> str:
    dimension = {"unit": unit, "beginRange": "0", "pricePerUnit": {"USD": f"{price:.10f}"}}
    terms = {"OnDemand": {"LAB.1": {"priceDimensions": {"LAB.1.1": dimension}}}}
    return json.dumps({"product": {"attributes": {**attributes}, "sku": "LAB"}, "terms": terms})
