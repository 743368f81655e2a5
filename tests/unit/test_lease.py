"""When a node ends itself."""

import pytest

from skyward.remote.node.lease import (
    DriverGone,
    Elapsed,
    End,
    Event,
    FolderGone,
    Heard,
    HostGone,
    Leash,
    Told,
    Wait,
    step,
)

HELD = Leash(lease=10, first_contact=60, began=100)


def test_a_node_waits_for_the_first_contact() -> None:
    assert step(HELD, Elapsed(159)) == (HELD, Wait(160))


def test_a_node_never_contacted_ends() -> None:
    assert step(HELD, Elapsed(160))[1] == End("the driver never made contact")


def test_a_word_from_the_driver_renews_the_lease() -> None:
    leash, decision = step(HELD, Heard(150))
    assert leash.heard == 150
    assert decision == Wait(160)


def test_a_node_whose_lease_has_run_out_ends() -> None:
    leash, _ = step(HELD, Heard(150))
    assert step(leash, Elapsed(160))[1] == End("the driver was not heard from any more")


@pytest.mark.parametrize("event", [DriverGone(), HostGone(), FolderGone(), Told()])
def test_some_news_end_a_node_at_once(event: Event) -> None:
    leash, decision = step(HELD, event)
    assert leash is HELD
    assert isinstance(decision, End)
