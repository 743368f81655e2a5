"""What goes wrong beside the calls costs what it must, and never a hang or a machine that is left."""

import os
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import psutil
import pytest

import skyward as sky
from skyward.actors.driver import Driver
from skyward.actors.supervisor import Supervisor
from skyward.events import BatchesSent
from skyward.providers.local import LocalHost
from skyward.providers.provider import Instance
from tests import kit, work
from tests.kit import Bell

ONE = sky.Worker(concurrency=1)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the nodes of a test are; nothing is left of them."""
    yield tmp_path
    kit.assert_nothing_left(tmp_path, [])


class Clinging(sky.Local):
    """Its hosts cannot be let go of."""

    async def reach(self, instance: Instance) -> LocalHost:
        return ClingingHost(Path(instance.id), self._commands.setdefault(instance.id, []))


class ClingingHost(LocalHost):
    async def close(self) -> None:
        raise OSError("stuck")


class Deaf(sky.Local):
    """Its hosts lead to a port where nobody listens."""

    async def reach(self, instance: Instance) -> LocalHost:
        return DeafHost(Path(instance.id), self._commands.setdefault(instance.id, []))


class DeafHost(LocalHost):
    async def tunnel(self, port: int) -> int:
        return 1


def test_a_host_that_cannot_be_let_go_of_is_ended_all_the_same(folder: Path) -> None:
    with sky.Compute(provider=Clinging(folder=folder), worker=ONE) as compute:
        assert compute.submit(abs, -1).result(kit.SOON) == 1


def test_a_node_that_does_not_accept_the_connection_is_unreachable_and_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyward.actors.supervisor.JOIN_TIMEOUT_S", 0.5)
    options = sky.Options(launch_attempts=1)
    with pytest.raises(sky.Unreachable), sky.Compute(provider=Deaf(folder=folder), worker=ONE, options=options):
        pass


def test_a_supervisor_that_fails_ends_its_machine_and_the_pool_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sky.Compute(provider=sky.Local(folder=folder), worker=ONE) as compute:
        waiting = compute.submit(work.sleep, 600.0)
        monkeypatch.setattr(Supervisor, "announce", None)
        kit.kill(kit.host(compute.nodes[0]))
        assert isinstance(waiting.exception(kit.SOON), sky.PoolFailed)
        with pytest.raises(sky.PoolFailed):
            _ = compute.submit(abs, -1)


def test_output_that_nobody_reads_any_more_stops_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, skyward as sky\n"
        "def say(n): print('x' * n); return n\n"
        "if __name__ == '__main__':\n"
        "    with sky.Compute(worker=sky.Worker(concurrency=1)) as compute:\n"
        "        results = [compute.submit(say, n).result(60) for n in (10, 100_000, 100_000, 10)]\n"
        "    print(sum(results), file=sys.stderr)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as ran:
        assert ran.stdout is not None
        assert ran.stdout.readline() == f"[node 0 slot 0] {'x' * 10}\n"
        ran.stdout.close()
        assert ran.stderr is not None
        assert "200020" in ran.stderr.read().split()


def test_the_last_words_of_a_task_are_heard(capfd: pytest.CaptureFixture[str]) -> None:
    with sky.Compute(worker=sky.Worker(concurrency=4)) as compute:
        for future in [compute.submit(work.say, "a word") for _ in range(500)]:
            future.result(kit.SOON)

    heard = capfd.readouterr()
    assert heard.out.count("a word") == 500
    assert all(line.startswith("skyward: ") for line in heard.err.splitlines())  # of what took long, at most


def test_a_callback_may_ask_for_more_while_the_pool_ends() -> None:
    more: list[Any] = []

    def again(_: object) -> None:
        try:
            more.append(compute.submit(abs, -2))
        except sky.NoCompute as refused:
            more.append(refused)

    with sky.Compute(worker=ONE) as compute:
        compute.submit(work.sleep, 600.0).add_done_callback(again)
        compute.shutdown(cancel_futures=True)

    (answer,) = more
    if not isinstance(answer, sky.NoCompute):
        assert answer.cancelled() or isinstance(answer.exception(0), sky.NoCompute)


def test_callbacks_have_run_when_the_block_is_left() -> None:
    never, ran = threading.Event(), []

    def slow(done: futures.Future[int]) -> None:
        never.wait(0.1)
        ran.append(done.result())

    with sky.Compute(worker=ONE) as compute:
        for number in range(3):
            compute.submit(abs, -number).add_done_callback(slow)

    assert ran == [0, 1, 2]


def test_a_ctrl_c_in_the_moment_when_a_call_is_sent_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    put = Driver._put

    def interrupted(driver: Driver, incoming: Any) -> None:
        put(driver, incoming)
        raise KeyboardInterrupt

    with sky.Compute(worker=ONE) as compute:
        with monkeypatch.context() as patch:
            patch.setattr(Driver, "_put", interrupted)
            with pytest.raises(KeyboardInterrupt):
                _ = compute.submit(abs, -1)
        assert compute.submit(abs, -2).result(kit.SOON) == 2
        assert compute.submit(abs, -3).result(kit.SOON) == 3

    sent = [event.batches for event in compute.events() if isinstance(event, BatchesSent)]
    assert sent == [1, 1]


def test_a_function_that_cannot_be_opened_says_why_each_time() -> None:
    module = types.ModuleType("nowhere_at_all")
    exec("def helper(): ...", module.__dict__)
    sys.modules["nowhere_at_all"] = module

    def use() -> None:
        module.helper()

    module.helper.__module__ = "nowhere_at_all"
    helper = module.helper

    def call() -> None:
        helper()

    try:
        with sky.Compute(worker=ONE) as compute, compute.task_group() as group:
            errors = [group.submit(call).exception(kit.SOON) for _ in range(3)]
    finally:
        del sys.modules["nowhere_at_all"]
    assert [type(error) for error in errors] == [ModuleNotFoundError] * 3


def test_what_a_task_has_started_ends_with_it_when_it_is_stopped(bell: Bell) -> None:
    with sky.Compute(worker=ONE) as compute:
        call = compute.submit(work.wait_for_a_child, bell.port)
        child = bell.answer()
        assert psutil.pid_exists(child.pid)
        call.cancel()
        assert child.hears_the_end()
        assert compute.submit(abs, -1).result(kit.SOON) == 1
