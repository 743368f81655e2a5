"""What a supervisor does for its machine; what it decides is in `test_lifecycle`."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

import skyward as sky
from skyward.actors import lifecycle, routing, scaling
from skyward.actors.lifecycle import Failed, Launched, Terminated, TerminateFailed
from skyward.actors.node_table import NodeTable
from skyward.actors.supervisor import Begin, Supervisor, SupervisorMessage
from skyward.providers.provider import Instance, LeftToLease, Order


class Machines:
    """A provider that launches one machine, or raises; and terminates what it finds, or raises."""

    name, bare = "machines", False

    def __init__(self, *, launch: Exception | None = None, terminate: Sequence[Exception | None] = ()) -> None:
        self.launching, self.terminating = launch, list(terminate)
        self.orders: list[Order] = []
        self.terminated: list[str] = []
        self.found = [Instance("other", "pool", "pool-2-0", "host"), Instance("late", "pool", "pool-1-0", "host")]

    async def launch(self, order: Order) -> Instance:
        self.orders.append(order)
        if self.launching is not None:
            raise self.launching
        return Instance("i-1", order.pool, order.node, "host", hourly=0.5)

    async def find(self, pool: str) -> list[Instance]:
        return self.found

    async def terminate(self, instance: Instance) -> None:
        if self.terminating and (error := self.terminating.pop(0)) is not None:
            raise error
        self.terminated.append(instance.id)


class Held:
    """A host or a client that notes when it is closed; closing it may fail."""

    def __init__(self, name: str, closed: list[str], error: Exception | None = None, *, tethered: bool = True) -> None:
        self.name, self.closed, self.error, self.tethered = name, closed, error, tethered

    async def close(self) -> None:
        self.closed.append(self.name)
        if self.error is not None:
            raise self.error


class Budget:
    """Notes which machines cost something."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float | None]] = []
        self.ended: list[str] = []

    def begin(self, machine: str, hourly: float | None) -> None:
        self.begun.append((machine, hourly))

    def end(self, machine: str) -> None:
        self.ended.append(machine)


class Acting(Supervisor):
    """The supervisor of node 1 of a pool that is not there; it hears nothing of what it tells itself."""

    def __init__(self, provider: Machines) -> None:
        self.routed: list[routing.RoutingEvent] = []
        self.reported: list[scaling.ScalingEvent] = []
        self.told: list[SupervisorMessage] = []
        self.events: list[object] = []
        self.spent = Budget()
        context: Any = SimpleNamespace(
            pool="pool",
            provider=provider,
            spec=SimpleNamespace(options=sky.Options()),
            record=SimpleNamespace(put=self.events.append),
        )
        unused: Any = None
        super().__init__(
            context,
            unused,
            NodeTable(),
            self.spent,  # type: ignore[arg-type]
            unused,
            number=1,
            generation=0,
            route=self.routed.append,
            report=self.reported.append,
            tell=self.told.append,
        )


def after(work: Callable[[Acting], Any], provider: Machines | None = None) -> Acting:
    """A supervisor that has done this."""

    async def main() -> Acting:
        acting = Acting(provider or Machines())
        await work(acting)
        return acting

    return asyncio.run(main())


def test_work_that_is_cancelled_before_it_begins_is_never_made() -> None:
    def reach() -> NoReturn:
        raise AssertionError("a coroutine made here would never be awaited")

    async def cancel_at_once(acting: Acting) -> None:
        acting.do("reach", reach)
        (task,) = acting.tasks
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    after(cancel_at_once)


async def begin(acting: Acting) -> None:
    """Begin, until the launch has been answered."""
    acting.hear(Begin())
    await asyncio.wait(acting.tasks)
    for timer in acting.timers:
        timer.cancel()


def test_a_machine_is_ordered_by_the_name_of_its_node_and_costs_something_from_then_on() -> None:
    provider = Machines()
    acting = after(begin, provider)

    (order,) = provider.orders
    assert (order.pool, order.node, order.lease) == ("pool", "pool-1-0", sky.Options().lease)
    assert acting.told == [Launched()]
    assert acting.spent.begun == [("i-1", 0.5)]


@pytest.mark.parametrize(
    ("error", "final"),
    [(sky.Denied("no permission"), True), (sky.NoCapacity("full"), False), (OSError("no route"), False)],
)
def test_a_launch_that_fails_says_why_and_whether_another_would_fail_as_well(error: Exception, final: bool) -> None:
    acting = after(begin, Machines(launch=error))

    (failed,) = acting.told
    assert isinstance(failed, Failed)
    assert (failed.step, failed.final) == ("launch", final)
    problem = acting.nodes.error(1, "it failed")
    assert error in (problem, problem.__cause__)


def test_a_launch_is_wanted_until_the_node_is_dismissed() -> None:
    async def dismiss(acting: Acting) -> None:
        await begin(acting)
        assert acting.is_wanted()
        acting.hear(lifecycle.Dismissed())
        assert not acting.is_wanted()

    after(dismiss)


def test_a_node_and_its_machine_are_let_go_of_and_the_machine_is_terminated() -> None:
    provider, closed = Machines(), list[str]()

    async def terminate(acting: Acting) -> None:
        await begin(acting)
        acting.host, acting.link = Held("host", closed), Held("client", closed, OSError("cut"))  # type: ignore[assignment]
        await acting.terminate(1)

    acting = after(terminate, provider)

    assert closed == ["host", "client"]
    assert provider.terminated == acting.spent.ended == ["i-1"]
    assert acting.told == [Launched(), Terminated()]


def test_a_machine_that_is_held_by_its_host_is_let_go_of_last() -> None:
    closed = list[str]()

    class Closing(Machines):
        async def terminate(self, instance: Instance) -> None:
            closed.append("machine")

    async def terminate(acting: Acting) -> None:
        await begin(acting)
        acting.host = Held("host", closed, tethered=False)  # type: ignore[assignment]
        acting.link = Held("client", closed)  # type: ignore[assignment]
        await acting.terminate(1)

    after(terminate, Closing())

    assert closed == ["client", "machine", "host"]


def test_after_a_launch_that_never_answered_what_carries_the_name_of_the_node_is_terminated() -> None:
    provider = Machines()
    acting = after(lambda acting: acting.terminate(1), provider)

    assert provider.terminated == acting.spent.ended == ["late"]
    assert acting.told == [Terminated()]


def test_a_machine_that_cannot_be_terminated_is_an_event_and_costs_something_still() -> None:
    acting = after(lambda acting: acting.terminate(1), Machines(terminate=[OSError("no route")]))

    assert acting.told == [TerminateFailed("OSError: no route")]
    assert acting.spent.ended == []


def test_a_machine_that_does_not_answer_is_left_to_its_lease() -> None:
    acting = after(lambda acting: acting.terminate(1), Machines(terminate=[LeftToLease("no answer")]))

    assert acting.told == [Terminated()]
    assert acting.nodes.left().keys() == {"pool-1-0"}


@pytest.mark.parametrize(("error", "leaked"), [(None, ""), (OSError("no route"), "pool-1-0")])
def test_a_supervisor_that_has_failed_terminates_its_machine_all_the_same(error: Exception | None, leaked: str) -> None:
    acting = after(lambda acting: acting.give_up(), Machines(terminate=[error]))

    assert acting.reported == [scaling.NodeEnded(1, 0, "its supervisor failed", leaked)]


def test_a_notice_is_passed_on_once() -> None:
    async def notice(acting: Acting) -> None:
        acting.note_notice("terminate")
        acting.note_notice("terminate")

    acting = after(notice)

    assert acting.reported == [scaling.Noticed(1, 0)]
    assert len(acting.events) == 1
