import os
import signal
import subprocess
import sys

import psutil
import pytest

from skyward.remote import kin
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
    assert kin.ending(status, 1024, starved=False) == text


def test_want_of_memory_is_said_with_figures() -> None:
    text = kin.ending(signal.SIGKILL, 300 << 10, starved=True)
    assert text.startswith("killed by signal 9 (SIGKILL) by the kernel, out of memory: it had 300 MiB, and ")
    assert text.endswith("use fewer slots (concurrency=), or machines with more memory")
    assert "memory" not in kin.ending(signal.SIGTERM, 300 << 10, starved=True)


@pytest.mark.skipif(not os.path.exists("/proc/vmstat"), reason="there is no /proc/vmstat")
def test_the_kernel_counts_what_it_killed() -> None:
    assert kin.starvations() >= 0
    assert kin.free_memory() > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are not known")
def test_processors_work_as_time_passes() -> None:
    worked, passed = kin.processor_ticks()
    assert 0 < worked < passed
    kit.until(lambda: kin.processor_ticks()[1] > passed)
    assert kin.processor_ticks()[0] >= worked


def test_memory_that_only_caches_files_is_free() -> None:
    available = psutil.virtual_memory().available
    assert abs(kin.free_memory() - available) < 0.2 * kin.total_memory()
    assert kin.total_memory() == psutil.virtual_memory().total


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no children are known")
def test_a_worker_is_killed_with_what_it_started() -> None:
    parent = subprocess.Popen(["sh", "-c", "sleep 600 & wait"])
    kit.until(lambda: kin.children(parent.pid))
    (child,) = kin.children(parent.pid)
    kin.kill(parent.pid)
    assert parent.wait(kit.SOON) == -signal.SIGKILL
    kit.until(lambda: not os.path.exists(f"/proc/{child}") or _is_dead(child))


def _is_dead(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"
