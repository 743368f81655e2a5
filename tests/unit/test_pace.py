"""Nodes far away and nodes of different speed, by a simulated clock: slots do not starve, and the tail stays short."""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest

from skyward.actors import routing
from skyward.actors.placement import REBALANCE_INTERVAL_S
from skyward.actors.router_state import RouterState


@dataclass
class Far:
    """A node whose batches take `seconds` each, behind a link: one assignment and one poll at a time, as in a pool."""

    slots: int
    seconds: float
    queue: deque[int] = field(default_factory=deque)
    free: int = 0
    ready: list[int] = field(default_factory=list)
    orders: deque[routing.AssignBatches | routing.RevokeBatches] = field(default_factory=deque)
    sending: bool = False
    polled: bool = True


class World:
    """A router and its nodes, with a clock that jumps to the next thing that happens."""

    def __init__(self, nodes: list[Far], round_trip: float, window: int | None = None) -> None:
        self.now, self.numbers, self.agenda = 0.0, count(), list[tuple[float, int, Callable[[], None]]]()
        self.routing, self.nodes, self.trip = RouterState(), nodes, round_trip
        self.left, self.window, self.batches, self.ran = 0, window, count(), 0
        for number, node in enumerate(nodes):
            node.free = node.slots
            self.tell(routing.NodeUp(number, node.slots, round_trip))

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (self.now + seconds, next(self.numbers), what))

    def run(self, batches: int) -> float:
        """Run so many batches, of which the caller has at most `window` under way; return how long that took."""
        self.left, self.ran = batches, 0
        self.submit(min(batches, self.window or batches))
        while self.agenda:
            self.now, _, what = heapq.heappop(self.agenda)
            what()
            if self.ran == batches:
                return self.now
        raise AssertionError("they wait for each other")

    def submit(self, many: int) -> None:
        many = min(many, self.left)
        self.left -= many
        if many:
            self.tell(routing.Submitted(tuple(next(self.batches) for _ in range(many)), 1))

    def tell(self, event: routing.RoutingEvent) -> None:
        for effect in routing.step(self.routing, event):
            match effect:
                case routing.AssignBatches(number) | routing.RevokeBatches(number):
                    self.nodes[number].orders.append(effect)
                    self.send(number)
                case routing.Complete(batches):
                    self.ran += len(batches)
                    self.submit(len(batches))
                case routing.ScheduleRebalance():
                    self.later(REBALANCE_INTERVAL_S, lambda: self.tell(routing.RebalanceTick()))
                case routing.DiscardLate() | routing.Fail():
                    raise AssertionError(effect)

    def send(self, number: int) -> None:
        node = self.nodes[number]
        if node.sending or not node.orders:
            return
        node.sending = True
        order = node.orders.popleft()
        self.later(self.trip / 2, lambda: self.obey(number, order))

    def obey(self, number: int, order: routing.AssignBatches | routing.RevokeBatches) -> None:
        node = self.nodes[number]
        back: tuple[int, ...] = ()
        if isinstance(order, routing.AssignBatches):
            node.queue.extend(order.batches)
            self.start(number)
        else:
            back = tuple(batch for batch in order.batches if batch in node.queue)
            for batch in back:
                node.queue.remove(batch)
        self.later(self.trip / 2, lambda: self.obeyed(number, order, back))

    def obeyed(self, number: int, order: routing.AssignBatches | routing.RevokeBatches, back: tuple[int, ...]) -> None:
        self.nodes[number].sending = False
        if isinstance(order, routing.RevokeBatches):
            self.tell(routing.GaveBack(number, order.batches, back))
        self.send(number)

    def start(self, number: int) -> None:
        node = self.nodes[number]
        while node.free and node.queue:
            node.free -= 1
            batch = node.queue.popleft()
            self.later(node.seconds, lambda batch=batch: self.end(number, batch))  # type: ignore[misc]

    def end(self, number: int, batch: int) -> None:
        node = self.nodes[number]
        node.free += 1
        node.ready.append(batch)
        self.start(number)
        self.answer(number)

    def answer(self, number: int) -> None:
        node = self.nodes[number]
        if node.polled and node.ready:
            done, node.ready, node.polled = tuple(node.ready), [], False
            self.later(self.trip / 2, lambda: self.hear(number, done))

    def hear(self, number: int, done: tuple[int, ...]) -> None:
        self.later(self.trip / 2, lambda: self.poll(number))
        self.tell(routing.Answered(number, done, seconds=self.nodes[number].seconds))

    def poll(self, number: int) -> None:
        self.nodes[number].polled = True
        self.answer(number)


@pytest.mark.parametrize(
    ("seconds", "round_trip", "share"),
    [(5.0, 0.08, 0.98), (0.5, 0.08, 0.9), (0.05, 0.08, 0.9), (0.05, 0.3, 0.8), (0.05, 0.001, 0.98), (0.5, 0.3, 0.9)],
)
def test_slots_behind_a_long_way_do_not_starve(seconds: float, round_trip: float, share: float) -> None:
    batches = 2000 if seconds >= 0.5 else 20_000
    took = World([Far(10, seconds) for _ in range(10)], round_trip).run(batches)
    assert batches * seconds / 100 / took >= share


@pytest.mark.parametrize(("seconds", "share"), [(5.0, 0.98), (0.5, 0.9)])
def test_slots_behind_a_long_way_do_not_starve_where_the_caller_gives_two_batches_a_slot(
    seconds: float, share: float
) -> None:
    took = World([Far(10, seconds) for _ in range(10)], 0.08, window=200).run(2000)
    assert 2000 * seconds / 100 / took >= share


@pytest.mark.parametrize(
    ("seconds", "round_trip", "window"),
    [
        (0.05, 0.001, None),
        (0.05, 0.001, 60),
        (0.05, 0.08, None),  # with two batches a slot, the slots starve: the next test
        (0.5, 0.08, None),
        (0.5, 0.08, 60),
        (5.0, 0.08, None),
        (5.0, 0.08, 60),
    ],
)
@pytest.mark.parametrize("batches", [100, 333, 1000])
def test_with_a_node_four_times_as_slow_a_run_ends_within_one_task_of_the_ideal(
    round_trip: float, seconds: float, window: int | None, batches: int
) -> None:
    speeds = [1.0, 1.0, 4.0]
    took = World([Far(10, seconds * speed) for speed in speeds], round_trip, window).run(batches)
    ideal = batches * seconds / sum(10 / speed for speed in speeds)
    assert took <= ideal + 4 * seconds + 3 * round_trip


@pytest.mark.parametrize("round_trip", [0.001, 0.08])
@pytest.mark.parametrize("seconds", [0.5, 5.0])
@pytest.mark.parametrize("window", [None, 60])
def test_a_slow_node_gives_up_in_time_what_it_would_not_end_in_time(
    round_trip: float, seconds: float, window: int | None
) -> None:
    took = World([Far(10, seconds), Far(10, seconds), Far(10, 4 * seconds)], round_trip, window).run(1000)
    assert took <= 1000 * seconds / 22.5 + seconds


def test_a_batch_behind_one_that_takes_very_long_is_moved_though_the_other_node_is_slow() -> None:
    stuck, slow = Far(1, 0.01), Far(1, 0.04)
    world = World([stuck, slow], 0.001)
    world.run(20)
    stuck.seconds, begun = 60.0, world.now
    assert world.run(3) - begun < 62.0
    assert slow.free
