"""At the end of a run nothing of ours is left: no process of a node, no scratch folder."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

# Tests that are started in the background (`nohup`, a script's job) ignore Ctrl-C, and so does all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# They start thousands of processes, each of which would compile everything anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The same examples each time, and however long one takes on a busy machine.
SLOW = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=SLOW)
hypothesis.settings.load_profile("steady")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run whole folders with a worker more than there are processors, as tests wait for processes; files with none."""
    folders = all(Path(each).is_dir() for each in config.args)
    return len(os.sched_getaffinity(0)) + 1 if folders else 0


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_after_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have every node of this run make its folder in one place, and look there at the end."""
    scratch = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(scratch))
        patch.setattr(tempfile, "tempdir", str(scratch))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
    nodes = [each for each in psutil.Process().children(recursive=True) if "skyward.remote.node" in _command(each)]
    _, alive = psutil.wait_procs(nodes, timeout=60)
    assert not alive
    assert not list(Path(scratch).glob("skyward-*"))


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
