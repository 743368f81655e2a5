import os
import signal
import subprocess
import sys

import psutil
import pytest

from skyward.remote.node import process_tree
from tests import kit


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (3 << 8, "exit code 3"),
        (signal.SIGSEGV, "killed by signal 11 (SIGSEGV)"),
        (signal.SIGKILL, "killed by signal 9 (SIGKILL)"),
        (signal.SIGRTMIN + 3, f"killed by signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_how_a_process_ended_is_said_in_words(status: int, text: str) -> None:
    assert process_tree.ending(status, 1024, starved=False) == text


def test_want_of_memory_is_said_with_figures() -> None:
    text = process_tree.ending(signal.SIGKILL, 300 << 10, starved=True)
    assert text.startswith("killed by signal 9 (SIGKILL) by the kernel, out of memory: it had 300 MiB, and ")
    assert text.endswith("use fewer slots (concurrency=), or machines with more memory")
    assert "memory" not in process_tree.ending(signal.SIGTERM, 300 << 10, starved=True)


@pytest.mark.skipif(not os.path.exists("/proc/vmstat"), reason="there is no /proc/vmstat")
def test_the_kernel_counts_what_it_killed() -> None:
    assert process_tree.starvations() >= 0
    assert process_tree.free_memory() > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are not known")
def test_processors_work_as_time_passes() -> None:
    worked, passed = process_tree.processor_ticks()
    assert 0 < worked < passed
    kit.until(lambda: process_tree.processor_ticks()[1] > passed)
    assert process_tree.processor_ticks()[0] >= worked


def test_memory_that_only_caches_files_is_free() -> None:
    available = psutil.virtual_memory().available
    assert abs(process_tree.free_memory() - available) < 0.2 * process_tree.total_memory()
    assert process_tree.total_memory() == psutil.virtual_memory().total


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no children are known")
def test_a_worker_is_killed_with_what_it_started() -> None:
    parent = subprocess.Popen(["sh", "-c", "sleep 600 & wait"])
    kit.until(lambda: process_tree.children(parent.pid))
    (child,) = process_tree.children(parent.pid)
    process_tree.kill(parent.pid)
    assert parent.wait(kit.SOON) == -signal.SIGKILL
    kit.until(lambda: not os.path.exists(f"/proc/{child}") or _is_dead(child))


def _is_dead(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"
