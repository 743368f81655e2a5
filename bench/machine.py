"""How quick the machine is just now: what two runs need to be compared that were not made side by side."""

import os
import statistics
import sys
import time

from bench.figures import Figures, rounded

LINUX = sys.platform == "linux"
ADDITIONS, TURNS, LOOKS = 1_000_000, 1000, 5


def speed() -> Figures:
    """Measure how long an addition in a loop takes, and how long it takes to wake another process.

    Returns
    -------
    Figures
        `addition_ns`, of one interpreter, and `wake_us`, half of what a byte needs through a pipe to a process that
        waits for it, on another processor if there is one, and back. It takes half a second.
    """
    additions = statistics.median(_add() for _ in range(LOOKS))
    return {"addition_ns": rounded(additions * 1e9), "wake_us": rounded(_wake() * 1e6)}


def _add() -> float:
    began, total = time.perf_counter(), 0
    for number in range(ADDITIONS):
        total += number
    return (time.perf_counter() - began) / ADDITIONS


def _wake() -> float:
    here, there = os.pipe(), os.pipe()
    allowed = os.sched_getaffinity(0) if LINUX else set[int]()
    if (child := os.fork()) == 0:
        os.close(there[1])  # so that it ends with this process
        _stay({max(allowed, default=0)})
        while byte := os.read(there[0], 1):
            os.write(here[1], byte)
        os._exit(0)
    os.close(there[0])
    _stay({min(allowed, default=0)})
    trips = []
    for _ in range(TURNS):
        began = time.perf_counter()
        os.write(there[1], b".")
        os.read(here[0], 1)
        trips.append(time.perf_counter() - began)
    for end in (there[1], *here):
        os.close(end)
    os.waitpid(child, 0)
    _stay(allowed)
    return statistics.median(trips) / 2


def _stay(processors: set[int]) -> None:
    """Keep this process on these processors, where that can be said."""
    if LINUX:
        os.sched_setaffinity(0, processors)
