"""A call of `joblib.Parallel` that should have gone to the pool is noticed, and joblib stays as it is."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from joblib import Parallel, delayed
from joblib import parallel as joblib_parallel
from joblib.parallel import ThreadingBackend

from skyward.plugins.joblib import JoblibPlugin
from skyward.plugins.joblib_watch import FIX, MONITORING_TOOLS, Watch
from skyward.remote.function import Remote, remote

AT_ONCE = f"a Parallel call runs on this machine, not on the pool: {FIX}"
AT_THE_END = f"no call reached the pool: Parallel ran on this machine; {FIX}"


class Block:
    """A block without the plugin, that sends calls to its pool or not."""

    def __init__(self) -> None:
        self.used = False
        self.watch = Watch(lambda: self.used)
        self.watch.begin([])

    def leave(self, *, failed: bool = False, cost: float = 0.0) -> None:
        self.watch.end(failed=failed, cost=cost)


@pytest.fixture(autouse=True)
def no_remote_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Remote, "exist", False)


@pytest.fixture
def block() -> Iterator[Block]:
    block = Block()
    yield block
    block.leave(failed=True)


def call() -> None:
    """One that needs no processes."""
    assert Parallel(n_jobs=1)([delayed(abs)(-1)]) == [1]


def test_a_call_is_said_once_and_not_again_at_the_end(block: Block, caplog: pytest.LogCaptureFixture) -> None:
    block.watch.note(Parallel(n_jobs=2))
    block.watch.note(Parallel(n_jobs=-1, backend="multiprocessing"))
    block.leave()

    assert caplog.messages == [AT_ONCE]


def test_a_call_is_noticed_as_python_begins_it_and_said_at_the_end(
    block: Block, caplog: pytest.LogCaptureFixture
) -> None:
    call()
    assert caplog.messages == []
    block.leave()

    assert caplog.messages == [AT_THE_END]


def test_what_the_pool_has_cost_is_said_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    first, second = Block(), Block()
    first.watch.note(Parallel(n_jobs=2))
    second.watch.note(Parallel(n_jobs=1))
    first.leave(cost=1.2)
    second.leave(cost=0.3)

    assert caplog.messages == [
        AT_ONCE,
        "no call reached the pool, whose machines cost $1.20",
        AT_THE_END.replace(":", ", whose machines cost $0.30:", 1),
    ]


def test_nothing_is_said_where_the_pool_was_used(block: Block, caplog: pytest.LogCaptureFixture) -> None:
    block.used = True
    block.watch.note(Parallel(n_jobs=2))
    block.leave(cost=1.2)

    assert caplog.messages == []


def test_where_remote_functions_may_yet_be_called_nothing_is_said_before_the_end(
    block: Block, caplog: pytest.LogCaptureFixture
) -> None:
    remote(abs)
    block.watch.note(Parallel(n_jobs=2))
    assert caplog.messages == []
    block.leave()

    assert caplog.messages == [AT_THE_END]


def test_nothing_is_said_of_a_block_that_called_nothing_or_failed(caplog: pytest.LogCaptureFixture) -> None:
    idle, failed = Block(), Block()
    idle.leave(cost=1.2)
    call()
    failed.leave(failed=True, cost=1.2)

    assert caplog.messages == []


def test_with_the_plugin_nothing_is_watched(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(lambda: False)
    watch.begin([JoblibPlugin()])
    call()
    watch.end(failed=False, cost=1.2)

    assert caplog.messages == []


def test_a_backend_of_somebody_else_is_left_alone(block: Block, caplog: pytest.LogCaptureFixture) -> None:
    class Elsewhere(ThreadingBackend):  # type: ignore[misc]
        pass

    Parallel(n_jobs=2, backend=Elsewhere())([delayed(abs)(-1)])
    block.leave()

    assert caplog.messages == []


def test_blocks_watch_side_by_side_and_leave_nothing(caplog: pytest.LogCaptureFixture) -> None:
    before = dict(vars(joblib_parallel.Parallel)), dict(joblib_parallel.BACKENDS)
    first, second = Block(), Block()
    assert sys.monitoring.get_tool(MONITORING_TOOLS[0]) is not None
    first.leave()
    call()
    second.leave()

    assert caplog.messages == [AT_THE_END]
    assert sys.monitoring.get_tool(MONITORING_TOOLS[0]) is None
    assert (dict(vars(joblib_parallel.Parallel)), dict(joblib_parallel.BACKENDS)) == before


def test_where_others_monitor_nothing_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    for tool in MONITORING_TOOLS:
        sys.monitoring.use_tool_id(tool, "other")
    try:
        block = Block()
        call()
        block.leave()
        assert [sys.monitoring.get_tool(tool) for tool in MONITORING_TOOLS] == ["other", "other"]
    finally:
        for tool in MONITORING_TOOLS:
            sys.monitoring.free_tool_id(tool)

    assert caplog.messages == []


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # it has threads, and forks
def test_a_forked_process_is_not_watched(block: Block) -> None:
    if not (pid := os.fork()):
        call()
        os._exit(block.watch._seen)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(("imported", "said"), [("joblib", f"{AT_THE_END}\n"), ("json", "")])
def test_joblib_that_is_imported_in_the_block_is_spoken_of_at_the_end(imported: str, said: str) -> None:
    program = (
        "from skyward.plugins.joblib_watch import Watch\n"
        "watch = Watch(lambda: False)\n"
        f"watch.begin([])\nimport {imported}\nwatch.end(failed=False, cost=0)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stderr == said
