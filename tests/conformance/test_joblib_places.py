"""Where a `Parallel` call runs: on the pool, or here, by what it names, prefers and requires, in every thread."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config
from joblib import parallel as joblib_parallel
from joblib.externals.loky import get_reusable_executor
from joblib.parallel import get_active_backend

import skyward as sky
from tests import joblib_work, work
from tests.kit import SOON

SLOTS = 4
HERE = os.getpid()


@pytest.fixture(scope="module")
def compute() -> Iterator[sky.Compute]:
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]) as compute:
        yield compute
    get_reusable_executor().shutdown()  # a process forked later would wait for its workers for ever


pytestmark = pytest.mark.usefixtures("compute")


def pool(take: Sequence[str] = ()) -> sky.Compute:
    return sky.Compute(worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib(take=take)])


def in_a_thread[T](call: Callable[[], T]) -> T:
    """Return what a call gives in a thread that was started inside the block."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join(SOON)
    return results[0]


def in_this_thread[T](call: Callable[[], T]) -> T:
    return call()


THREADS = pytest.mark.parametrize("thread", [in_this_thread, in_a_thread])


def place(**options: Any) -> str:
    """Say where the tasks of a call run."""
    (pids, parents) = zip(*Parallel(**options)(delayed(joblib_work.kin)() for _ in range(4)), strict=True)
    if set(pids) == {HERE}:
        return "here"
    return "processes here" if set(parents) == {HERE} else "pool"


# ---------------------------------------------------------------- the number of jobs


@THREADS
def test_libraries_that_ask_joblib_are_told_the_slots(thread: Callable[..., Any]) -> None:
    backend, n_jobs = thread(get_active_backend)

    assert type(backend).__name__ == "SkywardBackend"
    assert n_jobs == SLOTS
    assert thread(joblib.effective_n_jobs) == SLOTS


def test_a_single_slot_is_told_as_two_because_joblib_runs_one_job_in_the_caller() -> None:
    with sky.Compute(worker=sky.Worker(concurrency=1), plugins=[sky.plugins.joblib()]):
        assert get_active_backend()[1] == 2
        assert place() == "pool"


def test_a_configuration_of_the_user_counts_more_than_the_slots() -> None:
    with parallel_config(n_jobs=3):
        assert get_active_backend()[1] == 3
    with parallel_config(n_jobs=2), pool():
        assert get_active_backend()[1] == 2


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_what_stays_here_without_a_number_of_jobs_takes_no_more_than_the_processors(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    for n_jobs, given in [(None, 2), (SLOTS, 2), (3, 3), (SLOTS + 1, SLOTS + 1), (1, 1)]:
        parallel = Parallel(n_jobs=n_jobs, backend=backend)
        assert parallel._effective_n_jobs() == given


def test_calls_that_require_shared_memory_take_no_more_threads_than_there_are_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    names = Parallel(n_jobs=100, require="sharedmem")(delayed(joblib_work.place)() for _ in range(40))

    assert {pid for pid, _ in names} == {HERE}
    assert len({thread for _, thread in names}) <= 2


# ---------------------------------------------------------------- where it runs


@THREADS
@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({}, "pool"),
        ({"n_jobs": 2}, "pool"),
        ({"n_jobs": 1}, "here"),
        ({"n_jobs": 2, "prefer": "processes"}, "pool"),
        ({"n_jobs": 2, "prefer": "threads"}, "pool"),
        ({"prefer": "threads"}, "pool"),
        ({"n_jobs": 2, "require": "sharedmem"}, "here"),
        ({"n_jobs": 2, "backend": "skyward"}, "pool"),
        ({"n_jobs": 2, "backend": "skyward", "prefer": "threads"}, "pool"),
        ({"n_jobs": 2, "backend": "threading"}, "here"),
        ({"n_jobs": 2, "backend": "loky"}, "processes here"),
        ({"n_jobs": 2, "backend": "multiprocessing"}, "processes here"),
    ],
)
def test_the_same_call_runs_at_the_same_place_in_every_thread(
    thread: Callable[..., Any], options: dict[str, Any], where: str
) -> None:
    assert thread(lambda: place(**options)) == where


@THREADS
def test_tasks_that_prefer_threads_and_return_nothing_write_into_the_callers_objects(
    thread: Callable[..., Any],
) -> None:
    array, items = np.zeros(40), [0]
    mapping: dict[int, Any] = {}

    def fill(x: int) -> None:
        array[x] = x * x

    def call(task: Callable[[int], Any]) -> list[Any]:
        return list(Parallel(n_jobs=3, prefer="threads")(delayed(task)(x) for x in range(40)))

    for task in (fill, mapping.setdefault, items.append):
        assert thread(partial(call, task)) == [None] * 40

    assert array.tolist() == [x * x for x in range(40)]
    assert sorted(items) == [0, *range(40)]
    assert mapping == dict.fromkeys(range(40))


def test_such_a_call_runs_on_the_pool_where_it_names_the_backend() -> None:
    array = np.zeros(4)

    def fill(x: int) -> None:
        array[x] = 1

    Parallel(n_jobs=2, prefer="threads", backend="skyward")(delayed(fill)(x) for x in range(4))
    with parallel_config(backend="skyward"):
        Parallel(n_jobs=2, prefer="threads")(delayed(fill)(x) for x in range(4))

    assert not array.any()


def test_a_call_that_stays_in_threads_fails_stops_and_yields_as_others_do() -> None:
    done: list[int] = []

    def fail(x: int) -> None:
        if x == 3:
            raise LookupError(x)
        work.sleep(0.01)
        done.append(x)

    with pytest.raises(LookupError) as caught:
        Parallel(n_jobs=2, prefer="threads", pre_dispatch="all")(delayed(fail)(x) for x in range(500))
    assert any("task 3, " in note for note in caught.value.__notes__)
    assert len(done) < 500

    results = Parallel(n_jobs=2, prefer="threads", return_as="generator")(delayed(done.append)(-1) for _ in range(9))
    assert list(results) == [None] * 9
    assert done.count(-1) == 9


def test_a_call_of_many_tasks_that_end_at_once_stays_in_threads_without_recursion() -> None:
    items: list[int] = []
    Parallel(n_jobs=2, prefer="threads", batch_size=1)(delayed(items.append)(x) for x in range(3000))

    assert sorted(items) == [*range(3000)]


# ---------------------------------------------------------------- what the log says


def said(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING and word in each.message]


def test_a_call_that_prefers_threads_and_runs_on_the_pool_is_said_once_for_each_block(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pool():
        for _ in range(3):
            assert place(n_jobs=2, prefer="threads") == "pool"
    (line,) = said(caplog, "prefers threads")

    assert "(kin) run on the pool" in line
    assert "lost" in line
    assert 'require="sharedmem"' in line


def test_a_call_that_prefers_threads_and_stays_is_said_once_for_each_block(caplog: pytest.LogCaptureFixture) -> None:
    items: list[int] = []
    with pool():
        for x in range(3):
            Parallel(n_jobs=2, prefer="threads")([delayed(items.append)(x)])
    (line,) = said(caplog, "prefers threads")

    assert "append returns nothing" in line
    assert 'backend="skyward"' in line


def test_a_call_that_names_a_process_backend_is_said_once_for_each_block(caplog: pytest.LogCaptureFixture) -> None:
    with pool():
        assert place(n_jobs=1, backend="loky") == "here"
        assert said(caplog, "loky") == []
        for _ in range(3):
            assert place(n_jobs=2, backend="loky") == "processes here"
    (line,) = said(caplog, "loky")

    assert 'take=("loky",)' in line


# ---------------------------------------------------------------- names that the pool takes


@THREADS
def test_names_that_are_taken_mean_the_pool(thread: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    before = dict(joblib_parallel.BACKENDS)
    with pool(take=["loky", "multiprocessing"]):
        for backend in ("loky", "multiprocessing"):
            assert thread(lambda name=backend: place(n_jobs=2, backend=name)) == "pool"
            assert thread(lambda name=backend: under(name)) == "pool"
        assert thread(lambda: place(n_jobs=2, backend="threading")) == "here"
    assert before == joblib_parallel.BACKENDS
    assert said(caplog, "loky") == []


def under(name: str) -> str:
    """Say where a call runs for which its library has named a backend, with an option of loky's."""
    with parallel_config(backend=name, inner_max_num_threads=1):
        return place(n_jobs=2)


def test_one_name_may_be_taken_without_the_other() -> None:
    with pool(take=("loky",)):
        assert place(n_jobs=2, backend="loky") == "pool"
        assert place(n_jobs=2, backend="multiprocessing") == "processes here"


def test_of_nested_blocks_the_innermost_says_what_a_name_means() -> None:
    with pool(take=("loky",)):
        with pool():
            assert place(n_jobs=2, backend="loky") == "processes here"
        assert place(n_jobs=2, backend="loky") == "pool"
        assert get_active_backend()[1] == 2
    assert place(n_jobs=2, backend="loky") == "processes here"
    assert get_active_backend()[1] == SLOTS


def test_blocks_that_overlap_restore_what_was_there() -> None:
    outside = dict(joblib_parallel.BACKENDS)
    first, second = pool(take=("loky",)), pool(take=("multiprocessing",))
    in_a_thread(first.__enter__)
    second.__enter__()
    in_a_thread(lambda: first.__exit__(None, None, None))
    assert place(n_jobs=2, backend="multiprocessing") == "pool"
    second.__exit__(None, None, None)

    assert outside == joblib_parallel.BACKENDS
    assert get_active_backend()[1] == SLOTS


def test_in_a_task_a_name_that_is_taken_means_what_it_meant() -> None:
    with pool(take=("loky",)):
        (found,) = Parallel(n_jobs=2)([delayed(joblib_work.backend_named)("loky")])

    assert found == "joblib._parallel_backends.LokyBackend"


def test_in_a_forked_process_names_and_numbers_are_those_of_outside() -> None:
    with pool(take=("loky",)):
        said, say = os.pipe()
        if not (child := os.fork()):
            try:
                os.write(say, f"{joblib_work.backend_named('loky')} {get_active_backend()[1]}".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(say)

    assert os.read(said, 200) == b"joblib._parallel_backends.LokyBackend None"
    os.close(said)


@pytest.mark.parametrize("take", ["loky", ("threading",), ("loky", "dask"), 1, ("Loky",)])
def test_what_cannot_be_taken_is_refused_at_once(take: Any) -> None:
    with pytest.raises(sky.InvalidArgument, match=r"^take=.*; (give|write) "):
        sky.plugins.joblib(take=take)
