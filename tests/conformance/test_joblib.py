"""joblib's contract on a pool, where its own tests do not look; those are run by `make conformance`."""

import os
import re
import select
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import joblib
import pytest
from joblib import Parallel, delayed, parallel_config
from joblib import parallel as joblib_parallel

import skyward as sky
from skyward.plugins.joblib_backend import MAX_DEPTH
from tests import joblib_work, work
from tests.kit import SOON, Bell


@pytest.fixture(scope="module")
def compute() -> Iterator[sky.Compute]:
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]) as compute:
        yield compute


pytestmark = pytest.mark.usefixtures("compute")


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


@pytest.mark.parametrize("prefer", [None, "threads"])  # the latter stay here: the function returns nothing
def test_a_task_that_exits_is_an_error_and_not_the_end_of_the_program(prefer: str | None) -> None:
    with pytest.raises(sky.RemoteError, match=r"^SystemExit: the task called sys\.exit\(4\)") as raised:
        Parallel(n_jobs=2, prefer=prefer)(delayed(work.leave)() for _ in range(2))
    assert re.match(r"It was raised by task \d, leave\(\)\.", raised.value.__notes__[0])


@pytest.mark.parametrize("n_jobs", [2, -2])
def test_at_most_n_jobs_run_at_once(n_jobs: int, tmp_path: Path) -> None:
    allowed = n_jobs if n_jobs > 0 else 4 + 1 + n_jobs
    seen = Parallel(n_jobs=n_jobs, batch_size=1)(delayed(joblib_work.peak)(tmp_path, number) for number in range(16))
    assert max(seen) <= allowed


def test_a_thread_started_inside_the_block_uses_the_pool() -> None:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.extend(Parallel(n_jobs=2)(delayed(work.pid)() for _ in range(4))))
    thread.start()
    thread.join(60)
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
        thread.join(60)
    assert results == {base: [(base + x) ** 2 for x in range(30)] for base in (0, 100, 200)}


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_results_can_be_had_one_by_one(return_as: str) -> None:
    results = Parallel(n_jobs=-1, return_as=return_as)(delayed(work.square)(x) for x in range(20))
    assert sorted(results) == [x * x for x in range(20)]


@pytest.mark.parametrize(("return_as", "first"), [("generator", b"0"), ("generator_unordered", b"5")])
def test_the_first_result_is_there_as_soon_as_it_exists(bell: Bell, return_as: str, first: bytes) -> None:
    results = Parallel(n_jobs=-1, batch_size=1, return_as=return_as)(delayed(work.ring)(bell.port) for _ in range(9))
    lines = [bell.answer() for _ in range(4)]
    if return_as == "generator":  # the first one in order: nobody knows which line it is on
        for line in lines:
            line.release(first)
    else:
        lines[-1].release(first)

    assert next(results) == first
    with warnings.catch_warnings(action="ignore"):
        results.close()


def test_two_generators_of_one_thread_do_not_mix() -> None:
    first = Parallel(n_jobs=2, return_as="generator")(delayed(work.square)(x) for x in range(40))
    second = Parallel(n_jobs=-1, return_as="generator")(delayed(work.square)(x) for x in range(40, 80))
    pairs = list(zip(first, second, strict=True))

    assert pairs == [(x * x, (x + 40) ** 2) for x in range(40)]


def test_a_call_may_be_made_while_a_generator_is_open() -> None:
    outer = Parallel(n_jobs=2, return_as="generator")(delayed(work.square)(x) for x in range(12))
    sums = [sum(Parallel(n_jobs=-1)(delayed(work.square)(y) for y in range(3))) + x for x in outer]

    assert sums == [5 + x * x for x in range(12)]


def test_no_more_is_taken_from_the_iterator_than_pre_dispatch_says(bell: Bell) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[object]:
        for x in range(40):
            taken.append(x)
            yield delayed(work.ring)(bell.port)

    results = Parallel(n_jobs=2, batch_size=1, pre_dispatch=3, return_as="generator")(tasks())
    lines = [bell.answer(), bell.answer()]
    assert taken == [0, 1, 2]
    for line in lines:
        line.release()
    bell.answer()
    assert len(taken) <= 3 + 2
    with warnings.catch_warnings(action="ignore"):
        results.close()


@pytest.mark.parametrize(("pre_dispatch", "most"), [({}, MAX_DEPTH), ({"pre_dispatch": "2*n_jobs"}, 2)])
def test_tiny_tasks_are_taken_further_ahead_within_bounds_unless_pre_dispatch_is_given(
    pre_dispatch: dict[str, str], most: int
) -> None:
    out: list[int] = []
    parallel = Parallel(n_jobs=4, batch_size=1, **pre_dispatch)

    def tasks() -> Iterator[object]:
        for x in range(3000):
            out.append(parallel.n_dispatched_tasks - parallel.n_completed_tasks)
            yield delayed(work.square)(x)

    assert parallel(tasks()) == [x * x for x in range(3000)]
    assert 4 <= max(out) <= most * 4


def test_a_batch_is_as_large_as_batch_size_says() -> None:
    places = Parallel(n_jobs=-1, batch_size=5, pre_dispatch="all")(
        delayed(joblib_work.batch_mates)() for _ in range(20)
    )

    assert places == [1, 2, 3, 4, 5] * 4


def test_short_tasks_are_batched_by_the_time_they_take() -> None:
    sizes = Parallel(n_jobs=-1)(delayed(joblib_work.batch_mates)() for _ in range(4000))

    assert max(sizes) > 8


def test_verbose_names_the_backend_and_counts_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    Parallel(n_jobs=3, verbose=11)(delayed(work.square)(x) for x in range(6))
    said = "".join(capsys.readouterr())

    assert "Using backend SkywardBackend with 3 concurrent workers." in said
    assert "Done   6 out of   6" in said


@pytest.mark.parametrize(("asked", "given"), [(None, 4), (-1, 4), (-2, 3), (-9, 2), (1, 1), (2, 2), (3, 3), (99, 4)])
def test_what_is_asked_for_is_cut_to_the_slots(asked: int | None, given: int) -> None:
    assert joblib.effective_n_jobs(asked) == given
    assert Parallel(n_jobs=asked)(delayed(work.square)(x) for x in range(3)) == [0, 1, 4]


def test_shared_memory_stays_here_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    here: list[int] = []
    with sky.Compute(worker=sky.Worker(concurrency=1), plugins=[sky.plugins.joblib()]):
        for _ in range(3):
            Parallel(n_jobs=2, require="sharedmem")(delayed(here.append)(x) for x in range(4))
        Parallel(n_jobs=2)(delayed(work.square)(x) for x in range(4))

    assert sorted(here) == sorted([*range(4)] * 3)
    assert [record.name for record in caplog.records if "shared memory" in record.message] == ["skyward"]


def test_a_configuration_names_the_backend_and_the_number_of_jobs(tmp_path: Path) -> None:
    with joblib.parallel_config(backend="skyward", n_jobs=2):
        seen = Parallel(batch_size=1)(delayed(joblib_work.peak)(tmp_path, number) for number in range(12))
        pids = Parallel()(delayed(work.pid)() for _ in range(4))

    assert max(seen) <= 2
    assert os.getpid() not in pids


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
    with pytest.raises(sky.MissingExtra, match=r"pip install .*\[joblib\]"):
        sky.plugins.joblib()


def test_a_process_that_was_forked_inside_the_block_has_what_joblib_has_outside(compute: sky.Compute) -> None:
    group = compute.task_group()
    said, say = os.pipe()
    if not (child := os.fork()):
        try:
            with parallel_config(backend="threading"):
                inner = Parallel(n_jobs=2)(delayed(os.getpid)() for _ in range(3))
            plain = Parallel(n_jobs=2)(delayed(work.square)(x) for x in range(3))
            os.write(say, f"{set(inner) == {os.getpid()}} {plain} {joblib.effective_n_jobs(3)}".encode())
            for call in (group.submit, group.post):
                with pytest.raises(sky.NoCompute, match="forked"):
                    _ = call(abs, -1)
            os.write(say, b" refused")
        finally:
            os._exit(0)
    os.close(say)
    assert select.select([said], [], [], SOON)[0]
    os.waitpid(child, 0)

    assert os.read(said, 200) == b"True [0, 1, 4] 3 refused"
    os.close(said)
    group.close()
