"""Large buffers under stress and without resources: each answer is right, or an error of that call; no node is lost."""

import contextlib
import gc
import os
import resource
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import skyward as sky
from skyward.actors import node_client
from skyward.events import RunEnded
from skyward.remote.protocol import Batch
from skyward.telemetry.run_counts import RunCounts
from tests import kit, work
from tests.kit import Apart

PROVIDERS = [pytest.param(sky.Local, id="shared memory"), pytest.param(Apart, id="chunks")]

SIZE = 200_000
"""Items of a float array of 1.6 MB."""


@pytest.fixture(params=PROVIDERS)
def compute(request: pytest.FixtureRequest) -> Iterator[sky.Compute]:
    with sky.Compute(provider=request.param(), nodes=1, worker=sky.Worker(concurrency=1)) as compute:
        yield compute


# ---------------------------------------------------------------- stress


def arrays(value: int, size: int) -> tuple[Any, Any]:
    return np.full(size, float(value)), np.full(size, float(2 * value))


def tables(value: int, size: int) -> tuple[Any, Any]:
    arrow: Any = import_module("pyarrow")
    first, second = arrays(value, size)
    return arrow.table({"x": first}), arrow.table({"x": second})


LENGTHS = [pytest.param(2.0, id="short"), pytest.param(120.0, id="long", marks=pytest.mark.long)]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize("make", [arrays, tables])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_threads_that_pass_equal_arrays_get_right_answers_and_lose_no_node(
    provider: type[sky.Local], make: Callable[[int, int], tuple[Any, Any]], seconds: float
) -> None:
    if make is tables:
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    with sky.Compute(provider=provider(), nodes=2, worker=sky.Worker(concurrency=2)) as compute:
        before = [node.instance for node in compute.nodes]

        def call(thread: int) -> Generator[str]:
            random = np.random.default_rng(thread)
            with compute.task_group() as group:
                submit = group.submit if thread % 2 else compute.submit
                while True:
                    value, size = int(random.integers(3)), SIZE + int(random.integers(2))
                    found = submit(work.totals, *make(value, size)).result(60)
                    right = found == (value * size, 2 * value * size)
                    yield "" if right else f"{found} for {value} * {size}"
                    if not random.integers(10):
                        gc.collect()

        wrong, answers = kit.repeated(8, seconds, call)
        assert not wrong
        assert min(answers) > 0
        assert [node.instance for node in compute.nodes] == before
        assert compute.report().retries == {}


# ---------------------------------------------------------------- an array that changes between calls


@pytest.mark.parametrize("provider", PROVIDERS)
def test_calls_of_a_group_see_an_array_as_it_is_when_they_are_made(provider: type[sky.Local]) -> None:
    with (
        sky.Compute(provider=provider(), nodes=1, worker=sky.Worker(concurrency=2)) as compute,
        compute.task_group() as group,
    ):
        array = np.zeros(SIZE)
        places = [0, 1, 777, SIZE // 2 + 1, SIZE - 1]
        futures = []
        for place in places:
            array[place] = 1.0
            futures.append(group.submit(work.totals, array))

        assert [future.result(kit.SOON) for future in futures] == [(float(n),) for n in range(1, len(places) + 1)]


# ---------------------------------------------------------------- blobs that cannot be opened or kept


def test_a_buffer_that_is_gone_costs_one_retry_and_no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    make, spoiled = node_client._batch, list[int]()

    def spoil(number: int, *args: Any, **kwargs: Any) -> Batch:
        batch = make(number, *args, **kwargs)
        if batch.places and not spoiled:
            spoiled.append(number)
            return replace(batch, places=tuple(replace(place, tag="0" * 32) for place in batch.places))
        return batch

    monkeypatch.setattr(node_client, "_batch", spoil)
    with sky.Compute(nodes=1, worker=sky.Worker(concurrency=1)) as compute:
        before = compute.nodes
        assert compute.submit(work.totals, np.ones(SIZE)).result(kit.SOON) == (float(SIZE),)
        ((cause, times),) = compute.report().retries.items()

        assert (len(spoiled), times) == (1, 1)
        assert "another file is in its place" in cause
        assert compute.nodes == before


def test_a_slot_without_descriptors_fails_calls_with_large_arguments_only(compute: sky.Compute) -> None:
    before = compute.nodes
    assert compute.submit(work.totals, np.zeros(SIZE)).result(kit.SOON) == (0.0,)  # it has imported NumPy
    assert compute.submit(work.limit_files, 3).result(kit.SOON) is None
    with pytest.raises(sky.BatchLost, match=r"cannot be opened: Too many open files.*ulimit -n"):
        compute.submit(work.totals, np.ones(SIZE)).result(kit.SOON)
    with pytest.raises(OSError, match=r"the result, of 3,\d{3},\d{3} bytes, cannot leave its slot: Too many open"):
        compute.submit(bytes, 3 << 20).result(kit.SOON)
    assert compute.submit(work.square, 3).result(kit.SOON) == 9
    compute.submit(work.limit_files, 200).result(kit.SOON)

    assert compute.submit(work.totals, np.ones(SIZE)).result(kit.SOON) == (float(SIZE),)
    assert compute.nodes == before


def test_a_node_without_descriptors_fails_calls_with_large_results_only(compute: sky.Compute) -> None:
    before = compute.nodes
    assert len(compute.submit(bytes, 2 << 20).result(kit.SOON)) == 2 << 20
    with limited(kit.host(before[0]), resource.RLIMIT_NOFILE, 3):
        with pytest.raises(sky.BatchLost, match=r"its result was lost: .* cannot be opened: Too many open files"):
            compute.submit(bytes, 2 << 20).result(kit.SOON)
        assert compute.submit(work.square, 3).result(kit.SOON) == 9

    assert len(compute.submit(bytes, 2 << 20).result(kit.SOON)) == 2 << 20
    assert compute.nodes == before


def test_a_driver_without_descriptors_fails_calls_with_large_results_and_sends_arguments_in_the_message() -> None:
    with sky.Compute(nodes=1, worker=sky.Worker(concurrency=1)) as compute:
        before = compute.nodes
        array = np.ones(SIZE)
        with limited(os.getpid(), resource.RLIMIT_NOFILE, 3):
            assert compute.submit(work.totals, array).result(kit.SOON) == (float(SIZE),)
            with pytest.raises(sky.BatchLost, match=r"its result was lost on node 0: .*Too many open files"):
                compute.submit(bytes, 2 << 20).result(kit.SOON)

        assert len(compute.submit(bytes, 2 << 20).result(kit.SOON)) == 2 << 20
        assert compute.nodes == before

    counts = RunCounts()
    for event in compute.events():
        if not isinstance(event, RunEnded):
            counts.add(event)
    report = compute.report()
    assert (counts.calls, counts.lost, counts.retries) == (2, 1, report.retries)
    assert (report.calls, report.lost_calls, report.late) == (2, 1, 0)


def test_a_node_that_cannot_keep_a_large_argument_fails_the_call_only() -> None:
    with sky.Compute(provider=Apart(), nodes=1, worker=sky.Worker(concurrency=1)) as compute:
        before = compute.nodes
        with limited(kit.host(before[0]), resource.RLIMIT_FSIZE, 1 << 20):
            with pytest.raises(sky.BatchLost, match="node 0: it cannot keep a large buffer of 3,200,000 bytes: File"):
                compute.submit(work.totals, np.ones(2 * SIZE)).result(kit.SOON)
            assert compute.submit(work.square, 3).result(kit.SOON) == 9

        assert compute.submit(work.totals, np.ones(2 * SIZE)).result(kit.SOON) == (2.0 * SIZE,)
        assert compute.nodes == before


@contextlib.contextmanager
def limited(pid: int, limit: int, value: int) -> Iterator[None]:
    """Give a process of this user less of something."""
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (value, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, limit, before)
