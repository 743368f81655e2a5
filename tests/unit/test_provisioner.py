"""The timers of the provisioner. What it decides is in `test_scaling.py`, what it does in `tests/actors`."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from skyward.actors import provisioner, router, scaling, supervisor
from skyward.actors.office import Office
from skyward.actors.scaling import Closing, NodeDrained, NodeEnded, NodeReady, Noticed, Wanted
from tests.kit import HOUR


class Quiet:
    """Takes what it is told."""

    def tell(self, message: object) -> None:
        """Ignore it."""


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a provisioner of a pool that is not there, whose pauses are long."""
    options = SimpleNamespace(launch_attempts=3)
    office = SimpleNamespace(
        blueprint=SimpleNamespace(options=options, nodes=SimpleNamespace(elastic=True)),
        numbers=set(),
        nodes={},
        opened=SimpleNamespace(done=lambda: True),
        closed=SimpleNamespace(done=lambda: True),
        record=SimpleNamespace(put=lambda _: None),
    )
    monkeypatch.setattr(Office, "of", lambda _: office)
    monkeypatch.setattr(supervisor, "ref", lambda *_: Quiet())
    monkeypatch.setattr(router, "ref", lambda *_: Quiet())
    monkeypatch.setattr(scaling, "RESTART_DELAY_S", HOUR)
    monkeypatch.setattr(provisioner, "SCALING_INTERVAL_S", HOUR)
    context: Any = SimpleNamespace(system=None, self=Quiet())
    return lambda: provisioner._Provisioner(context)


LOST_TWICE = Wanted(2, 1), NodeReady(0, 0), NodeReady(1, 0), NodeEnded(0, 0, "x"), NodeReady(0, 1), NodeEnded(0, 1, "x")
FAILED_TWICE = *LOST_TWICE[:3], Noticed(1, 0), NodeEnded(0, 0, "x"), NodeEnded(0, 1, "x"), NodeEnded(0, 2, "x")


@pytest.mark.parametrize(
    ("events", "last"),
    [(LOST_TWICE, Closing()), (FAILED_TWICE, NodeEnded(1, 0, "it has left"))],
    ids=["the pool closes", "the node is started before"],
)
def test_a_pause_ends_with_its_reason(make: Any, events: Any, last: Any) -> None:
    async def main() -> None:
        acting = make()
        for event in events:
            acting.handle(event)
        (timer,) = acting.pauses.values()
        acting.handle(NodeDrained(5))
        assert not timer.cancelled()
        acting.handle(last)
        assert timer.cancelled()
        assert acting.pauses == {}

    asyncio.run(main())


def test_a_provisioner_that_ends_leaves_no_timer(make: Any) -> None:
    async def main() -> None:
        acting = make()
        for event in LOST_TWICE:
            acting.handle(event)
        timers = [*acting.pauses.values(), acting.looking]
        assert len(timers) == 2
        acting.close()
        assert all(timer.cancelled() for timer in timers)

    asyncio.run(main())
