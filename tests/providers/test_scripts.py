"""What holds the folder of a node that the SSH provider made, and what ends it with all that runs there."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from skyward.providers.ssh import scripts
from tests import kit
from tests.shells import shell as shell


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / ".cache" / "skyward" / "run" / os.uname().nodename
    yield root
    shutil.rmtree(root, ignore_errors=True)  # what holds a folder ends when that is gone


def holds(root: Path, node: str) -> psutil.Process:
    """What holds the folder of a node."""
    file = root / node / "hold"
    kit.until(lambda: file.exists() and file.read_text())
    return psutil.Process(int(file.read_text()))


@pytest.fixture
def sleeper(root: Path) -> Iterator[Callable[[str], "subprocess.Popen[bytes]"]]:
    """Starts a process that belongs to the node of that name, as its parent process does."""
    started: list[subprocess.Popen[bytes]] = []

    def start(node: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(root / node)])
        started.append(process)
        (root / node / "pids").write_text(f"{process.pid} {process.pid}\n")
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(kit.SOON)


def test_a_node_gets_a_folder_for_nobody_else(shell: Callable[[str], str], root: Path) -> None:
    folder = Path(shell(scripts.settle("pool-0-0")).strip())

    assert folder == root / "pool-0-0"
    assert {path.stat().st_mode & 0o777 for path in (folder, root)} == {0o700}
    held = holds(root, "pool-0-0")
    assert Path(shell(scripts.settle("pool-0-0")).strip()) == folder
    assert holds(root, "pool-0-0") == held


def lose(folder: Path) -> None:
    """Remove a folder in which the one who holds it writes meanwhile."""

    def is_lost() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    kit.until(is_lost)


def test_what_runs_is_finished_when_its_files_are_lost(
    shell: Callable[[str], str], root: Path, sleeper: Callable[[str], "subprocess.Popen[bytes]"]
) -> None:
    shell(scripts.settle("pool-0-0"))
    process = sleeper("pool-0-0")
    lose(root / "pool-0-0")
    shell(scripts.finish("pool-0-0"))

    assert process.wait(kit.SOON) == -9


def test_a_folder_is_held_as_long_as_the_driver_calls(shell: Callable[[str], str], root: Path) -> None:
    folder = Path(shell(scripts.settle("pool-0-0")).strip())
    (folder / "lease").write_text("2\n")
    unfinished = root.parents[1] / "env" / "key.pool-0-0"
    unfinished.mkdir(parents=True)
    shell(scripts.start(str(folder), 1, "token", ["sleep", "1000"]))
    kit.until(lambda: (folder / ".1.pid").exists() and (folder / ".1.pid").read_text())
    wrapper = psutil.Process(int((folder / ".1.pid").read_text()))
    kit.until(wrapper.children)
    started = [wrapper, *wrapper.children()]
    for _ in range(3):
        (folder / "alive").touch()
        kit.until(lambda: not (folder / "alive").exists(), 2.0)  # it looks every second
    assert all(process.is_running() for process in started)

    assert not psutil.wait_procs(started, timeout=60)[1]
    kit.until(lambda: not root.parent.exists() and not unfinished.exists())
    folder.mkdir(parents=True)  # as a file does that was under way
    assert "its folder was removed" in shell(f"({scripts.start(str(folder), 2, 'token', ['true'])}) 2>&1 || true")


def test_a_parent_takes_over_from_what_holds_the_folder(shell: Callable[[str], str], root: Path) -> None:
    shell(scripts.settle("pool-0-0"))
    held = holds(root, "pool-0-0")
    kit.until((root / "pool-0-0" / "silent").exists)
    (root / "pool-0-0" / "pids").write_text("1 1\n")

    assert not psutil.wait_procs([held], timeout=60)[1]
    assert int((root / "pool-0-0" / "silent").read_text()) >= 1


def test_a_pool_finds_what_lives_or_is_being_started(
    shell: Callable[[str], str], root: Path, sleeper: Callable[[str], "subprocess.Popen[bytes]"]
) -> None:
    for node in ("pool-0-0", "pool-1-0", "pool-2-0", "other-0-0"):
        shell(scripts.settle(node))
    sleeper("pool-1-0")
    (root / "pool-2-0" / "pids").write_text(f"{os.getpid()} 1")  # the number is used by somebody else now

    assert shell(scripts.find("pool")).split() == ["pool-0-0", "pool-1-0"]


def test_what_is_finished_has_no_processes_and_no_folder(
    shell: Callable[[str], str], root: Path, sleeper: Callable[[str], "subprocess.Popen[bytes]"]
) -> None:
    shell(scripts.settle("pool-0-0"))
    held = holds(root, "pool-0-0")
    process = sleeper("pool-0-0")
    shell(scripts.finish("pool-0-0"))
    shell(scripts.finish("pool-0-0"))

    assert process.wait(kit.SOON) == -15
    assert not psutil.wait_procs([held], timeout=60)[1]
    assert not root.parent.exists()


def test_what_an_earlier_run_left_is_cleared_when_its_lease_has_lapsed(
    shell: Callable[[str], str], root: Path, sleeper: Callable[[str], "subprocess.Popen[bytes]"]
) -> None:
    now = int(time.time())
    left = {"lapsed-0-0": now - 100, "held-0-0": now - 5, "alive-0-0": now - 100, "starting-0-0": now - 100}
    for node in left:
        shell(scripts.settle(node))
    for node, began in left.items():
        (root / node / "began").write_text(f"{began}\n")
        (root / node / "lease").write_text("50\n")
        holds(root, node).kill()
    sleeper("alive-0-0")
    sleeper("starting-0-0")
    (root / "starting-0-0" / "pids").rename(root / "starting-0-0" / ".1.pid")
    shell(scripts.settle("pool-0-0"))

    assert {path.name for path in root.iterdir()} == left.keys() - {"lapsed-0-0"} | {"pool-0-0"}
