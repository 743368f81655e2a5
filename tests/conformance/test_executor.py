"""What holds for every kind of slot, on real nodes."""

import copy
import operator
import os
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import pytest

import skyward as sky
from skyward.remote import call_repr
from tests import work
from tests.kit import Bell


@pytest.fixture(scope="module", params=["process", "thread"])
def compute(request: pytest.FixtureRequest) -> Iterator[sky.Compute]:
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2, executor=request.param)) as compute:
        yield compute


def test_a_call_returns_its_value(compute: sky.Compute) -> None:
    assert compute.submit(work.square, 7).result(60) == 49


def test_a_call_runs_elsewhere(compute: sky.Compute) -> None:
    assert compute.submit(work.pid).result(60) != os.getpid()


def test_libraries_find_an_executor_and_its_size(compute: sky.Compute) -> None:
    assert isinstance(compute, futures.ProcessPoolExecutor)
    assert compute.size == compute._max_workers == compute.slots == 4
    assert not hasattr(compute, "_processes")  # a number in some pools, a dict in others


def test_the_size_of_a_pool_that_is_not_open_is_refused_as_its_slots_are() -> None:
    with pytest.raises(sky.NoCompute, match="not open"):
        _ = getattr(sky.Compute(), "size", None)


class Model:
    """An object as libraries have them: it keeps the pool that its method is sent to."""

    def __init__(self, pool: sky.Compute) -> None:
        self.pool, self.map = pool, pool.map

    def value(self, x: int) -> int:
        return x + 1

    def values(self, n: int) -> list[int]:
        return list(self.pool.map(self.value, range(n)))

    def size(self) -> int | None:
        return getattr(self.pool, "size", None)


def test_an_object_that_keeps_the_pool_can_be_sent_to_it(compute: sky.Compute) -> None:
    model = Model(compute)

    assert model.values(5) == [1, 2, 3, 4, 5]
    assert compute.submit(model.size).result(60) is None
    for method in ("pool.map", "map", "pool.submit"):
        with pytest.raises(sky.NoCompute, match="in the program that opened it"):
            compute.submit(operator.attrgetter(method), model).result(60)(abs, [1])


def test_a_task_that_uses_the_pool_that_came_with_it_is_refused(compute: sky.Compute) -> None:
    with pytest.raises(sky.NoCompute, match=r"^map: .*not in a task"):
        compute.submit(Model(compute).values, 5).result(60)


def test_a_copy_of_an_object_that_keeps_the_pool_keeps_it(compute: sky.Compute) -> None:
    assert copy.deepcopy(Model(compute)).pool is copy.copy(compute) is compute
    assert copy.deepcopy(Model(compute)).values(3) == [1, 2, 3]


def test_map_keeps_the_order(compute: sky.Compute) -> None:
    assert list(compute.map(work.square, range(50), chunksize=7)) == [x * x for x in range(50)]


def test_an_exception_comes_home_as_itself_with_the_remote_traceback(compute: sky.Compute) -> None:
    with pytest.raises(LookupError, match="not here") as raised:
        compute.submit(work.fail, "not here").result(60)
    assert isinstance(raised.value.__cause__, sky.RemoteTraceback)
    assert "in fail" in str(raised.value.__cause__)


def test_an_exception_with_a_constructor_of_its_own_comes_home(compute: sky.Compute) -> None:
    with pytest.raises(work.OddError) as raised:
        compute.submit(work.odd).result(60)
    assert (raised.value.code, raised.value.hint, str(raised.value)) == (5, "even", "odd 5")


def test_a_call_that_exits_raises_and_costs_nothing(compute: sky.Compute) -> None:
    with pytest.raises(sky.RemoteError, match=r"the task called sys\.exit\(4\)"):
        compute.submit(work.leave).result(60)
    assert compute.submit(work.square, 2).result(60) == 4


def test_a_closure_travels(compute: sky.Compute) -> None:
    offset = 10
    assert list(compute.map(lambda x: x + offset, range(3))) == [10, 11, 12]


def test_an_argument_that_cannot_travel_is_named_before_it_is_sent(compute: sky.Compute) -> None:
    with pytest.raises(sky.NotPortable, match="guard"):
        compute.submit(work.size, {"guard": threading.Lock()}).result()  # type: ignore[arg-type]


def test_a_result_that_cannot_travel_is_named(compute: sky.Compute) -> None:
    with pytest.raises(sky.NotPortable, match="guard"):
        compute.submit(work.lock).result(60)


def test_a_large_argument_and_a_large_result_travel(compute: sky.Compute) -> None:
    data = os.urandom(1 << 20) * 40
    assert compute.submit(work.size, data).result(60) == len(data)
    assert compute.submit(bytes, 40 << 20).result(60) == bytes(40 << 20)


def test_a_call_that_runs_too_long_is_stopped_and_its_slot_comes_back(compute: sky.Compute) -> None:
    slow = sky.remote(work.sleep).options(timeout=0.2, node=0)
    with pytest.raises(TimeoutError):
        _under(compute, slow, 30 if _kills(compute) else 1)
    assert [compute.submit(work.square, x).result(60) for x in range(8)] == [x * x for x in range(8)]


def test_a_map_that_takes_too_long_says_which_task_it_waited_for(compute: sky.Compute) -> None:
    with Bell() as bell, pytest.raises(TimeoutError) as raised:
        list(compute.map(work.ring, [bell.port], timeout=0.5))
    assert str(raised.value) == call_repr.late("map", 0.5, f"task 0, ring({bell.port})")


def _kills(compute: sky.Compute) -> bool:
    return compute._blueprint.worker.executor == "process"


def _under(compute: sky.Compute, function: object, *args: object) -> object:
    assert compute.slots == 4
    return function(*args)  # type: ignore[operator]


def test_a_cancelled_call_makes_room_for_the_next(compute: sky.Compute) -> None:
    running = [compute.submit(work.sleep, 600.0 if _kills(compute) else 1.0) for _ in range(20)]
    assert all(future.cancel() for future in running)
    assert futures.wait(running, timeout=60).not_done == set()
    assert compute.submit(work.square, 3).result(60) == 9


def test_slots_have_random_numbers_of_their_own(compute: sky.Compute) -> None:
    numbers = list(compute.map(_luck, range(40)))
    assert len(set(numbers)) == 40


def _luck(_: int) -> float:
    return work.luck()


def test_every_slot_knows_its_place(compute: sky.Compute) -> None:
    infos = compute.broadcast(sky.instance_info)
    assert [(info.node, info.nodes, info.slots, info.head) for info in infos] == [(0, 2, 2, True), (1, 2, 2, False)]


def test_what_a_task_prints_is_shown_here(compute: sky.Compute, capfd: pytest.CaptureFixture[str]) -> None:
    printed: list[str] = []
    compute.submit(work.say, "hello from a slot").result(60)
    while not any(" slot " in text and text.endswith("] hello from a slot\n") for text in printed):
        printed.append(capfd.readouterr().out)
        compute.submit(work.square, 1).result(60)


def test_a_dead_worker_is_replaced(compute: sky.Compute, tmp_path: Path) -> None:
    assert compute.submit(work.die_once, tmp_path / "mark").result(60) == "second attempt"
    assert sorted(compute.map(work.square, range(8))) == [x * x for x in range(8)]
