"""The processes that a process has started, how all of them are ended, and how one has ended."""

import contextlib
import ctypes
import os
import signal
import sys


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


def adopt_orphans() -> None:
    """Become the parent of what children leave running (Linux: PR_SET_CHILD_SUBREAPER)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def ending(status: int, most: int, starved: bool) -> str:
    """Say in words how a process ended.

    Parameters
    ----------
    status
        Its status, as `os.wait` returns it.
    most
        The most KiB of memory that it had at a time.
    starved
        Whether the kernel has killed something on this machine for want of memory while it ran.
    """
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        text = f"killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"killed by signal {-code}"
    if -code != signal.SIGKILL or not starved:
        return text
    figures = f"it had {most >> 10} MiB, and {free_memory() >> 20} MiB of the machine's memory are free now"
    return (
        f"{text} by the kernel, out of memory: {figures}; use fewer slots (concurrency=), or machines with more memory"
    )


def starvations() -> int:
    """Return how many processes the kernel has killed for want of memory since this machine started (Linux)."""
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat") as facts:
        for line in facts:
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def free_memory() -> int:
    """Return the bytes of memory that programs can still have on this machine; what caches files counts (Linux)."""
    with contextlib.suppress(OSError, ValueError), open("/proc/meminfo") as facts:
        for line in facts:
            name, _, amount = line.partition(":")
            if name == "MemAvailable":
                return int(amount.split()[0]) << 10
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def total_memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def processor_ticks() -> tuple[int, int]:
    """Return the ticks in which processors of this machine worked, and those that passed on all of them (Linux)."""
    with contextlib.suppress(OSError, ValueError), open("/proc/stat") as facts:
        user, nice, system, idle, waiting, *others = map(int, facts.readline().split()[1:9])
        worked = user + nice + system + sum(others)
        return worked, worked + idle + waiting
    return 0, 0
