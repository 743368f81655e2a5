"""When a node ends itself."""

import pytest

from skyward.remote.node.lease import (
    ActorsGone,
    DriverGone,
    Elapsed,
    EndNode,
    FolderGone,
    Lease,
    LeaseEvent,
    Renewed,
    StopRequested,
    Wait,
    step,
)

HELD = Lease(duration=10, first_contact=60, began=100)


def test_a_node_waits_for_the_first_contact() -> None:
    assert step(HELD, Elapsed(159)) == (HELD, Wait(160))


def test_a_node_never_contacted_ends() -> None:
    assert step(HELD, Elapsed(160))[1] == EndNode("the driver never made contact")


def test_a_word_from_the_driver_renews_the_lease() -> None:
    lease, decision = step(HELD, Renewed(150))
    assert lease.renewed == 150
    assert decision == Wait(160)


def test_a_node_whose_lease_has_run_out_ends() -> None:
    lease, _ = step(HELD, Renewed(150))
    assert step(lease, Elapsed(160))[1] == EndNode("the driver was not heard from any more")


@pytest.mark.parametrize("event", [DriverGone(), ActorsGone(), FolderGone(), StopRequested()])
def test_some_news_end_a_node_at_once(event: LeaseEvent) -> None:
    lease, decision = step(HELD, event)
    assert lease is HELD
    assert isinstance(decision, EndNode)
