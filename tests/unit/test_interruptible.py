"""A coroutine that somebody waits for: its result, and what Ctrl-C does to it."""

import asyncio
import signal
import threading

import pytest

from skyward import interruptible
from tests import kit


def test_the_result_or_the_error_is_that_of_the_coroutine() -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    async def fail() -> None:
        raise LookupError("no")

    assert interruptible.run(double(4)) == 8
    with pytest.raises(LookupError, match="no"):
        interruptible.run(fail())


def test_it_runs_also_where_a_loop_runs() -> None:
    async def inner() -> str:
        return "inner"

    async def outer() -> str:
        return interruptible.run(inner())

    assert asyncio.run(outer()) == "inner"


def test_ctrl_c_cancels_the_work_and_does_not_wait_for_what_cannot_be_cancelled() -> None:
    cleaned, release = threading.Event(), threading.Event()

    async def hang() -> None:
        try:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await asyncio.to_thread(release.wait)
        finally:
            cleaned.set()

    try:
        with pytest.raises(KeyboardInterrupt):
            interruptible.run(hang())
        assert cleaned.wait(kit.SOON)
        assert not release.is_set()
    finally:
        release.set()
        for thread in threading.enumerate():
            if thread.name == "skyward-interruptible":
                thread.join(kit.SOON)
