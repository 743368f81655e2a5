"""What a call on a pool does, on real nodes. What runs there rings at the test, so that nobody sleeps."""

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import skyward as sky
from tests import work
from tests.kit import SOON, Bell

# ---------------------------------------------------------------- what runs on the slots


@sky.remote
def square(x: int) -> int:
    return x * x


@sky.remote
def where() -> sky.InstanceInfo:
    return sky.instance_info()


@sky.remote
def factorial(n: int) -> tuple[int, set[int]]:
    """`n!`, and the processes that had a part in it."""
    if n == 0:
        return 1, {os.getpid()}
    value, seen = factorial(n - 1)
    return n * value, seen | {os.getpid()}


ring = sky.remote(work.ring)


_lock = threading.Lock()
_seen: list[int] = []


@sky.remote
def remember(x: int) -> tuple[int, list[int]]:
    """Keep `x` in this module, under its lock."""
    with _lock:
        _seen.append(x)
        return os.getpid(), _seen


@sky.remote
def crash(record: Path, times: int) -> str:
    """Take the process down, the first `times` times."""
    with record.open("a") as file:
        file.write("x")
    if record.stat().st_size <= times:
        os._exit(3)
    return record.read_text()


@sky.remote
def fail(record: Path) -> None:
    with record.open("a") as file:
        file.write("x")
    raise LookupError


class Scale:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    @sky.remote
    def times(self, x: int) -> tuple[int, int]:
        return self.factor * x, os.getpid()


# ---------------------------------------------------------------- what the tests hold


@pytest.fixture(scope="module")
def compute() -> Iterator[sky.Compute]:
    image = sky.Image(preload=[__name__])
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2), image=image) as pool:
        yield pool


# ---------------------------------------------------------------- one call


def test_a_future_says_where_its_call_ran_and_for_how_long(compute: sky.Compute) -> None:
    future = where.remote()
    info = future.result(SOON)

    assert isinstance(future, futures.Future)
    assert (future.node, future.slot) == (info.node, info.slot)
    assert future.duration is not None
    assert 0 <= future.duration < SOON


def test_keywords_and_defaults_travel(compute: sky.Compute) -> None:
    assert compute.submit(sorted, [3, 1, 2], reverse=True).result(SOON) == [3, 2, 1]


def test_a_method_runs_on_a_slot_with_its_object(compute: sky.Compute) -> None:
    value, ran = Scale(3).times(4)

    assert value == 12
    assert ran != os.getpid()
    assert Scale(3).times.remote(5).result(SOON)[0] == 15
    assert [value for value, _ in Scale(2).times.map(range(3))] == [0, 2, 4]


def test_a_remote_function_of_a_module_is_that_of_the_module_on_its_slot(compute: sky.Compute) -> None:
    calls = [remember(x) for x in range(10)]

    for process, seen in dict(calls).items():
        assert seen == [x for x, (ran, _) in enumerate(calls) if ran == process]


def test_an_argument_that_cannot_travel_is_named_and_not_the_module_of_the_function(compute: sky.Compute) -> None:
    with pytest.raises(sky.NotPortable) as caught:
        remember(threading.Lock())  # type: ignore[arg-type]

    assert caught.value.path == "args[0]"


def test_a_remote_function_called_in_a_task_runs_right_there(compute: sky.Compute) -> None:
    value, processes = factorial(10)

    assert value == 3_628_800
    assert len(processes) == 1
    assert os.getpid() not in processes


def test_two_threads_with_a_block_each_stay_in_their_own(compute: sky.Compute) -> None:
    both_are_open = threading.Barrier(2, timeout=SOON)

    def run(name: str) -> list[str | None]:
        with sky.Compute(worker=sky.Worker(concurrency=1), image=sky.Image(env={"POOL": name})):
            both_are_open.wait()
            seen = [sky.remote(os.getenv)("POOL") for _ in range(3)]
            both_are_open.wait()
            return seen

    with futures.ThreadPoolExecutor(2) as threads:
        assert list(threads.map(run, ["one", "two"])) == [["one"] * 3, ["two"] * 3]


def test_a_call_that_raised_is_not_tried_again(compute: sky.Compute, tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        fail(tmp_path / "record")

    assert (tmp_path / "record").read_text() == "x"


# ---------------------------------------------------------------- terms


def test_options_leave_the_function_as_it_was_and_add_up(compute: sky.Compute) -> None:
    bound = where.options(node=1)

    assert bound.options(timeout=SOON)().node == bound().node == 1
    assert {where.options(node=0)().node, where.options(node=1)().node} == {0, 1}


def test_terms_may_stand_at_the_decorator(compute: sky.Compute) -> None:
    @sky.remote(node=1, timeout=SOON)
    def here() -> int:
        return sky.instance_info().node

    assert here() == 1
    assert list(here.map()) == []
    assert here.options(node=0)() == 0


@pytest.mark.kill
def test_a_call_whose_process_dies_is_tried_again(compute: sky.Compute, tmp_path: Path) -> None:
    assert crash(tmp_path / "record", 2) == "xxx"


@pytest.mark.kill
def test_three_deaths_are_enough_and_their_causes_come_home(compute: sky.Compute, bell: Bell, tmp_path: Path) -> None:
    with pytest.raises(sky.BatchLost, match=r"attempt 3: .*exit code 3") as caught:
        crash(tmp_path / "record", 99)

    assert len(caught.value.causes) == 3
    assert (tmp_path / "record").read_text() == "xxx"
    assert bell.is_heard_from_all_slots(compute)


@pytest.mark.kill
def test_without_retries_one_death_is_enough(compute: sky.Compute, tmp_path: Path) -> None:
    with pytest.raises(sky.BatchLost) as caught:
        crash.options(retries=0)(tmp_path / "record", 99)

    assert len(caught.value.causes) == 1
    assert (tmp_path / "record").read_text() == "x"


# ---------------------------------------------------------------- many calls


def test_map_keeps_the_order_whatever_the_size_of_its_chunks(compute: sky.Compute) -> None:
    expected = [x * x for x in range(25)]

    assert list(square.map(range(25))) == expected
    assert list(square.map(range(25), chunksize=7)) == expected
    assert list(compute.map(pow, range(25), [2] * 25, chunksize=100)) == expected


def test_map_ends_with_the_shortest_of_its_iterables(compute: sky.Compute) -> None:
    assert list(compute.map(pow, [1, 2, 3], iter([2, 2]))) == [1, 4]
    assert list(compute.map(square, [])) == []


def test_map_refuses_chunks_of_nothing(compute: sky.Compute) -> None:
    with pytest.raises(sky.InvalidArgument, match="chunksize=0: must be at least 1"):
        compute.map(square, range(3), chunksize=0)


def test_map_yields_what_is_there_and_raises_where_a_call_raised(compute: sky.Compute) -> None:
    results = compute.map(divmod, [7, 8, 9], [2, 0, 2])

    assert next(results) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_a_broadcast_runs_once_on_every_node_at_once(compute: sky.Compute, bell: Bell) -> None:
    with futures.ThreadPoolExecutor(1) as aside:
        result = aside.submit(compute.broadcast, lambda port: (sky.instance_info().node, ring(port)), bell.port)
        for line in [bell.answer() for _ in compute.nodes]:
            line.release()

        assert result.result(SOON) == [(0, b"on"), (1, b"on")]


def test_a_broadcast_does_not_wait_for_the_others_where_one_has_failed(compute: sky.Compute, bell: Bell) -> None:
    with pytest.raises(LookupError, match="node 1"):
        compute.broadcast(work.ring_but_on_node_1, bell.port)


def test_a_broadcast_raises_what_a_call_raised(compute: sky.Compute) -> None:
    with pytest.raises(ZeroDivisionError):
        compute.broadcast(lambda: 1 // sky.instance_info().node)


def test_shards_of_all_nodes_are_the_data(compute: sky.Compute) -> None:
    numbers = list(range(7))
    first, second = compute.broadcast(sky.shard, numbers)

    assert first + second == numbers
    assert abs(len(first) - len(second)) <= 1
    assert compute.broadcast(sky.shard, "abcd") == ["ab", "cd"]
    assert np.concatenate(compute.broadcast(sky.shard, np.arange(10))).tolist() == list(range(10))


# ---------------------------------------------------------------- standard futures


def test_as_completed_yields_the_quick_before_the_slow(compute: sky.Compute, bell: Bell) -> None:
    slow = ring.remote(bell.port)
    line = bell.answer()
    quick = square.remote(2)
    both: list[futures.Future[Any]] = [slow, quick]
    order = futures.as_completed(both, SOON)

    assert next(order) is quick
    line.release()
    assert next(order) is slow


def test_a_callback_runs_when_the_call_has_ended(compute: sky.Compute) -> None:
    called: futures.Future[int] = futures.Future()
    square.remote(5).add_done_callback(lambda future: called.set_result(future.result()))

    assert called.result(SOON) == 25


def test_an_awaited_call_that_raises_raises_there(compute: sky.Compute) -> None:
    async def main() -> None:
        await compute.submit(divmod, 1, 0)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
