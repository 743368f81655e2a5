"""What the driver holds for a call that waits, and for calls that are over: little, and nothing."""

import asyncio
import contextlib
import ctypes
import gc
import itertools
import logging
import threading
import warnings
import weakref
from typing import cast

import psutil
import pytest
import uvloop
from casty import ActorSystem, Runtime
from joblib import Parallel, delayed

import skyward as sky
from skyward.actors import reclaim
from tests import kit, work
from tests.kit import Bell

CALLS = 5_000
CALL = 4096
"""Bytes that a small call may take while it waits; measured: about 2,000."""

FLAT = 8 << 20
"""Bytes by which the driver may grow over thousands of calls, for whatever Python keeps."""


def resident() -> int:
    """The memory of this process in bytes, without what the C library keeps of it for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    size: int = psutil.Process().memory_info().rss
    return size


@pytest.mark.slow
def test_a_waiting_call_takes_little_and_one_that_is_over_nothing(bell: Bell) -> None:
    sizes = []
    with sky.Compute(worker=sky.Worker(concurrency=1)) as compute:
        for _ in range(3):
            busy = compute.submit(work.ring, bell.port)
            line = bell.answer()
            before = resident()
            waiting = [compute.submit(work.square, number) for number in range(CALLS)]
            sizes.append(resident() - before)
            line.release()
            assert busy.result(kit.SOON) == b"on"
            assert [future.result(kit.SOON) for future in waiting] == [number**2 for number in range(CALLS)]
            del waiting, busy
            after = resident()
        assert sizes[0] < CALLS * CALL
        assert after - before < FLAT


def test_a_parallel_over_an_endless_generator_takes_no_more_with_time() -> None:
    """As long as results are taken as fast as they come: joblib itself does not wait for who takes them."""
    with sky.Compute(worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]):
        results = Parallel(n_jobs=-1, return_as="generator")(delayed(work.sleep)(0.0005) for _ in itertools.count())
        for _ in range(1_000):
            next(results)
        before = resident()
        for _ in range(5_000):
            next(results)
        assert resident() - before < FLAT
        with warnings.catch_warnings(action="ignore"):  # joblib says how many results nobody took
            results.close()


def use_pools(count: int) -> None:
    """Open and leave so many pools, every second one by an exception."""
    for number in range(count):
        with (
            contextlib.suppress(LookupError),
            sky.Compute(worker=sky.Worker(concurrency=1), plugins=[sky.plugins.joblib()]) as compute,
        ):
            assert compute.submit(work.square, number).result(kit.SOON) == number**2
            if number % 2:
                raise LookupError


def held() -> tuple[int, int, int]:
    """Descriptors, native threads and event loops of this process."""
    gc.collect()
    process = psutil.Process()
    loops = sum(isinstance(each, uvloop.Loop) for each in gc.get_objects())
    return process.num_fds(), process.num_threads(), loops


def test_a_pool_that_has_ended_is_freed_though_its_system_is_not() -> None:
    with sky.Compute(worker=sky.Worker(concurrency=1)) as compute:
        assert compute._driver is not None
        driver = weakref.ref(compute._driver)
    del compute
    gc.collect()
    assert driver() is None


@pytest.mark.slow
def test_pools_that_have_ended_leave_no_descriptors_threads_or_event_loops() -> None:
    use_pools(2)
    before = held()
    use_pools(8)
    assert all(after - was <= 4 for after, was in zip(held(), before, strict=True)), (before, held())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_two_hundred_pools_that_have_ended_leave_nothing() -> None:
    use_pools(20)
    before, size = held(), resident()
    use_pools(200)
    assert all(after - was <= 2 for after, was in zip(held(), before, strict=True)), (before, held())
    assert resident() - size < FLAT


class Late:
    """A runtime whose thread has one more thing to say before it is idle."""

    def __init__(self) -> None:
        self.looks, self.is_heard = 0, False

    def _tasks(self) -> int:
        self.looks += 1
        if self.looks < 3:
            return 1
        saying = threading.Thread(target=asyncio.get_running_loop().call_soon_threadsafe, args=(self.hear,))
        saying.start()
        saying.join()
        return 0

    def hear(self) -> None:
        self.is_heard = True


def test_a_loop_hears_what_the_thread_of_a_runtime_has_to_say_before_it_ends() -> None:
    late = Late()
    reclaim.reclaim(ActorSystem(), [], cast(Runtime, late))
    assert late.looks == 3
    assert late.is_heard


def test_a_runtime_tells_whether_it_is_idle(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "skyward")
    with reclaim.lend_runtime() as runtime:
        reclaim.reclaim(ActorSystem(), [], runtime)
    assert not caplog.records
