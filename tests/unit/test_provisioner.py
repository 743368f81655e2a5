"""What the provisioner does; what it decides is in `test_scaling.py`."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

import skyward as sky
from skyward.actors import lifecycle, provisioner, routing, scaling, supervisor
from skyward.actors.node_table import NodeTable
from skyward.actors.provisioner import Provisioner
from skyward.actors.router_state import RouterState
from skyward.actors.scaling import Closing, NodeDrained, NodeEnded, NodeReady, Noticed, Wanted
from skyward.providers.provider import Instance, LeftToLease
from tests.kit import HOUR


class Machines:
    """A provider that has these machines: one that is `stuck` cannot be terminated, one that is `silent` is left."""

    name = "machines"

    def __init__(self, *found: str) -> None:
        self.found, self.terminated = found, list[str]()

    async def find(self, pool: str) -> list[Instance]:
        return [Instance(name, pool, f"{pool}-0-0", "host") for name in self.found]

    async def terminate(self, instance: Instance) -> None:
        if instance.id == "stuck":
            raise OSError("no answer")
        if instance.id == "silent":
            raise LeftToLease("no answer")
        self.terminated.append(instance.id)

    async def clear(self, pool: str) -> list[str]:
        return [f"group of {pool}"]


class Status:
    """Hears how the pool ends."""

    def __init__(self) -> None:
        self.is_open, self.failure, self.leaked = False, list[BaseException](), list[tuple[str, ...]]()

    def open(self) -> None:
        self.is_open = True

    def fail(self, error: BaseException) -> None:
        self.failure.append(error)

    def close(self, leaked: tuple[str, ...]) -> None:
        self.leaked.append(leaked)


class Acting(Provisioner):
    """A provisioner of a pool that is not there."""

    def __init__(self, provider: Machines | None = None) -> None:
        self.routed: list[routing.RoutingEvent] = []
        self.supervised: list[tuple[int, int, supervisor.SupervisorMessage]] = []
        self.told: list[scaling.ScalingEvent] = []
        self.heard = Status()
        context: Any = SimpleNamespace(
            pool="pool",
            provider=provider or Machines(),
            spec=SimpleNamespace(options=sky.Options(launch_attempts=3), nodes=SimpleNamespace(elastic=True)),
            record=SimpleNamespace(put=lambda _: None),
        )
        super().__init__(
            context,
            NodeTable(),
            self.heard,  # type: ignore[arg-type]
            RouterState().load,
            route=self.routed.append,
            supervise=lambda *message: self.supervised.append(message),
            tell=self.told.append,
        )


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a provisioner whose pauses are long."""
    monkeypatch.setattr(scaling, "RESTART_DELAY_S", HOUR)
    monkeypatch.setattr(provisioner, "SCALING_INTERVAL_S", HOUR)
    return Acting


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


def test_nodes_are_started_drained_and_given_up_with_their_numbers(make: Any) -> None:
    async def main() -> None:
        acting = make()
        acting.handle(Wanted(1, 1, 2))
        assert acting.supervised == [(0, 0, supervisor.Begin())]
        assert acting.routed == [routing.NodeComing(0)]
        assert acting.nodes.numbers(ready=False) == [0]

        acting.handle(NodeReady(0, 0))
        assert acting.heard.is_open

        acting.handle(Noticed(0, 0))  # another one comes, and this one drains
        assert acting.nodes.numbers(ready=False) == [1]
        assert acting.routed[1:] == [routing.Drain(0), routing.NodeComing(1)]

        acting.handle(NodeDrained(0))
        assert acting.supervised[-1] == (0, 0, lifecycle.Dismissed())
        acting.close()

    asyncio.run(main())


def test_a_pool_that_cannot_open_fails_with_what_went_wrong_with_its_node(make: Any) -> None:
    async def main() -> None:
        acting, problem = make(), sky.Denied("no permission")
        acting.handle(Wanted(1, 1))
        acting.nodes.note_problem(0, problem)
        acting.handle(NodeEnded(0, 0, "Denied: no permission", final=True))
        assert acting.heard.failure == [problem]
        acting.close()

    asyncio.run(main())


def test_the_sweep_terminates_what_is_left_and_names_what_cannot_be(make: Any) -> None:
    provider = Machines("one", "stuck", "silent")

    async def main() -> Any:
        acting = make(provider)
        await acting.sweep()
        acting.close()
        return acting

    acting = asyncio.run(main())

    assert provider.terminated == ["one"]
    assert acting.nodes.left().keys() == {"silent"}
    assert acting.told == [scaling.Swept(("stuck", "group of pool"), asked=True)]
