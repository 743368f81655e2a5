"""What is killed costs time and nothing else: every answer comes once, and nothing is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import skyward as sky
from tests import kit
from tests.history import History
from tests.work import die, die_once, task

pytestmark = pytest.mark.kill


def parent(node: sky.Node) -> None:
    kit.kill(kit.pids(node)[0])


def host(node: sky.Node) -> None:
    kit.kill(kit.host(node))


def zygote(node: sky.Node) -> None:
    kit.kill(kit.pids(node)[1])


def everything(node: sky.Node) -> None:
    first, group = kit.pids(node)
    os.killpg(group, signal.SIGKILL)
    kit.kill(first)


@contextlib.contextmanager
def pool(tmp_path: Path) -> Iterator[sky.Compute]:
    """Three nodes of two slots, of which nothing is left when the block is over."""
    folder = tmp_path / "nodes"
    folder.mkdir()
    with sky.Compute(provider=sky.Local(folder=folder), nodes=3, worker=sky.Worker(concurrency=2)) as compute:
        processes = kit.tree(folder)
        yield compute
        processes += kit.tree(folder)
    kit.assert_nothing_left(folder, processes)


@pytest.fixture
def compute(tmp_path: Path) -> Iterator[sky.Compute]:
    with pool(tmp_path) as compute:
        yield compute


@pytest.mark.parametrize("part", [parent, host, zygote, everything])
def test_a_node_killed_in_mid_run_loses_and_doubles_nothing(tmp_path: Path, part: Callable[[sky.Node], None]) -> None:
    notes = tmp_path / "notes"
    made = History(notes, notes.read_text)
    with pool(tmp_path) as compute:
        first = compute.nodes[1]
        made.ask(compute, range(150))
        made.more(20)
        part(first)
        made.all()
        assert compute.broadcast(task, 7) == [7, 7, 7]
        assert compute.nodes[1].instance != first.instance
        report = compute.report()
    made.check(report, again=True)


def test_a_child_that_dies_costs_its_slot_only_and_the_call_is_tried_again(
    compute: sky.Compute, tmp_path: Path
) -> None:
    others = [compute.submit(task, number) for number in range(20)]
    assert compute.submit(die_once, tmp_path / "mark").result(60) == "second attempt"
    assert [future.result(60) for future in others] == list(range(20))


def test_after_three_deaths_a_call_fails_alone_with_the_causes(compute: sky.Compute) -> None:
    others = [compute.submit(task, number) for number in range(20)]
    with pytest.raises(sky.BatchLost) as lost:
        compute.submit(die).result(60)
    assert len(lost.value.causes) == 3
    assert all("exit code 3" in cause for cause in lost.value.causes)
    assert [future.result(60) for future in others] == list(range(20))


def test_leaving_by_an_exception_stops_what_runs_and_leaves_nothing(tmp_path: Path) -> None:
    processes: list[psutil.Process] = []

    def fail() -> None:
        with sky.Compute(provider=sky.Local(folder=tmp_path)) as compute:
            processes.extend(kit.tree(tmp_path))
            compute.submit(time.sleep, 600).add_done_callback(lambda _: None)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    kit.assert_nothing_left(tmp_path, processes)


DRIVER = """
import signal, sys, time
import skyward as sky
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may have been told to ignore it
with sky.Compute(provider=sky.Local(folder=sys.argv[1]), nodes=2, worker=sky.Worker(concurrency=2)) as compute:
    futures = [compute.submit(time.sleep, 600) for _ in range(8)]
    print("running", flush=True)
    futures[0].result()
"""


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        guard = threading.Timer(30, process.kill)
        guard.start()
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        yield process, kit.tree(tmp_path)
        guard.cancel()
        process.kill()


def test_ctrl_c_gives_the_prompt_back_and_leaves_nothing(
    driver: tuple[subprocess.Popen[str], list[psutil.Process]], tmp_path: Path
) -> None:
    process, others = driver
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=kit.SOON)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    kit.assert_nothing_left(tmp_path, others)


def test_a_killed_driver_takes_its_nodes_with_it(
    driver: tuple[subprocess.Popen[str], list[psutil.Process]], tmp_path: Path
) -> None:
    process, others = driver
    assert len(others) == 2 * (3 + 2)
    process.kill()
    process.wait(kit.SOON)
    kit.assert_nothing_left(tmp_path, others)
