"""`sky.ls()` and `sky.down()` with an EC2 in memory."""

from pathlib import Path

import pytest

import skyward as sky
from skyward.providers.aws import inventory, termination
from skyward.providers.aws.journal import Journal
from tests.ec2 import REGION, ZONES, FakeEC2, Machine, refusal

OVERDUE = "2020-01-01T00:00:00+00:00"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "RETRY_DELAY_S", 0.001)
    monkeypatch.setattr(termination, "LISTED_AFTER_S", 0.001)
    monkeypatch.setattr("skyward.providers.aws.journal.usual", lambda: Journal(tmp_path / "aws.jsonl"))


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> FakeEC2:
    """Two machines and a security group of pool `one`, which runs, and the same of pool `two`, which is overdue."""
    made = FakeEC2()
    for number, (pool, until) in enumerate({"one": "2100-01-01T00:00:00+00:00", "two": OVERDUE}.items()):
        tags = {"skyward:pool": pool, "skyward:nodes": "0-0 1-0", "skyward:until": until, "skyward:lease": "300"}
        made.groups[f"sg-{number}"] = tags
        for index in range(2):
            name = f"i-{number}{index}"
            made.machines[name] = Machine(name, ZONES[0], index, [f"sg-{number}"], tags)
    monkeypatch.setattr(inventory, "Api", lambda *_: made)
    return made


def test_pools_are_listed_with_their_machines_and_groups(ec2: FakeEC2) -> None:
    one, two = sky.ls(prices=False)

    assert (one.name, one.region, one.stale, one.groups) == ("one", REGION, False, ("sg-0",))
    assert [(each.id, each.node, each.lease) for each in one.machines] == [
        ("i-00", "one-0-0", 300.0),
        ("i-01", "one-1-0", 300.0),
    ]
    assert (two.name, two.stale, two.hourly) == ("two", True, None)


def test_a_pool_is_terminated_by_its_name_with_its_group(ec2: FakeEC2, tmp_path: Path) -> None:
    assert [each.name for each in sky.down("one")] == ["one"]
    assert (ec2.alive, list(ec2.groups)) == (["i-10", "i-11"], ["sg-1"])
    assert [(line["event"], line["pool"]) for line in Journal(tmp_path / "aws.jsonl").lines()] == [("gone", "one")]
    with pytest.raises(sky.InvalidArgument, match=f"^there is no pool 'one' in {REGION}; found: two$"):
        sky.down("one")


def test_stale_pools_or_all_are_terminated_only_if_that_is_said(ec2: FakeEC2) -> None:
    wrong: list[tuple[tuple[str, ...], bool, bool]] = [((), False, False), (("one",), True, False), ((), True, True)]
    for names, stale, everything in wrong:
        with pytest.raises(sky.InvalidArgument, match=r"^name the pools to terminate, or pass stale=True or all=True$"):
            sky.down(*names, stale=stale, all=everything)
    with pytest.raises(sky.InvalidArgument, match="there is no pool 'three'"):
        sky.down("one", "three")
    assert ec2.alive == ["i-00", "i-01", "i-10", "i-11"]

    assert [each.name for each in sky.down(stale=True)] == ["two"]
    assert ec2.alive == ["i-00", "i-01"]
    assert [each.name for each in sky.down(all=True)] == ["one"]
    assert ec2.alive == []


def test_what_may_not_be_terminated_is_named_when_all_else_is(ec2: FakeEC2) -> None:
    ec2.protected = {"i-01"}
    with pytest.raises(sky.Leaked) as raised:
        inventory.end(sky.ls(prices=False))

    told = "ec2:TerminateInstances: OperationNotPermitted: because"
    assert str(raised.value) == f"these could not be terminated: one in {REGION}: i-01: {told}"
    assert raised.value.instances == ("i-01",)
    assert (ec2.alive, list(ec2.groups)) == (["i-01"], ["sg-0"])


def test_what_is_still_in_use_when_the_time_is_up_is_named(ec2: FakeEC2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "GROUP_REMOVAL_TIMEOUT_S", -1.0)
    with pytest.raises(sky.Leaked, match=r"one in .*: i-00, i-01, sg-0: it is still shutting down, or in use by what"):
        sky.down("one")


def test_a_pool_that_cannot_be_listed_again_is_named_as_a_whole(ec2: FakeEC2) -> None:
    pools = sky.ls(prices=False)
    ec2.fail("describe_instances", refusal("DescribeInstances", "UnauthorizedOperation"))
    with pytest.raises(sky.Leaked, match="your credentials do not allow ec2:DescribeInstances") as raised:
        inventory.end(pools[:1])
    assert raised.value.instances == ("i-00", "i-01", "sg-0")


def test_a_region_that_cannot_be_searched_is_no_success(
    ec2: FakeEC2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Elsewhere(FakeEC2):
        async def region(self) -> str:
            return "eu-west-3"

    far = Elsewhere()
    (tmp_path / "aws.jsonl").write_text('{"event": "run_instances", "pool": "far", "region": "eu-west-3"}\n')
    monkeypatch.setattr(inventory, "Api", lambda region, _: far if region == "eu-west-3" else ec2)
    for _ in range(2):
        far.fail("describe_instances", refusal("DescribeInstances", "OptInRequired"))

    assert [each.name for each in sky.ls(prices=False)] == ["one", "two"]
    assert "eu-west-3 could not be searched: the credentials are not accepted: OptInRequired" in caplog.text
    with pytest.raises(sky.Leaked, match="could not be searched: eu-west-3: the credentials are not accepted"):
        sky.down(stale=True)
    assert ec2.alive == ["i-00", "i-01"]  # all the same
