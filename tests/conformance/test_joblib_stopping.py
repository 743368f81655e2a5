"""Fail fast means stop: what has not started never starts, what runs is killed, and the next call starts at once."""

import gc
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import pytest
from joblib import Parallel, delayed

import skyward as sky
from skyward.remote import call_repr
from tests import joblib_work, work
from tests.kit import SOON, Bell

pytestmark = pytest.mark.usefixtures("compute")


@pytest.fixture(scope="module")
def compute() -> Iterator[sky.Compute]:
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]) as compute:
        yield compute


def squares_come_at_once() -> bool:
    started = time.monotonic()
    results = Parallel(n_jobs=-1)(delayed(work.square)(x) for x in range(8))
    return results == [x * x for x in range(8)] and time.monotonic() - started < SOON


def lines(file: Path, end: str) -> int:
    return file.read_text().count(end) if file.exists() else 0


@pytest.mark.parametrize("pre_dispatch", ["2*n_jobs", "all"])
@pytest.mark.parametrize("n_jobs", [2, -1])
def test_after_an_exception_at_most_one_more_task_of_39_runs(tmp_path: Path, n_jobs: int, pre_dispatch: str) -> None:
    file = tmp_path / "lines"
    tasks = [delayed(work.note_both)(file, str(x), 0.3) for x in range(39)]
    with pytest.raises(LookupError, match="early"):
        Parallel(n_jobs=n_jobs, batch_size=1, pre_dispatch=pre_dispatch)([delayed(work.fail)("early"), *tasks])

    assert squares_come_at_once()
    assert lines(file, "ended") <= 1
    assert lines(file, "began") <= (2 if n_jobs == 2 else 4) + 1


def test_after_an_exception_what_runs_is_killed(bell: Bell) -> None:
    with Bell() as trigger:
        tasks = [delayed(joblib_work.fail_when_told)(trigger.port), *[delayed(work.ring)(bell.port) for _ in range(9)]]
        running = Parallel(n_jobs=-1, batch_size=1, return_as="generator")(tasks)
        heard = [bell.answer() for _ in range(3)]
        trigger.answer().release(b"now")
        with pytest.raises(LookupError, match="now"):
            list(running)

        assert all(line.hears_the_end() for line in heard)
        assert squares_come_at_once()


def test_after_a_timeout_the_tasks_are_killed(bell: Bell) -> None:
    with pytest.raises(multiprocessing.TimeoutError) as raised:
        Parallel(n_jobs=2, batch_size=1, timeout=3.0)(delayed(work.ring)(bell.port) for _ in range(10))

    assert str(raised.value) == call_repr.late("Parallel", 3.0, f"task 0, ring({bell.port})")
    assert all(line.hears_the_end() for line in (bell.answer(), bell.answer()))
    assert squares_come_at_once()
    assert bell.is_silent()


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_the_timeout_of_a_generator_says_which_task_it_was(bell: Bell, return_as: str) -> None:
    running = Parallel(n_jobs=2, timeout=0.5, return_as=return_as)([delayed(work.ring)(bell.port)])
    with pytest.raises(multiprocessing.TimeoutError, match=r"^Parallel\(timeout=0\.5\): task 0, ring\("):
        next(running)


def test_a_timeout_that_a_task_raises_itself_stays_as_it_is() -> None:
    with pytest.raises(multiprocessing.TimeoutError) as raised:
        Parallel(n_jobs=2, timeout=SOON)(delayed(joblib_work.be_late)() for _ in range(2))
    assert str(raised.value) == ""


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_a_generator_that_is_closed_kills_its_tasks(bell: Bell, return_as: str) -> None:
    tasks = [delayed(work.ring)(bell.port) for _ in range(12)]
    running = Parallel(n_jobs=-1, batch_size=1, return_as=return_as)(tasks)
    heard = [bell.answer() for _ in range(4)]
    with warnings.catch_warnings(action="ignore"):  # joblib says how many tasks were for nothing
        running.close()

    assert all(line.hears_the_end() for line in heard)
    assert squares_come_at_once()
    assert bell.is_silent()


def test_a_generator_that_is_dropped_kills_its_tasks(bell: Bell) -> None:
    running = Parallel(n_jobs=2, return_as="generator")(delayed(work.ring)(bell.port) for _ in range(4))
    heard = [bell.answer() for _ in range(2)]
    with warnings.catch_warnings(action="ignore"):
        del running
        gc.collect()

    assert all(line.hears_the_end() for line in heard)
    assert squares_come_at_once()


def test_a_call_that_is_stopped_does_not_stop_another_one(bell: Bell) -> None:
    lasting = Parallel(n_jobs=2, batch_size=1, return_as="generator")([delayed(work.ring)(bell.port)])
    line = bell.answer()
    with pytest.raises(LookupError):
        Parallel(n_jobs=2)([delayed(work.fail)("other"), delayed(work.square)(2)])
    line.release(b"still here")

    assert list(lasting) == [b"still here"]


def test_after_an_exception_thread_slots_are_asked_to_stop_and_go_on_without_what_ran(bell: Bell) -> None:
    worker = sky.Worker(concurrency=2, executor="thread")
    with sky.Compute(worker=worker, plugins=[sky.plugins.joblib()]), Bell() as trigger:
        tasks = [delayed(joblib_work.fail_when_told)(trigger.port)]
        tasks += [delayed(work.ring_and_spin)(bell.port) for _ in range(9)]
        running = Parallel(n_jobs=-1, batch_size=1, return_as="generator")(tasks)
        bell.answer()
        trigger.answer().release(b"now")
        with pytest.raises(LookupError, match="now"):
            list(running)

        assert squares_come_at_once()


def squares(limit: int | None) -> Iterator[object]:
    numbers = itertools.count() if limit is None else iter(range(limit))
    return (delayed(work.square)(x) for x in numbers)


@pytest.mark.parametrize("limit", [5000, None], ids=["that ends", "that never ends"])
def test_a_generator_that_outlives_the_block_gives_what_was_dispatched_and_then_an_error(limit: int | None) -> None:
    with sky.Compute(worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]):
        results = Parallel(n_jobs=2, return_as="generator", batch_size=1)(squares(limit))
        first = [next(results) for _ in range(20)]

    assert first == [x * x for x in range(20)]
    with pytest.raises(sky.NoCompute, match="left before this Parallel call had finished"):
        list(results)


def test_a_generator_with_everything_dispatched_may_outlive_the_block() -> None:
    with sky.Compute(worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]):
        results = Parallel(n_jobs=2, return_as="generator", pre_dispatch="all")(squares(30))

    assert list(results) == [x * x for x in range(30)]


@pytest.mark.parametrize("left_by", [KeyError, KeyboardInterrupt])
def test_a_generator_does_not_hang_after_an_exception_has_ended_the_block(left_by: type[BaseException]) -> None:
    def leave() -> Iterator[int]:
        with sky.Compute(worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]):
            opened.append(Parallel(n_jobs=2, return_as="generator", batch_size=1)(squares(None)))
            raise left_by

    opened: list[Iterator[int]] = []
    with pytest.raises(left_by):
        leave()
    with pytest.raises((sky.NoCompute, futures.CancelledError)):
        list(opened[0])


PROGRAM = """
import signal, sys, time
import skyward as sky
from joblib import Parallel, delayed
from tests import work

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may have been told to ignore it
with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]):
    try:
        Parallel(n_jobs=-1, batch_size=1)(delayed(work.ring)({port}) for _ in range(40))
    except KeyboardInterrupt:
        if {goes_on}:
            print(Parallel(n_jobs=-1)(delayed(work.square)(x) for x in range(4)))
        else:
            raise
"""


@pytest.mark.parametrize("goes_on", [False, True])
def test_ctrl_c_gives_the_prompt_back_within_two_seconds(bell: Bell, goes_on: bool) -> None:
    program = PROGRAM.format(port=bell.port, goes_on=goes_on)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal sends the signal to every process of a job
    ) as shell:
        heard = [bell.answer() for _ in range(4)]
        os.killpg(shell.pid, signal.SIGINT)
        pressed = time.monotonic()
        out, err = shell.communicate(timeout=150)
        took = time.monotonic() - pressed

    assert took < 2
    assert all(line.hears_the_end() for line in heard)
    assert bell.is_silent()
    if goes_on:
        assert (out, shell.returncode) == ("[0, 1, 4, 9]\n", 0)
    else:
        assert err.rstrip().endswith("KeyboardInterrupt")
        assert shell.returncode in (-signal.SIGINT, 130)
