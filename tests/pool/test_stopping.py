"""A call that must not go on: whether it waits, runs, or is one of many, it ends, and its slot comes back."""

import asyncio
from collections.abc import Iterator
from concurrent import futures

import pytest

import skyward as sky
from skyward.view.progress import Progress
from tests import work
from tests.kit import SOON, Bell, Line, until

ring = sky.remote(work.ring)
square = sky.remote(work.square)


@pytest.fixture(scope="module")
def compute() -> Iterator[sky.Compute]:
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2)) as pool:
        yield pool


def held(compute: sky.Compute) -> int:
    """Return how many calls the nodes have, as the record tells."""
    progress = Progress()
    progress.add([*compute.events()])
    return sum(node.held for node in progress.nodes.values())


# ---------------------------------------------------------------- cancelled


def test_a_running_call_that_is_cancelled_is_killed_and_its_slot_comes_back(compute: sky.Compute, bell: Bell) -> None:
    future = ring.remote(bell.port)
    line = bell.answer()

    assert future.cancel()
    assert future.cancelled()
    assert line.hears_the_end()
    with pytest.raises(futures.CancelledError):
        future.result(SOON)
    assert bell.is_heard_from_all_slots(compute)


def test_a_waiting_call_that_is_cancelled_never_starts(compute: sky.Compute, bell: Bell) -> None:
    blocking = [ring.remote(bell.port) for _ in range(compute.slots)]
    lines = [bell.answer() for _ in blocking]
    queued = [ring.remote(bell.port) for _ in range(12)]

    assert all(future.cancel() for future in queued)
    assert not futures.wait(queued, SOON).not_done
    until(lambda: held(compute) == compute.slots)  # or a slot that gets free may begin one before its node hears of it
    for line in lines:
        line.release()
    assert list(square.map(range(12))) == [x * x for x in range(12)]
    assert bell.is_silent()


def test_a_call_that_has_ended_cannot_be_cancelled(compute: sky.Compute) -> None:
    future = square.remote(3)
    future.result(SOON)

    assert not future.cancel()
    assert future.result() == 9


def test_cancelling_twice_is_cancelling_once(compute: sky.Compute, bell: Bell) -> None:
    future = ring.remote(bell.port)
    line = bell.answer()

    assert future.cancel()
    assert future.cancel()
    assert line.hears_the_end()
    assert square(2) == 4


def test_an_await_that_is_cancelled_stops_the_call(compute: sky.Compute, bell: Bell) -> None:
    async def main() -> Line:
        task = asyncio.ensure_future(ring.remote(bell.port))
        line = await asyncio.to_thread(bell.answer)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return line

    assert asyncio.run(main()).hears_the_end()


# ---------------------------------------------------------------- out of time


def test_a_call_past_its_timeout_is_killed_and_its_slot_comes_back(compute: sky.Compute, bell: Bell) -> None:
    future = ring.options(timeout=2.0).remote(bell.port)
    line = bell.answer()

    with pytest.raises(TimeoutError, match="more than 2 s on slot"):
        future.result(SOON)
    assert line.hears_the_end()
    assert bell.is_heard_from_all_slots(compute)


def test_a_timeout_counts_from_the_start_on_a_slot(compute: sky.Compute, bell: Bell) -> None:
    blocking = [ring.remote(bell.port) for _ in range(compute.slots)]
    lines = [bell.answer() for _ in blocking]
    queued = square.options(timeout=SOON).remote(4)
    with pytest.raises(TimeoutError):
        queued.result(0.05)
    for line in lines:
        line.release()

    assert queued.result(SOON) == 16


def test_map_past_its_timeout_stops_the_rest(compute: sky.Compute, bell: Bell) -> None:
    results = compute.map(ring, [bell.port] * 10, timeout=3.0)
    lines = [bell.answer() for _ in range(compute.slots)]

    with pytest.raises(TimeoutError):
        next(results)
    assert all(line.hears_the_end() for line in lines)
    assert bell.is_heard_from_all_slots(compute)


def test_a_map_that_nobody_reads_any_more_is_stopped(compute: sky.Compute, bell: Bell) -> None:
    results = compute.map(lambda port: ring(port) if port else b"the first", [0] + [bell.port] * 10)
    lines = [bell.answer() for _ in range(compute.slots)]
    assert next(results) == b"the first"
    del results

    assert all(line.hears_the_end() for line in lines)
    assert bell.is_heard_from_all_slots(compute)
