"""Run a coroutine for a caller that waits for it, and for whom Ctrl-C takes effect at once."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

CLEANUP_TIMEOUT_S = 0.5
"""Seconds that the work has to clean up after Ctrl-C, before its caller goes on."""


def run[T](work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine; the caller's thread may have a loop that runs, as in a notebook.

    Ctrl-C cancels the work. What cannot be cancelled, such as looking up a host name, goes on in a thread that the
    caller does not wait for.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    done = threading.Event()

    def serve() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(asyncio.wait([task]))
        done.set()

    try:
        threading.Thread(target=serve, name="skyward-interruptible", daemon=True).start()
        done.wait()
    except BaseException:
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(task.cancel)
        done.wait(CLEANUP_TIMEOUT_S)
        raise
    return task.result()
