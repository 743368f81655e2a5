"""A pool on EC2: from nothing to results and back to nothing, whatever happens to calls, zones and machines."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import skyward as sky
from tests import work
from tests.lab.cloud import Cloud

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]
TWO = sky.Worker(concurrency=2)

type Make = Callable[..., sky.AWS]


def guards() -> list[int]:
    return [each.pid for each in psutil.Process().children() if "skyward.providers.aws_guard" in each.cmdline()]


def test_ten_machines_are_one_call_and_nothing_is_left(cloud: Cloud, aws: Make) -> None:
    with sky.Compute(provider=aws(), nodes=10, worker=TWO) as compute:
        assert compute.slots == 20
        assert len({node.instance for node in compute.nodes}) == 10
        assert list(compute.map(work.square, range(100))) == [each * each for each in range(100)]
        assert len(cloud.living()) == 10
        assert cloud.keys() == []
        assert cloud.endpoint.count("RunInstances") == 1
    assert cloud.living() == []
    assert cloud.groups() == []
    assert guards() == []
    assert cloud.endpoint.count("TerminateInstances") <= 3
