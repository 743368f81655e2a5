"""Large arguments reach each node once and its slots without a copy; large results come home in pieces."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest
from joblib import Parallel, delayed

import skyward as sky
from skyward.actors.blob_transfer import BlobTransfer
from skyward.remote.blobs import Blob
from tests import kit, work
from tests.forward import Links
from tests.kit import Apart, Bell

MEGABYTE = 1 << 17
"""Items of a float array of 1 MiB."""

PROVIDERS = [sky.Local, Apart]


def held(pid: int | str) -> int:
    """How many blobs a process holds."""
    places = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            places.append(os.readlink(fd).partition("memfd:skyward-")[2].split(" ")[0])
    return sum(place not in ("", "cert", "key", "ca") for place in places)


def pool(request: pytest.FixtureRequest) -> Iterator[sky.Compute]:
    with sky.Compute(provider=request.param(), nodes=2, worker=sky.Worker(concurrency=2)) as compute:
        yield compute


IDS = ["shared memory", "chunks"]
compute = pytest.fixture(pool, scope="module", params=PROVIDERS, ids=IDS, name="compute")
new_compute = pytest.fixture(pool, params=PROVIDERS, ids=IDS, name="new_compute")
"""One that has been sent nothing yet, where it counts what nodes have."""


def test_an_array_that_many_calls_share_reaches_each_node_once(
    new_compute: sky.Compute, puts: list[tuple[str, int]], request: pytest.FixtureRequest
) -> None:
    array = np.arange(3 * MEGABYTE, dtype="f8")
    with new_compute.task_group() as group:
        futures = [group.submit(work.item, array, number) for number in range(40)]
        assert [future.result(kit.SOON) for future in futures] == [(float(number), False) for number in range(40)]
    again = list(new_compute.map(work.item, [array.copy() for _ in range(4)], range(4)))

    assert again == [(float(number), False) for number in range(4)]
    assert len({name for name, _ in puts}) == (1 if "chunks" in request.node.name else 0)
    assert len(puts) <= 2


def test_the_report_tells_what_nodes_share_and_what_large_results_brought(new_compute: sky.Compute) -> None:
    array = np.arange(3 * MEGABYTE, dtype="f8")
    with new_compute.task_group() as group:
        wait([group.submit(work.item, array, number) for number in range(40)], kit.SOON)
    before = new_compute.report()
    assert [node.shared for node in before.nodes.values()] == [array.nbytes] * 2
    assert before.sent < array.nbytes
    new_compute.submit(bytes, 7 << 20).result(kit.SOON)
    assert (7 << 20) <= new_compute.report().received - before.received < (7 << 20) + 1000


def test_the_report_counts_an_array_again_when_the_next_group_gives_it_to_nodes_again(
    compute: sky.Compute, request: pytest.FixtureRequest
) -> None:
    """Nodes elsewhere keep it; those on this machine map a copy that each group makes, and that is gone after it."""
    array, kept = np.arange(3 * MEGABYTE, dtype="f8"), "chunks" in request.node.name
    for times in (1, 1 if kept else 2):
        with compute.task_group() as group:
            wait([group.submit(work.item, array, number) for number in range(40)], kit.SOON)
        assert [node.shared for node in compute.report().nodes.values()] == [times * array.nbytes] * 2
    given = f"{times * array.nbytes / 1e6:.1f} MB per node, {2 * times * array.nbytes / 1e6:.1f} MB on 2 nodes"
    assert f"Shared: {given}" in compute.report().explain().splitlines()


def test_an_array_that_many_tasks_share_is_nearly_all_that_crosses_the_links() -> None:
    array = np.random.default_rng(0).random(8 * MEGABYTE)
    with (
        Links() as links,
        sky.Compute(provider=links.provider, nodes=2, worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]),
    ):
        found = Parallel(n_jobs=-1, batch_size=1)(delayed(work.item)(array, number) for number in range(40))
        passed = sum(link.passed["there"] for link in links.latest.values())

    assert found == [(array[number], False) for number in range(40)]
    assert 2 * array.nbytes < passed < 2 * array.nbytes * 1.02


def test_a_small_array_is_the_calls_own(compute: sky.Compute) -> None:
    assert compute.submit(work.item, np.arange(10.0), 3).result(kit.SOON) == (3.0, True)


def test_large_bytes_and_long_lists_arrive_whole(compute: sky.Compute) -> None:
    assert compute.submit(len, os.urandom(5 << 20)).result(kit.SOON) == 5 << 20
    assert compute.submit(sum, list(range(500_000))).result(kit.SOON) == sum(range(500_000))


def test_several_large_arguments_find_their_places(compute: sky.Compute) -> None:
    first, second, third = (np.full(2 * MEGABYTE, value) for value in (1.0, 2.0, 3.0))
    order = compute.submit(work.firsts, {"a": [first, second]}, third, first, b"x" * (2 << 20)).result(kit.SOON)

    assert order == [1.0, 2.0, 3.0, 1.0, 2 << 20]


def test_a_large_result_comes_home_and_can_be_written(compute: sky.Compute) -> None:
    first, text, second = compute.submit(work.large, 3 * MEGABYTE).result(kit.SOON)
    first[0] = 5.0

    assert (first[:2].tolist(), text, second[-1], second.shape) == ([5.0, 1.0], "between", -7, (3 * MEGABYTE,))


def test_large_bytes_come_home(compute: sky.Compute) -> None:
    assert compute.submit(bytes, 7 << 20).result(kit.SOON) == bytes(7 << 20)


def test_a_large_exception_comes_home(compute: sky.Compute) -> None:
    error = compute.submit(work.fail, "x" * (2 << 20)).exception(kit.SOON)

    assert isinstance(error, LookupError)
    assert len(error.args[0]) == 2 << 20


def test_a_result_larger_than_a_message_just_comes_home() -> None:
    with sky.Compute() as compute:
        assert compute.submit(np.zeros, (1100 << 20) // 8).result(50).nbytes == 1100 << 20


def test_what_was_fetched_is_let_go_by_the_node_and_what_was_used_by_the_driver(new_compute: sky.Compute) -> None:
    hosts = [kit.host(node) for node in new_compute.nodes]
    for _ in range(3):
        results = list(new_compute.map(work.large, [MEGABYTE] * 4))
        del results
    first = new_compute.submit(work.item, np.zeros(MEGABYTE), 1)
    first.result(kit.SOON)
    del first
    deadline = time.monotonic() + kit.SOON
    while sum(map(held, hosts)) > 2 or held("self"):  # an argument stays with each node that had it
        new_compute.submit(work.square, 1).result(kit.SOON)
        assert time.monotonic() < deadline


def test_a_store_makes_room_for_what_comes_next() -> None:
    options = sky.Options(blob_store=5 << 20)
    with sky.Compute(provider=Apart(), worker=sky.Worker(concurrency=1), options=options) as compute:
        host = kit.host(compute.nodes[0])
        for value in range(5):
            array = np.full(2 * MEGABYTE, float(value))
            assert compute.submit(work.item, array, 1).result(kit.SOON) == (float(value), False)
            assert held(host) <= 2


def test_nothing_is_set_aside_where_the_options_say_so(puts: list[tuple[str, int]]) -> None:
    with sky.Compute(provider=Apart(), options=sky.Options(blob_threshold=None)) as compute:
        assert compute.submit(work.item, np.zeros(2 * MEGABYTE), 1).result(kit.SOON) == (0.0, True)
    assert puts == []


def test_a_call_that_is_cancelled_while_its_argument_travels_never_starts(
    bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, gate = threading.Event(), threading.Event()
    put = BlobTransfer.put

    async def slow(bulk: BlobTransfer, blob: Blob) -> None:
        arrived.set()
        await asyncio.to_thread(gate.wait, kit.SOON)
        await put(bulk, blob)

    monkeypatch.setattr(BlobTransfer, "put", slow)
    with sky.Compute(provider=Apart(), worker=sky.Worker(concurrency=1)) as compute:
        futures = [compute.submit(work.ring_with, bell.port, np.full(MEGABYTE, value)) for value in range(2)]
        assert arrived.wait(kit.SOON)
        for future in futures:
            future.cancel()
        assert compute.submit(work.square, 3).result(kit.SOON) == 9
        gate.set()
        assert compute.submit(work.item, np.zeros(MEGABYTE), 3).result(kit.SOON) == (0.0, False)
        assert bell.is_silent()


@pytest.mark.kill
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_node_that_dies_with_what_it_was_sent_loses_nothing(provider: type[sky.Local], bell: Bell) -> None:
    array = np.arange(2 * MEGABYTE, dtype="f8")
    with (
        sky.Compute(provider=provider(), nodes=2, worker=sky.Worker(concurrency=2)) as compute,
        compute.task_group() as group,
    ):
        first = compute.nodes[0]
        rings = [group.submit(work.ring_with, bell.port, array) for _ in range(4)]
        futures = [group.submit(work.item, array, number) for number in range(60)]
        lines = [bell.answer() for _ in rings]  # each slot runs one
        kit.kill(kit.host(first))
        for line in lines:
            with contextlib.suppress(OSError):  # it was on that node
                line.release()
        for _ in range(2):
            bell.answer().release()
        assert [future.result(kit.SOON) for future in rings] == [b"on"] * 4
        assert [future.result(kit.SOON) for future in futures] == [(float(number), False) for number in range(60)]
        assert all(node.instance != first.instance for node in compute.nodes)
