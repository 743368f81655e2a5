"""What a pool reports of its work, in mid-run and after it has ended."""

import importlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import astuple
from pathlib import Path

import pytest
from joblib import Parallel, delayed

import skyward as sky
from skyward.actors.call_table import CallTable
from skyward.events import BatchesEnded, BatchesLate, BatchRetried, Reported, RunEnded
from skyward.providers.provider import Instance, LeftToLease
from skyward.remote.call_options import CallOptions
from skyward.telemetry.report import without_slot
from skyward.view.progress import Progress
from skyward.view.timeline import Timeline
from tests import kit, work
from tests.kit import Bell

RING = """
import os, socket
if os.getpid() != {pid}:
    with socket.create_connection(("127.0.0.1", {port})) as line:
        line.sendall(b"%d" % os.getpid())
        line.recv(100)

def double(x):
    return 2 * x
"""
"""A module that waits, when a node imports it, until a test goes on."""

numbers = itertools.count()


@pytest.fixture
def compute() -> Iterator[sky.Compute]:
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]) as compute:
        yield compute


def test_it_counts_the_tasks_of_batches_and_chunks(compute: sky.Compute) -> None:
    Parallel(n_jobs=-1, batch_size=4)(delayed(work.square)(number) for number in range(20))
    list(compute.map(work.square, range(7), chunksize=3))
    compute.submit(work.square, 2).result(60)
    told = compute.report()
    assert (told.tasks, told.late) == (28, 0)
    assert told.calls == told.attempts == sum(node.calls for node in told.nodes.values()) < 28


def test_it_adds_up_and_outlives_the_block() -> None:
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2)) as compute:
        list(compute.map(work.sleep, [0.05] * 40))
        during = compute.report()
    after = compute.report()
    assert after == during
    assert after.work == pytest.approx(after.busy)
    assert after.work >= 40 * 0.05
    assert after.efficiency + sum(astuple(after.lost)) == pytest.approx(1.0)
    assert all(len(node.busy) == 2 and min(node.busy) > 0 for node in after.nodes.values())


def test_bytes_are_those_of_arguments_and_results(compute: sky.Compute) -> None:
    compute.submit(len, b"x" * 100_000).result(60)
    compute.submit(bytes, 50_000).result(60)
    told = compute.report()
    assert 100_000 < told.sent < 102_000
    assert 50_000 < told.received < 52_000


def test_in_mid_run_what_runs_is_not_lost(compute: sky.Compute, bell: Bell) -> None:
    waiting = [compute.submit(work.ring, bell.port) for _ in range(4)]
    lines = [bell.answer() for _ in waiting]
    before = compute.report()
    futures.wait(waiting, 0.5)
    told = compute.report()
    assert told.work - before.work == pytest.approx(4 * (told.total - before.total))
    for line in lines:
        line.release()
    futures.wait(waiting, 10)
    assert compute.report().calls == 4


def test_a_retry_is_told_with_its_reason(compute: sky.Compute, tmp_path: Path) -> None:
    compute.submit(work.die_once, tmp_path / "mark").result(60)
    told = compute.report()
    assert (told.calls, told.attempts) == (1, 2)
    [(reason, count)] = told.retries.items()
    assert count == 1
    assert "SIGSEGV" in reason


def test_what_was_lost_and_what_was_cancelled_is_counted(compute: sky.Compute, bell: Bell) -> None:
    with pytest.raises(sky.BatchLost):
        compute.submit_under(CallOptions(retries=0), work.die, (), {}).result(60)
    future = compute.submit(work.ring, bell.port)
    line = bell.answer()
    future.cancel()
    assert line.hears_the_end()
    assert (compute.report().lost_calls, compute.report().cancelled) == (1, 1)


def test_report_console_and_page_agree(compute: sky.Compute, tmp_path: Path) -> None:
    Parallel(n_jobs=-1, batch_size=2)(delayed(work.square)(number) for number in range(9))
    compute.submit(work.die_once, tmp_path / "mark").result(60)
    with pytest.raises(ZeroDivisionError):
        compute.submit(divmod, 1, 0).result(60)
    with pytest.raises(TimeoutError):
        compute.submit_under(CallOptions(timeout=0.1), work.sleep, (60,), {}).result(60)
    with pytest.raises(sky.BatchLost):
        compute.submit_under(CallOptions(retries=0), work.die, (), {}).result(60)
    with pytest.raises(ZeroDivisionError):
        list(compute.map(divmod, [1] * 9, [0] * 9, chunksize=3))
    compute.shutdown()

    report, progress, timeline = compute.report(), Progress(), Timeline()
    events = [event for event in compute.events() if not isinstance(event, RunEnded | Reported)]
    progress.add(events)
    timeline.add(events)
    assert (report.raised >= 3, report.lost_calls, sum(report.retries.values())) == (True, 1, 1)
    counts = progress.counts
    assert (counts.tasks, counts.calls, counts.raised) == (report.tasks, report.calls, report.raised)
    assert (counts.lost, counts.retries) == (1, report.retries)
    nodes = {number: (node.calls, round(sum(node.busy), 3)) for number, node in report.nodes.items()}
    page, figures = timeline.head(), dict(report.figures())
    assert {node["node"]: (node["calls"], node["ran"]) for node in page["nodes"]} == nodes
    assert [dict(page["numbers"])[each] for each in ("Tasks", "Raised", "Lost", "Effective workers")] == [
        figures[each] for each in ("Tasks", "Raised", "Lost", "Effective workers")
    ]
    [event] = [event for event in compute.events() if isinstance(event, BatchRetried)]
    assert event.call.startswith("die_once (call ")
    assert event.node in (0, 1)
    assert report.retried == {without_slot(event.cause): (event.call,)}


@pytest.mark.parametrize("size", [1, 2 << 20], ids=["small", "large"])
def test_what_was_answered_and_is_cancelled_before_it_is_settled_is_counted_off(
    compute: sky.Compute, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    settle = CallTable.settle

    def settle_cancelled(calls: CallTable, numbers: Sequence[int]) -> None:
        assert calls.forget(numbers) == tuple(numbers)
        settle(calls, numbers)

    with monkeypatch.context() as patch, compute.task_group(holds=lambda _: 3) as group:
        patch.setattr(CallTable, "settle", settle_cancelled)
        future = group.submit(bytes, size)
        kit.until(lambda: any(isinstance(event, BatchesLate) for event in compute.events()))
        future.cancel()
    compute.shutdown()

    report, progress = compute.report(), Progress()
    progress.add([event for event in compute.events() if not isinstance(event, RunEnded)])
    assert (progress.done, report.tasks, report.late) == (0, 0, 1)


def test_calls_are_told_by_function_and_task(compute: sky.Compute) -> None:
    Parallel(n_jobs=2, batch_size=1)(delayed(work.square)(number) for number in range(3))
    list(compute.map(work.square, range(4), chunksize=2))
    compute.submit(work.square, 2).result(60)
    ended = [event for event in compute.events() if isinstance(event, BatchesEnded)]
    assert {name for event in ended for name in event.functions} == {"square"}
    assert sorted(first for event in ended for first in event.firsts) == [-1, 0, 0, 1, 2, 2]


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bell: Bell) -> Callable[[str], str]:
    """Writes a module that takes its time to import, below a folder, and returns its name."""

    def write(folder: str = "own") -> str:
        name = f"slow_{next(numbers)}"
        place = tmp_path / folder
        place.mkdir()
        (place / f"{name}.py").write_text(RING.format(pid=os.getpid(), port=bell.port))
        monkeypatch.syspath_prepend(place)
        return name

    return write


def imported_late(name: str, x: int) -> object:
    return importlib.import_module(name).double(x)


def held_up(bell: Bell, waiting: list[sky.Future[object]], imports: int) -> float:
    """Let so many imports go on after a while, and return the seconds that each of them took at least."""
    lines = [bell.answer() for _ in range(imports)]
    began = time.perf_counter()
    futures.wait(waiting, 0.5)
    took = time.perf_counter() - began
    for line in lines:
        line.release()
    assert [future.result(60) for future in waiting] == [2 * number for number in range(len(waiting))]
    return took


def is_told(told: sky.Report, name: str, slots: int, took: float) -> None:
    """See that so many slots each spent at least so long on the import, and that this counts as that and no more."""
    assert slots * took <= told.imports[name] <= told.lost.opening * told.capacity
    assert told.work <= told.capacity - slots * took
    assert told.work == pytest.approx(told.busy)
    assert told.efficiency + sum(astuple(told.lost)) == pytest.approx(1.0)


@pytest.mark.parametrize("late", [False, True], ids=["to open the call", "in the function"])
def test_the_import_of_a_module_is_no_work(
    slow: Callable[..., str], bell: Bell, late: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    name = slow()
    with sky.Compute(worker=sky.Worker(concurrency=2), options=sky.Options(console="plain")) as compute:
        if late:
            waiting = [compute.submit(imported_late, name, number) for number in range(2)]
        else:
            waiting = [compute.submit(importlib.import_module(name).double, number) for number in range(2)]
        took = held_up(bell, waiting, 2)
        is_told(compute.report(), name, 2, took)
        assert max(future.duration or 0.0 for future in waiting) < took
    ended = [event for event in compute.events() if isinstance(event, BatchesEnded)]
    assert sum(event.imports.get(name, 0.0) for event in ended) == pytest.approx(compute.report().imports[name])
    assert sum(sum(event.opening) for event in ended) >= 2 * took
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("skyward: slots spent ")
    assert f'"{name}"' in last
    assert last == f"skyward: {compute.report().hint}"
    assert str(compute.report()).splitlines()[-1] == f"Hint: {compute.report().hint}"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere modules are imported by each worker")
def test_to_wait_for_an_import_of_the_node_is_no_work(slow: Callable[..., str], bell: Bell) -> None:
    name = slow("site-packages")
    with sky.Compute(worker=sky.Worker(concurrency=2)) as compute:
        waiting = [compute.submit(importlib.import_module(name).double, number) for number in range(2)]
        took = held_up(bell, waiting, 1)
        is_told(compute.report(), name, 2, took)


def test_threads_that_wait_for_the_same_import_do_not_work(slow: Callable[..., str], bell: Bell) -> None:
    name = slow()
    with sky.Compute(worker=sky.Worker(concurrency=2, executor="thread")) as compute:
        waiting = [compute.submit(importlib.import_module(name).double, number) for number in range(2)]
        took = held_up(bell, waiting, 1)
        told = compute.report()
        assert took <= told.imports[name]
        assert told.lost.opening * told.capacity >= took
        assert told.work <= told.capacity - took


def test_what_is_preloaded_takes_no_slot_any_time(slow: Callable[..., str], bell: Bell) -> None:
    name = slow()
    with futures.ThreadPoolExecutor(1) as aside:
        released = aside.submit(lambda: bell.answer().release())
        with sky.Compute(worker=sky.Worker(concurrency=2), image=sky.Image(preload=[name])) as compute:
            assert list(compute.map(importlib.import_module(name).double, range(4))) == [0, 2, 4, 6]
        released.result(60)
    assert bell.is_silent()
    assert name not in compute.report().imports


class Silent(sky.Local):
    """Machines that end, but of which one does not hear so."""

    async def terminate(self, instance: Instance) -> None:
        await super().terminate(instance)
        raise LeftToLease("it does not answer")


def test_a_machine_that_does_not_answer_at_the_end_is_told_and_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with sky.Compute(provider=Silent(folder=tmp_path), options=sky.Options(lease=50)) as compute:
        name = compute.nodes[0].instance
        assert compute.submit(work.square, 2).result(60) == 4
        assert compute.report().left == {}
    [(left, seconds)] = compute.report().left.items()

    assert left == name
    assert 0 < seconds <= 50
    assert f"{name}: it does not answer; its processes will stop by themselves within 50 s" in caplog.text


def test_a_pool_that_was_never_entered_has_nothing_to_report() -> None:
    with pytest.raises(sky.NoCompute, match="enter the block"):
        sky.Compute().report()
