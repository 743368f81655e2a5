"""What keeps a node from starting is noticed at once, and its cause and what to do about it are told."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

import skyward as sky
from skyward.events import NodeChanged
from skyward.providers.local import LocalHost
from skyward.providers.provider import Content, Instance
from tests import kit, work

TWO = sky.Worker(concurrency=2)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module for `preload=["crashing"]`; its first seconds pass with the orders of the host unread."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "crashing.py"


def start(
    provider: sky.Local | None = None, *, launch_attempts: int = 3, start_timeout: float = 60.0
) -> tuple[BaseException, int, float]:
    """Start a pool in vain; return the error, how many launches there were, and how long it took."""
    began = time.monotonic()
    compute = sky.Compute(
        provider=provider or sky.Local(),
        worker=TWO,
        image=sky.Image(preload=["crashing"] if provider is None else []),
        options=sky.Options(launch_attempts=launch_attempts, start_timeout=start_timeout),
    )
    with pytest.raises(sky.SkywardError) as raised, compute:
        pass
    launches = [event for event in compute.events() if isinstance(event, NodeChanged) and event.stage == "launching"]
    return raised.value, len(launches), time.monotonic() - began


@pytest.mark.parametrize(
    ("code", "told", "launches"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended the process: killed by signal 11 (SIGSEGV)", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended the process: killed by signal 9 (SIGKILL)", 3),
        ("os._exit(0)", "the import of 'crashing' (preload) ended the process: exit code 0", 1),
        ("raise SystemExit('no GPU here')", "cannot import 'crashing' (preload): SystemExit: no GPU here", 1),
        ("sys.stderr.write('half a line'); raise LookupError('one')", "(preload): LookupError: one", 1),
    ],
)
def test_a_preload_that_crashes_ends_the_start_at_once_and_is_tried_again_only_if_that_may_help(
    module: Path, code: str, told: str, launches: int
) -> None:
    module.write_text(f"import os, signal, sys, time\nprint('before it', file=sys.stderr)\ntime.sleep(0.3)\n{code}\n")

    error, launched, seconds = start()

    assert isinstance(error, sky.BootFailed)
    assert told in str(error)
    assert "before it" in error.log
    assert launched == launches
    assert seconds < 50


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_a_fork_that_fails_is_told_with_its_limit(module: Path, executor: str) -> None:
    module.write_text(
        "import errno, os\ndef fork(): raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))\nos.fork = fork\n"
    )

    error, launched, _ = start(launch_attempts=2)

    assert isinstance(error, sky.BootFailed)
    assert "cannot fork a worker process: BlockingIOError: [Errno 11] Resource temporarily unavailable" in str(error)
    assert "`ulimit -u` is" in str(error)
    assert launched == 2


def test_a_zygote_without_file_descriptors_says_so(module: Path) -> None:
    module.write_text("import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))\n")

    error, _, _ = start(launch_attempts=1)

    assert "[Errno 24]" in str(error)
    assert "`ulimit -n`" in str(error)


def test_a_node_whose_zygote_is_killed_says_how_it_ended() -> None:
    with sky.Compute(worker=TWO, options=sky.Options(retries=0)) as compute:
        call = compute.submit(work.sleep, 600.0)
        (node,) = compute.nodes
        kit.kill(kit.pids(node)[1])
        error = call.exception(kit.SOON)

    assert isinstance(error, sky.BatchLost)
    assert "killed by signal 9 (SIGKILL)" in error.causes[0]


def test_a_start_that_takes_too_long_is_a_node_error_with_what_the_node_said(module: Path) -> None:
    module.write_text("import sys, time\nprint('a license is awaited', file=sys.stderr, flush=True)\ntime.sleep(600)\n")

    error, _, _ = start(launch_attempts=1, start_timeout=3.0)

    assert isinstance(error, sky.NodeError)
    assert "was not ready within 3 s (Options(start_timeout=))" in str(error)
    assert "a license is awaited" in str(error)


class Full(sky.Local):
    """Its disk has no space left for the files of a node."""

    async def reach(self, instance: Instance) -> LocalHost:
        return FullHost(Path(instance.id), self._commands.setdefault(instance.id, []))


class FullHost(LocalHost):
    async def write(self, files: Mapping[str, Content]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.folder)


def test_a_full_disk_is_a_node_error_that_says_what_to_do(tmp_path: Path) -> None:
    error, launched, _ = start(Full(folder=tmp_path), launch_attempts=2)

    assert type(error) is sky.NodeError
    assert f"[Errno 28] No space left on device: '{tmp_path}" in str(error)
    assert "free some space" in str(error)
    assert launched == 2
    assert not list(tmp_path.iterdir())


FEW_DESCRIPTORS = """
import resource, sys
import skyward as sky
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
    try:
        with sky.Compute(nodes=10, provider=sky.Local(folder=sys.argv[1]), worker=sky.Worker(concurrency=1)):
            pass
    except sky.SkywardError as error:
        print(type(error).__name__, error)
"""


def test_a_driver_without_file_descriptors_says_which_limit_to_raise_and_shows_nothing_internal(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FEW_DESCRIPTORS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert "[Errno 24]" in ran.stdout
    assert "may have 48 files open at once: raise `ulimit -n`" in ran.stdout
    assert "skyward-node" not in ran.stderr
    kit.until(lambda: not kit.tree(tmp_path))
