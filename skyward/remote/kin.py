"""The processes that a process has started, and how all of them are ended."""

import contextlib
import os
import signal


def kill(pid: int) -> None:
    """Kill a worker and what its task has started (Linux; elsewhere only the worker)."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)  # so that it starts nothing more
    for child in children(pid):
        kill(child)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and adopted (Linux; elsewhere none are known)."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as listed:
                found += map(int, listed.read().split())
    return found
