"""joblib's contract on a pool. Its own test suite comes with the next step; these are the promises of the plugin."""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest
from joblib import Parallel, delayed
from joblib import parallel as joblib_parallel

import skyward as sky
from tests import work


@pytest.fixture(scope="module")
def compute() -> Iterator[sky.Compute]:
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]) as compute:
        yield compute


pytestmark = pytest.mark.usefixtures("compute")


def peak(marks: Path, number: int) -> int:
    """Note that this task runs, and count those that do."""
    work.touch(marks, str(number))
    work.sleep(0.05)
    running = len(list(marks.iterdir()))
    (marks / str(number)).unlink()
    return running


def test_results_come_in_order() -> None:
    assert Parallel(n_jobs=-1)(delayed(work.square)(x) for x in range(100)) == [x * x for x in range(100)]


def test_no_jobs_named_means_every_slot() -> None:
    assert set(Parallel()(delayed(work.pid)() for _ in range(20))).isdisjoint({os.getpid()})
    assert joblib.effective_n_jobs(-1) == 4


def test_one_job_runs_here() -> None:
    assert Parallel(n_jobs=1)(delayed(work.pid)() for _ in range(2)) == [os.getpid()] * 2


def test_zero_jobs_are_refused_as_joblib_does() -> None:
    with pytest.raises(ValueError, match="n_jobs == 0"):
        Parallel(n_jobs=0)(delayed(work.square)(x) for x in range(2))


@pytest.mark.parametrize("n_jobs", [2, -2])
def test_at_most_n_jobs_run_at_once(n_jobs: int, tmp_path: Path) -> None:
    allowed = n_jobs if n_jobs > 0 else 4 + 1 + n_jobs
    seen = Parallel(n_jobs=n_jobs, batch_size=1)(delayed(peak)(tmp_path, number) for number in range(16))
    assert max(seen) <= allowed


def test_a_thread_started_inside_the_block_uses_the_pool() -> None:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend(Parallel(n_jobs=2)(delayed(work.pid)() for _ in range(4))))
    thread.start()
    thread.join(20)
    assert len(seen) == 4
    assert os.getpid() not in seen


def test_calls_from_several_threads_do_not_mix() -> None:
    results: dict[int, list[int]] = {}

    def call(base: int) -> None:
        results[base] = Parallel(n_jobs=-1)(delayed(work.square)(base + x) for x in range(30))

    threads = [threading.Thread(target=call, args=(base,)) for base in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {base: [(base + x) ** 2 for x in range(30)] for base in (0, 100, 200)}


def test_an_exception_stops_the_call_and_the_next_one_works(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="early"):
        Parallel(n_jobs=2, batch_size=1)(
            delayed(work.fail)("early") if x == 0 else delayed(slow_touch)(tmp_path, str(x)) for x in range(40)
        )
    assert Parallel(n_jobs=-1)(delayed(work.square)(x) for x in range(4)) == [0, 1, 4, 9]
    assert len(list(tmp_path.iterdir())) < 10


def slow_touch(folder: Path, name: str) -> None:
    work.touch(folder, name)
    work.sleep(0.3)


def test_an_argument_that_cannot_travel_is_an_error_and_not_a_hang() -> None:
    with pytest.raises(sky.NotPortable, match=r"[Ll]ock"):
        Parallel(n_jobs=2, batch_size=1)(
            delayed(work.square)(x) if x < 30 else delayed(work.size)(threading.Lock()) for x in range(40)
        )


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_results_can_be_had_one_by_one(return_as: str) -> None:
    results = Parallel(n_jobs=-1, return_as=return_as)(delayed(work.square)(x) for x in range(20))
    assert sorted(results) == [x * x for x in range(20)]


def test_a_timeout_is_joblibs() -> None:
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(n_jobs=2, timeout=0.2)(delayed(work.sleep)(20) for _ in range(2))


def test_a_task_may_call_parallel_itself() -> None:
    assert Parallel(n_jobs=2)(delayed(nested)(x) for x in range(3)) == [[0, 0, 0], [0, 1, 4], [0, 4, 16]]


def nested(factor: int) -> list[int]:
    return list(Parallel(n_jobs=2)(delayed(work.square)(factor * x) for x in range(3)))


def test_a_single_slot_still_runs_elsewhere() -> None:
    with sky.Compute(worker=sky.Worker(concurrency=1), plugins=[sky.plugins.joblib()]):
        pids = Parallel(n_jobs=-1)(delayed(work.pid)() for _ in range(6))
    assert len(set(pids)) == 1
    assert os.getpid() not in pids


def test_the_default_backend_is_restored_also_after_an_exception() -> None:
    before = (
        joblib_parallel.DEFAULT_BACKEND,
        dict(joblib_parallel.BACKENDS),
        joblib_parallel.get_active_backend()[0].__class__,
    )

    def fail() -> None:
        with sky.Compute(worker=sky.Worker(concurrency=1), plugins=[sky.plugins.joblib()]):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    after = (
        joblib_parallel.DEFAULT_BACKEND,
        dict(joblib_parallel.BACKENDS),
        joblib_parallel.get_active_backend()[0].__class__,
    )
    assert after == before


def test_without_joblib_the_plugin_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(sky.MissingExtra, match=r"pip install 'skyward\[joblib\]'"):
        sky.plugins.joblib()
