"""The pool as its user sees it."""

import asyncio
import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import skyward as sky
from skyward.actors import node_client
from skyward.plugins import Plugin, Pool
from skyward.remote.call_options import CallOptions
from tests import work


@sky.remote
def square(x: int) -> int:
    return x * x


@sky.remote
def node() -> int:
    return sky.instance_info().node


def share() -> list[int]:
    return sky.shard(list(range(5)))


@pytest.fixture(scope="module")
def compute() -> Iterator[sky.Compute]:
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2)) as compute:
        yield compute


def test_a_remote_function_runs_on_a_slot(compute: sky.Compute) -> None:
    assert square(3) == 9
    assert square.remote(4).result(60) == 16
    assert list(square.map(range(4))) == [0, 1, 4, 9]


def test_options_choose_the_node(compute: sky.Compute) -> None:
    assert [node.options(node=number)() for number in (0, 1, 1, 0)] == [0, 1, 1, 0]


def test_a_node_that_is_not_there_is_refused(compute: sky.Compute) -> None:
    with pytest.raises(sky.InvalidArgument, match="nodes 0 to 1"):
        node.options(node=2)()


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"node": -1}, {"retries": -1}, {"node": True}])
def test_options_that_cannot_be_meant_are_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(sky.InvalidArgument, match=next(iter(wrong))):
        square.options(**wrong)


def test_a_timeout_stops_the_call_and_the_slot_comes_back(compute: sky.Compute) -> None:
    with pytest.raises(TimeoutError, match=r"0\.2 s"):
        sky.remote(work.sleep).options(timeout=0.2)(600)
    assert list(square.map(range(8))) == [x * x for x in range(8)]


def test_without_retries_the_first_death_is_the_last(compute: sky.Compute) -> None:
    with pytest.raises(sky.BatchLost) as lost:
        sky.remote(work.die).options(retries=0)()
    assert len(lost.value.causes) == 1


def test_a_thread_started_inside_the_block_sees_it(compute: sky.Compute) -> None:
    with futures.ThreadPoolExecutor() as threads:
        assert threads.submit(square.options(), 5).result(60) == 25
        assert threads.submit(node.remote).result(60).result(60) in (0, 1)


def test_of_nested_blocks_the_innermost_wins(compute: sky.Compute) -> None:
    def nodes() -> int:
        return sky.remote(sky.instance_info)().nodes

    assert nodes() == 2
    with sky.Compute(worker=sky.Worker(concurrency=1)):
        assert nodes() == 1
    assert nodes() == 2


def test_broadcast_runs_once_on_every_node(compute: sky.Compute) -> None:
    assert compute.broadcast(share) == [[0, 1], [2, 3, 4]]


def test_its_futures_are_standard(compute: sky.Compute) -> None:
    waiting = {compute.submit(work.square, x): x for x in range(10)}
    assert {future.result() == x * x for future, x in waiting.items() if future in futures.as_completed(waiting)} == {
        True
    }
    assert futures.wait(waiting, timeout=60).not_done == set()


def test_its_futures_can_be_awaited_also_inside_a_running_loop(compute: sky.Compute) -> None:
    async def cell() -> list[int]:
        assert square(2) == 4
        with sky.Compute(worker=sky.Worker(concurrency=1)) as inner:
            return list(await asyncio.gather(*[inner.submit(work.square, x) for x in range(3)]))

    assert asyncio.run(cell()) == [0, 1, 4]


def test_a_future_knows_how_long_its_call_ran(compute: sky.Compute) -> None:
    future = compute.submit(work.sleep, 0.1)
    future.result(60)
    assert future.duration is not None
    assert 0.1 <= future.duration < 5


@pytest.mark.parametrize("call", ["submit", "map", "broadcast"])
def test_the_result_of_a_function_in_place_of_the_function_is_refused_at_once(compute: sky.Compute, call: str) -> None:
    run: Any = getattr(compute, call)
    told = re.escape("fn=3: cannot be called; give the function first, without calling it, then its arguments")
    with pytest.raises(sky.InvalidArgument, match=told):
        run(abs(-3), [1])
    with compute.task_group() as group, pytest.raises(sky.InvalidArgument, match=told):
        group.submit(cast(Any, abs(-3)))


def test_map_stops_waiting_when_its_time_is_up(compute: sky.Compute) -> None:
    with pytest.raises(TimeoutError):
        list(compute.map(work.sleep, [600.0] * 3, timeout=0.2))
    assert compute.submit(work.square, 2).result(60) == 4


def test_several_threads_use_it_at_once(compute: sky.Compute) -> None:
    with futures.ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda x: compute.submit(work.square, x).result(60), range(100)))
    assert results == [x * x for x in range(100)]


def test_a_group_with_a_limit_ends_in_order(compute: sky.Compute) -> None:
    with compute.task_group(limit=1) as group:
        numbers = [group.submit(work.square, x) for x in range(5)]
    assert [future.result(0) for future in numbers] == [0, 1, 4, 9, 16]


def test_outside_any_block_a_call_runs_here_and_a_future_is_refused() -> None:
    code = (
        "import skyward as sky\n"
        "square = sky.remote(lambda x: x * x)\n"
        "assert square(3) == 9\n"
        "try: square.remote(3)\n"
        "except sky.NoCompute as error: assert 'with sky.Compute' in str(error), error\n"
        "else: raise SystemExit(1)\n"
    )
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], timeout=150, check=False).returncode == 0


def test_after_the_block_a_call_is_refused() -> None:
    with sky.Compute(worker=sky.Worker(concurrency=1)) as ended:
        pass
    with pytest.raises(sky.NoCompute, match=r"with sky\.Compute"):
        ended.submit(work.square, 1).result()
    with pytest.raises(sky.InvalidArgument, match="entered before"), ended:
        pass


def test_leaving_the_block_waits_for_its_calls() -> None:
    with sky.Compute(worker=sky.Worker(concurrency=1)) as compute:
        future = compute.submit(work.sleep, 0.3)
    assert future.result(0) == 0.3


def test_shutdown_can_cancel_what_waits() -> None:
    with sky.Compute(worker=sky.Worker(concurrency=1)) as compute:
        waiting = [compute.submit(work.sleep, 600.0) for _ in range(3)]
        compute.shutdown(cancel_futures=True)
        assert all(future.cancelled() for future in waiting)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"nodes": 0}, "nodes=0"),
        ({"node": 3}, "did you mean 'nodes'"),
        ({"plugins": [sky.plugins.joblib]}, r"sky\.plugins\.joblib\(\)"),
        ({"provider": sky.Local}, r"sky\.Local\(\)"),
    ],
)
def test_a_wrong_argument_is_explained_before_anything_starts(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(sky.InvalidArgument, match=told):
        sky.Compute(**wrong)


def test_a_node_that_cannot_start_fails_the_pool_with_what_it_printed(tmp_path: Path) -> None:
    image = sky.Image(preload=["json.no_such_module_anywhere"])
    with (
        pytest.raises(sky.BootFailed, match="no_such_module_anywhere"),
        sky.Compute(provider=sky.Local(folder=tmp_path), image=image, options=sky.Options(launch_attempts=1)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_long_reason_why_a_node_cannot_start_is_told_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "talkative.py").write_text(f"raise OSError('xx' + {'é' * 3000!r})")
    monkeypatch.syspath_prepend(tmp_path)
    image = sky.Image(preload=["talkative"])
    with (
        pytest.raises(sky.BootFailed, match="OSError: xxéé"),
        sky.Compute(image=image, options=sky.Options(launch_attempts=1)),
    ):
        pass


class Recorder(Plugin):
    """A plugin that uses the whole contract."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def image(self, image: sky.Image, /) -> sky.Image:
        return sky.Image(**{**dict(image), "env": {"PLUGIN": "yes"}})

    @contextmanager
    def driver(self, pool: Pool, /) -> Iterator[None]:
        self.told.append(f"entered with {pool.slots}")
        try:
            yield
        finally:
            self.told.append(f"left after {pool.submit(work.square, 3).result(60)}")

    @contextmanager
    def worker(self, info: sky.InstanceInfo, /) -> Iterator[None]:
        import os

        os.environ["WORKER"] = f"{info.node}.{info.slot}"
        yield

    @contextmanager
    def task(self, info: sky.InstanceInfo, /) -> Iterator[None]:
        import os

        os.environ["TASK"] = str(int(os.environ.get("TASK", "0")) + 1)
        yield


def surroundings() -> list[str]:
    import os

    return [os.environ[name] for name in ("PLUGIN", "WORKER", "TASK")]


def test_a_plugin_acts_on_driver_image_worker_and_task() -> None:
    recorder = Recorder()
    with sky.Compute(worker=sky.Worker(concurrency=1), plugins=[recorder]) as compute:
        assert [compute.submit(surroundings).result(60) for _ in range(2)] == [["yes", "0.0", "1"], ["yes", "0.0", "2"]]
    assert recorder.told == ["entered with 1", "left after 9"]


def test_a_background_thread_may_hold_the_block() -> None:
    seen: list[int] = []

    def run() -> None:
        with sky.Compute(worker=sky.Worker(concurrency=1)) as compute:
            seen.append(compute.submit(work.square, 6).result(60))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert seen == [36]


def test_a_call_after_an_early_shutdown_is_refused_and_does_not_run_here() -> None:
    with sky.Compute() as compute:
        compute.shutdown()
        with pytest.raises(sky.NoCompute):
            square(3)
    assert square(3) == 9


def test_a_forked_process_is_outside_and_cannot_use_the_pool(compute: sky.Compute) -> None:
    said, say = os.pipe()
    if not (child := os.fork()):
        with contextlib.suppress(BaseException):
            os.write(say, b"%d " % square(3))
            try:
                _ = compute.submit(abs, -1)
            except sky.NoCompute as error:
                os.write(say, str(error)[:23].encode())
        os._exit(0)
    os.close(say)
    os.waitpid(child, 0)

    assert os.read(said, 100) == b"9 this process was forked"
    os.close(said)
    assert square(4) == 16


@pytest.mark.parametrize("hook", ["image", "driver"])
def test_a_plugin_that_gives_back_nothing_is_named(hook: str) -> None:
    plugin = type("Forgetful", (Plugin,), {hook: lambda self, given: None})()

    with pytest.raises(sky.InvalidArgument, match=rf"Forgetful\.{hook} returned None"), sky.Compute(plugins=[plugin]):
        pass


def test_a_link_that_breaks_costs_its_node_and_nothing_else(compute: sky.Compute) -> None:
    first = compute.nodes[0]
    answered = threading.Event()

    async def broken(self: object, outcome: object, tasks: int) -> None:
        answered.set()
        raise RuntimeError("a bug")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_client.NodeClient, "_fetch", broken)
        future = compute.submit_under(CallOptions(node=0), bytes, (2 << 20,), {})
        assert answered.wait(60)
    assert len(future.result(60)) == 2 << 20
    assert compute.nodes[0].instance != first.instance


def test_numbers_of_numpy_are_terms(compute: sky.Compute) -> None:
    assert square.options(timeout=np.float32(5), node=np.int64(1), retries=np.int8(0))(3) == 9  # type: ignore[arg-type]
    assert compute.task_group(limit=np.int64(2)).submit(abs, -1).result(60) == 1  # type: ignore[arg-type]


def test_names_only() -> None:
    with pytest.raises(sky.InvalidArgument, match="takes keyword arguments only"):
        sky.Compute(sky.Local())  # type: ignore[arg-type]
