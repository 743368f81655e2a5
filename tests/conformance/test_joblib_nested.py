"""`Parallel` in a task stays in its slot, and numerical libraries keep to the slot's share of the node's processors."""

import os
from collections.abc import Iterator

import joblib
import pytest
from joblib import Parallel, delayed

import skyward as sky
from tests import joblib_work, work

CPUS = len(os.sched_getaffinity(0))
SHARE = 3
"""Processors that joblib counts with in a slot of the pool: more than there are, so that threads can be told apart."""

pytestmark = pytest.mark.usefixtures("compute")


@pytest.fixture(scope="module")
def compute() -> Iterator[sky.Compute]:
    image = sky.Image(preload=["numpy"], env={"LOKY_MAX_CPU_COUNT": str(SHARE)})
    with sky.Compute(worker=sky.Worker(concurrency=CPUS), image=image, plugins=[sky.plugins.joblib()]) as compute:
        yield compute


# ---------------------------------------------------------------- nested calls


@pytest.mark.parametrize("backend", [None, "skyward"])
def test_a_nested_call_runs_in_threads_of_the_slot(backend: str | None) -> None:
    for pid, pids, threads in Parallel(n_jobs=2)(delayed(joblib_work.who)(n_jobs=2, backend=backend) for _ in range(2)):
        assert pid != os.getpid()
        assert pids == {pid}
        assert len(threads) == 2


def test_all_processors_are_for_a_nested_call_those_of_the_slot() -> None:
    for _, _, threads in Parallel(n_jobs=2)(delayed(joblib_work.who)(n_jobs=-1) for _ in range(2)):
        assert 1 < len(threads) <= SHARE


def test_a_nested_call_is_sequential_unless_it_asks_for_more() -> None:
    for _, _, threads in Parallel(n_jobs=2)(delayed(joblib_work.who)() for _ in range(2)):
        assert len(threads) == 1


def test_what_is_nested_deeper_runs_where_it_is() -> None:
    assert Parallel(n_jobs=2)(delayed(joblib_work.deep)(2) for _ in range(2)) == [[[0, 1, 4]] * 2] * 2


def test_a_call_in_a_task_that_was_submitted_may_name_the_backend(compute: sky.Compute) -> None:
    pid, pids, _ = compute.submit(joblib_work.who, n_jobs=2, backend="skyward").result(60)

    assert pids == {pid}
    assert pid != os.getpid()


# ---------------------------------------------------------------- threads of numerical libraries


def test_pools_have_the_threads_of_the_slots_share() -> None:
    for found in Parallel(n_jobs=2)(delayed(joblib_work.pools)() for _ in range(2)):
        assert set(found) == {1}


def test_a_call_may_give_its_tasks_another_number_of_threads() -> None:
    with joblib.parallel_config(backend="skyward", inner_max_num_threads=2):
        for found, variable in Parallel(n_jobs=-1, batch_size=1)(delayed(joblib_work.late_pools)() for _ in range(4)):
            assert set(found) == {min(2, CPUS)}
            assert variable == "2"

    for found, variable in Parallel(n_jobs=-1, batch_size=1)(delayed(joblib_work.late_pools)() for _ in range(4)):
        assert set(found) == {1}
        assert variable == "1"


def test_thread_slots_share_the_pools_of_their_process() -> None:
    plugins = [sky.plugins.joblib()]
    with (
        sky.Compute(worker=sky.Worker(concurrency=2, executor="thread"), plugins=plugins),
        joblib.parallel_config(backend="skyward", inner_max_num_threads=2),
    ):
        found = Parallel(n_jobs=2)(delayed(joblib_work.pools)() for _ in range(6))
        assert {number for each in found for number in each} == {min(2, CPUS)}
        assert [pid == os.getpid() for pid in Parallel()(delayed(work.pid)() for _ in range(2))] == [False] * 2


def test_a_slot_has_its_share_of_the_processors() -> None:
    with sky.Compute(worker=sky.Worker(concurrency=1), plugins=[sky.plugins.joblib()]):
        assert (
            Parallel()(delayed(os.getenv)(name) for name in ("OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT"))
            == [str(CPUS)] * 2
        )
