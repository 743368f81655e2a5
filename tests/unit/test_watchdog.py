"""What the watchdog process does once its driver is gone, with an EC2 in memory."""

import asyncio
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from skyward.providers.aws import termination, watchdog
from skyward.providers.aws.api import Unanswered
from skyward.providers.aws.watchdog import WatchedPool
from tests.ec2 import REGION, ZONES, FakeEC2, Machine, refusal

TAGS = {"skyward:pool": "pool", "skyward:nodes": "0-0"}


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> FakeEC2:
    made = FakeEC2()
    monkeypatch.setattr("skyward.providers.aws.api.Api", lambda *_: made)
    monkeypatch.setattr("skyward.retry.backoff", lambda **_: itertools.repeat(0.001))
    monkeypatch.setattr(termination, "RETRY_DELAY_S", 0.001)
    return made


@pytest.fixture
def watched(tmp_path: Path) -> WatchedPool:
    return WatchedPool("pool", REGION, None, str(tmp_path / "aws.jsonl"), 0.001, 60.0)


def noted(watched: WatchedPool) -> list[str]:
    path = Path(watched.journal)
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []


def test_errors_of_any_kind_do_not_keep_it_from_clearing_the_pool(ec2: FakeEC2, watched: WatchedPool) -> None:
    ec2.machines = {each: Machine(each, ZONES[0], 0, ["sg-0"], TAGS) for each in ("i-0", "i-1")}
    ec2.groups, ec2.protected = {"sg-0": TAGS}, {"i-0"}
    for error in (Unanswered("no answer"), refusal("DescribeInstances", "ExpiredToken"), ValueError("odd")):
        ec2.fail("describe_instances", error)
    ec2.fail("describe_instances")
    ec2.fail("describe_instances", do=ec2.protected.clear)
    asyncio.run(watchdog._clear(watched))

    assert (ec2.alive, ec2.groups) == ([], {})
    assert noted(watched) == ["gone"]


def test_a_machine_that_is_listed_after_the_group_was_removed_is_terminated(ec2: FakeEC2, watched: WatchedPool) -> None:
    ec2.machines, ec2.unknown = {"i-0": Machine("i-0", ZONES[0], 0, [], TAGS)}, {"i-0"}
    ec2.groups = {"sg-0": TAGS}
    ec2.fail("describe_instances")
    ec2.fail("describe_instances", do=ec2.unknown.clear)
    asyncio.run(watchdog._clear(watched))

    assert (ec2.alive, ec2.groups) == ([], {})


def test_it_gives_up_when_the_machines_have_shut_themselves_down_anyway(ec2: FakeEC2, watched: WatchedPool) -> None:
    ec2.machines, ec2.protected = {"i-0": Machine("i-0", ZONES[0], 0, [], TAGS)}, {"i-0"}
    with pytest.raises(TimeoutError):
        asyncio.run(watchdog._clear(replace(watched, lifetime=0.05)))
    assert noted(watched) == []
