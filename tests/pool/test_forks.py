"""Tasks that fork: the parent alone answers, later calls work, and the block ends."""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from joblib import Parallel, delayed

import skyward as sky
from tests.kit import SOON


@pytest.fixture(params=["process", "thread"], scope="module")
def compute(request: pytest.FixtureRequest) -> Iterator[sky.Compute]:
    worker = sky.Worker(concurrency=1, executor=request.param)
    with sky.Compute(worker=worker, plugins=[sky.plugins.joblib()]) as compute:
        yield compute


def forking(how: str) -> tuple[str, int, int]:
    """Fork a process that leaves the task in one way or another; return its exit code."""
    child = os.fork()
    if child:
        return "parent", os.getpid(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    match how:
        case "returns":
            return "child", os.getpid(), 0
        case "exits":
            sys.exit(3)
        case "raises":
            raise ValueError("of the child")
        case _:
            os._exit(4)


class Forking:
    """Forks while it is pickled."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        child = os.fork()
        if child:
            return str, (f"parent {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}",)
        return str, ("child",)


def forking_result() -> object:
    return Forking()


def note(folder: Path, number: int) -> int:
    """Note that this task began, and fork a process that returns."""
    with (folder / str(number)).open("a") as file:
        file.write("x")
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return number


def in_process(number: int) -> int:
    """Run something in a `multiprocessing` child that is forked."""
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        return int(pool.apply(abs, (number,)))


@pytest.mark.parametrize(("how", "code"), [("returns", 0), ("exits", 3), ("raises", 1), ("ends", 4)])
def test_the_parent_answers_for_the_call(compute: sky.Compute, how: str, code: int) -> None:
    pid = compute.submit(os.getpid).result(SOON)

    assert [compute.submit(forking, how).result(SOON) for _ in range(3)] == [("parent", pid, code)] * 3
    assert compute.submit(os.getpid).result(SOON) == pid


def test_a_fork_while_a_result_is_pickled_answers_once(compute: sky.Compute) -> None:
    assert [compute.submit(forking_result).result(SOON) for _ in range(2)] == ["parent 0"] * 2


def test_no_task_of_a_batch_runs_twice(compute: sky.Compute, tmp_path: Path) -> None:
    (tmp_path / "joblib").mkdir()
    assert list(compute.map(note, [tmp_path] * 4, range(4), chunksize=4)) == [0, 1, 2, 3]
    found = Parallel(n_jobs=2, batch_size=4)(delayed(note)(tmp_path / "joblib", number) for number in range(4))

    assert found == [0, 1, 2, 3]
    for folder in (tmp_path, tmp_path / "joblib"):
        assert [(folder / str(number)).read_text() for number in range(4)] == ["x"] * 4


def test_processes_of_multiprocessing_work_in_tasks(compute: sky.Compute) -> None:
    assert [compute.submit(in_process, -number).result(SOON) for number in range(2)] == [0, 1]
