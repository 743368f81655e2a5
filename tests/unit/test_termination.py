"""How machines are terminated and security groups removed, whoever asks for it, with an EC2 in memory."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest

import skyward as sky
from skyward.providers.aws import staleness, termination
from skyward.providers.aws.api import Unanswered
from skyward.providers.aws.termination import NotTerminated, Terminator
from tests.ec2 import ZONES, FakeEC2, Machine, refusal

TAGS = {"skyward:pool": "pool", "skyward:nodes": "0-0"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "RETRY_DELAY_S", 0.001)


@pytest.fixture
def ec2() -> FakeEC2:
    """Three machines of a pool that use its security group."""
    made = FakeEC2()
    made.machines = {each: Machine(each, ZONES[0], 0, ["sg-0"], TAGS) for each in ("i-0", "i-1", "i-2")}
    made.groups = {"sg-0": TAGS}
    return made


def run[T](work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def called(ec2: FakeEC2) -> list[list[str]]:
    return [each["InstanceIds"] for each in ec2.asked("terminate_instances")]


def test_machines_are_terminated_by_one_call(ec2: FakeEC2) -> None:
    assert run(Terminator(ec2).terminate_all(["i-0", "i-2"])) == {}
    assert (ec2.alive, called(ec2)) == (["i-1"], [["i-0", "i-2"]])


def test_no_call_has_more_machines_than_ec2_takes(ec2: FakeEC2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "MAX_IDS_PER_CALL", 2)
    assert run(Terminator(ec2).terminate_all(["i-0", "i-1", "i-2"])) == {}
    assert called(ec2) == [["i-0", "i-1"], ["i-2"]]


def test_a_refusal_of_one_machine_keeps_no_other(ec2: FakeEC2) -> None:
    ec2.protected = {"i-0"}
    failed = run(Terminator(ec2).terminate_all(["i-0", "i-1", "i-2"]))

    assert list(failed) == ["i-0"]
    assert ec2.alive == ["i-0"]
    assert called(ec2) == [["i-0", "i-1", "i-2"], ["i-0"], ["i-1"], ["i-2"]]


@pytest.mark.parametrize(
    "error", [refusal("TerminateInstances", "AuthFailure"), Unanswered("no answer")], ids=["refused", "unanswered"]
)
def test_an_error_that_concerns_every_machine_is_not_tried_for_each(ec2: FakeEC2, error: Exception) -> None:
    ec2.fail("terminate_instances", error)
    assert run(Terminator(ec2).terminate_all(["i-0", "i-1"])) == {"i-0": error, "i-1": error}
    assert len(called(ec2)) == 1


def test_a_machine_that_ec2_does_not_know_is_gone_unless_it_is_new(ec2: FakeEC2) -> None:
    ec2.unknown = {"i-1"}
    assert run(Terminator(ec2).terminate_all(["i-0", "i-1"])) == {}
    assert called(ec2) == [["i-0", "i-1"], ["i-0"], ["i-1"]]

    ec2.fail("terminate_instances")
    ec2.fail("terminate_instances", do=ec2.unknown.clear)
    run(Terminator(ec2).terminate("i-1", lambda: True))
    assert ec2.alive == ["i-2"]


def test_a_machine_that_goes_on_running_is_an_error(ec2: FakeEC2, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"TerminatingInstances": [{"InstanceId": "i-0", "CurrentState": {"Name": "running"}}]}
    monkeypatch.setattr(ec2, "_terminate_instances", lambda **_: answer)
    with pytest.raises(sky.ProvisioningError, match="it is running, and not shutting down"):
        run(Terminator(ec2).terminate("i-0"))


def test_a_group_is_removed_once_no_machine_uses_it(ec2: FakeEC2) -> None:
    async def scenario() -> None:
        terminator = Terminator(ec2)
        assert not await terminator.remove_group("sg-0")
        assert await terminator.terminate_all(["i-0", "i-1", "i-2"]) == {}
        assert not await terminator.remove_group("sg-0")
        assert await terminator.remove_group("sg-0")
        assert await terminator.remove_group("sg-0")  # it is gone
        ec2.fail("delete_security_group", error := refusal("DeleteSecurityGroup", "UnauthorizedOperation"))
        with pytest.raises(type(error)):
            await terminator.remove_group("sg-0")

    run(scenario())


def test_a_sweep_says_what_it_found(ec2: FakeEC2) -> None:
    async def scenario() -> None:
        terminator = Terminator(ec2)
        first = await terminator.sweep("pool")
        assert (first.terminated, first.removed, first.in_use) == (["i-0", "i-1", "i-2"], [], ["sg-0"])
        assert first.left == ["i-0", "i-1", "i-2", "sg-0"]
        second = await terminator.sweep("pool")
        assert (second.left, second.removed) == ([], ["sg-0"])
        assert (await terminator.sweep("another")).left == []

    run(scenario())


def test_a_sweep_tries_all_and_groups_the_reasons(ec2: FakeEC2) -> None:
    ec2.protected = {"i-0", "i-2", "sg-0"}
    with pytest.raises(NotTerminated) as raised:
        run(Terminator(ec2).sweep("pool"))

    assert list(raised.value.errors) == ["i-0", "i-2", "sg-0"]
    assert str(raised.value).startswith("i-0, i-2: ec2:TerminateInstances: OperationNotPermitted: because; sg-0: your ")
    assert ec2.alive == ["i-0", "i-2"]


# ---------------------------------------------------------------- until nothing is left


def test_the_removal_of_the_group_proves_that_nothing_is_left(ec2: FakeEC2) -> None:
    run(Terminator(ec2).clear("pool", 60.0, 60.0))
    assert (ec2.alive, ec2.groups) == ([], {})
    assert len(ec2.asked("describe_instances")) == 2


def test_a_second_sweep_may_be_asked_for_all_the_same(ec2: FakeEC2) -> None:
    run(Terminator(ec2).clear("pool", 60.0, 0.001, always_twice=True))
    assert len(ec2.asked("describe_instances")) == 3


def test_a_machine_that_is_not_listed_holds_its_group_until_it_is(ec2: FakeEC2) -> None:
    ec2.unknown = {"i-0", "i-1", "i-2"}
    for _ in range(2):
        ec2.fail("describe_instances")
    ec2.fail("describe_instances", do=ec2.unknown.clear)
    run(Terminator(ec2).clear("pool", 60.0, 0.001))
    assert (ec2.alive, ec2.groups) == ([], {})


@pytest.mark.parametrize(("settle", "sweeps"), [(0.0, 1), (0.001, 2)])
def test_without_a_group_it_takes_two_empty_sweeps_unless_nothing_is_new(
    ec2: FakeEC2, settle: float, sweeps: int
) -> None:
    ec2.machines, ec2.groups = {}, {}
    run(Terminator(ec2).clear("pool", 60.0, settle))
    assert len(ec2.asked("describe_instances")) == sweeps


def test_a_machine_that_is_listed_late_begins_the_count_anew(ec2: FakeEC2) -> None:
    ec2.groups = {}
    ec2.unknown = {"i-0", "i-1", "i-2"}
    ec2.fail("describe_instances")
    ec2.fail("describe_instances", do=ec2.unknown.clear)
    run(Terminator(ec2).clear("pool", 60.0, 0.001))
    assert ec2.alive == []
    assert len(ec2.asked("describe_instances")) == 4


def test_what_is_left_when_the_time_is_up_is_named(ec2: FakeEC2) -> None:
    with pytest.raises(NotTerminated, match="i-0, i-1, i-2, sg-0: it is still shutting down, or in use by what is"):
        run(Terminator(ec2).clear("pool", -1.0, 0.0))


# ---------------------------------------------------------------- groups that were left behind


def test_groups_of_processes_that_have_ended_are_removed(ec2: FakeEC2) -> None:
    pid, gone = os.getpid(), 1 << 22  # above the largest pid
    mine = staleness.owner()
    ec2.machines = {}
    ec2.groups = {
        "sg-mine": {"skyward:pool": "a", staleness.BY: mine},
        "sg-gone": {"skyward:pool": "b", staleness.BY: mine.replace(f":{pid}:", f":{gone}:")},
        "sg-held": {"skyward:pool": "c", staleness.BY: mine.replace(f":{pid}:", f":{gone}:")},
        "sg-else": {"skyward:pool": "d", staleness.BY: "elsewhere:7:"},
    }
    ec2.protected = {"sg-held"}
    run(Terminator(ec2).remove_orphaned_groups())
    assert list(ec2.groups) == ["sg-mine", "sg-held", "sg-else"]
