"""The contract of plugins, and a second plugin that needs nothing else: the one of the guide."""

import importlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import skyward as sky
from skyward.plugins import Plugin, Pool
from tests import kit, work

ONE = sky.Worker(concurrency=1)
GUIDES = Path(__file__).parents[2] / "guides"


# ---------------------------------------------------------------- a plugin for `multiprocessing.Pool`


@pytest.fixture(scope="module")
def guide() -> Iterator[ModuleType]:
    """The module of the guide, which nodes import too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(GUIDES)
        yield importlib.import_module("09_a_new_plugin")


@pytest.fixture(scope="module")
def compute(guide: ModuleType) -> Iterator[sky.Compute]:
    with sky.Compute(nodes=2, worker=ONE, plugins=[guide.Multiprocessing(guide.greet)]) as pool:
        yield pool


def test_its_map_and_starmap_keep_the_order(compute: sky.Compute) -> None:
    with multiprocessing.Pool() as pool:
        assert pool.map(work.square, range(20)) == [x * x for x in range(20)]
        assert pool.starmap(pow, [(2, 3), (3, 2)]) == [8, 9]


def test_its_unordered_results_are_all_there(compute: sky.Compute) -> None:
    with multiprocessing.Pool(2) as pool:
        assert sorted(pool.imap_unordered(work.square, range(20))) == [x * x for x in range(20)]


def test_its_asynchronous_result_is_had_later_and_elsewhere(compute: sky.Compute) -> None:
    with multiprocessing.Pool() as pool:
        result = pool.apply_async(work.pid)
        assert result.get(kit.SOON) != os.getpid()
        assert result.ready()


def test_its_exceptions_are_those_of_the_function(compute: sky.Compute) -> None:
    with multiprocessing.Pool() as pool, pytest.raises(LookupError, match="not there"):
        pool.map(work.fail, ["not there"])


def test_its_number_of_processes_limits_what_runs_at_once(compute: sky.Compute, bell: kit.Bell) -> None:
    with multiprocessing.Pool(1) as pool:
        results = [pool.apply_async(work.ring, (bell.port,)) for _ in range(3)]
        for result in results:
            line = bell.answer()
            assert bell.is_silent()
            line.release()
            assert result.get(kit.SOON) == b"on"


def test_leaving_it_stops_what_it_runs_as_it_does_for_the_original(compute: sky.Compute, bell: kit.Bell) -> None:
    with multiprocessing.Pool() as pool:
        pool.apply_async(work.ring, (bell.port,))
        line = bell.answer()

    assert line.hears_the_end()


def test_its_initializer_ran_and_its_processes_have_names(compute: sky.Compute, guide: ModuleType) -> None:
    assert compute.broadcast(guide.where) == ["hello from node 0, slot 0", "hello from node 1, slot 0"]


def test_the_original_is_back_after_an_exception(guide: ModuleType, compute: sky.Compute) -> None:
    before = multiprocessing.Pool

    def fail() -> None:
        with sky.Compute(worker=ONE, plugins=[guide.Multiprocessing(guide.greet)]):
            assert multiprocessing.Pool is not before
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert multiprocessing.Pool is before


# ---------------------------------------------------------------- hooks on the driver


class Told(Plugin):
    """Notes what it is asked, and fails where it is told to."""

    def __init__(self, name: str, log: list[str], fails: str = "") -> None:
        self.name, self.log, self.fails = name, log, fails

    def note(self, what: str) -> None:
        self.log.append(f"{self.name} {what}")
        if what == self.fails:
            raise LookupError(f"{self.name} fails to be {what}")

    def image(self, image: sky.Image, /) -> sky.Image:
        self.note("asked for an image")
        return image.with_packages({"a": "numpy", "b": "joblib"}[self.name]).with_preload("tests.work")

    @contextmanager
    def driver(self, pool: Pool, /) -> Iterator[None]:
        self.note("entered")
        assert pool.submit(work.square, 3).result(kit.SOON) == 9
        try:
            yield
        finally:
            assert pool.submit(work.square, 4).result(kit.SOON) == 16
            self.note("left")


ENTERED = ["a asked for an image", "b asked for an image", "a entered", "b entered"]
LEFT = ["b left", "a left"]


def test_plugins_are_entered_in_order_and_left_in_reverse_while_the_pool_works() -> None:
    log: list[str] = []
    with sky.Compute(worker=ONE, plugins=[Told("a", log), Told("b", log)]):
        assert log == ENTERED

    assert log == ENTERED + LEFT


def test_plugins_are_left_also_after_an_exception_which_stays_what_it_was() -> None:
    log: list[str] = []

    def fail() -> None:
        with sky.Compute(worker=ONE, plugins=[Told("a", log), Told("b", log)]):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert log == ENTERED + LEFT


@pytest.mark.parametrize(
    ("what", "noted"),
    [
        ("asked for an image", ENTERED[:2]),
        ("entered", [*ENTERED, "a left"]),
        ("left", [*ENTERED, *LEFT]),
    ],
)
def test_what_a_plugin_raises_here_reaches_the_caller_and_leaves_nothing(
    what: str, noted: list[str], tmp_path: Path
) -> None:
    log: list[str] = []
    plugins = [Told("a", log), Told("b", log, fails=what)]

    with pytest.raises(LookupError, match=f"b fails to be {what}"), ExitStack() as stack:
        stack.enter_context(sky.Compute(provider=sky.Local(folder=tmp_path), worker=ONE, plugins=plugins))
    assert log == noted
    kit.assert_nothing_left(tmp_path, [])


def test_images_of_all_plugins_add_up_and_the_users_own_stays_as_it_was() -> None:
    image, seen = sky.Image(packages=["casty"], preload=["colorsys"]), list[sky.Image]()

    class Last(Plugin):
        def image(self, image: sky.Image, /) -> sky.Image:
            seen.append(image)
            return image

    with sky.Compute(worker=ONE, image=image, plugins=[Told("a", []), Told("b", []), Last()]) as compute:
        loaded = compute.submit(lambda: {"colorsys", "tests.work"} <= set(sys.modules)).result(kit.SOON)

    assert loaded
    assert seen == [sky.Image(packages=["casty", "numpy", "joblib"], preload=["colorsys", "tests.work"])]
    assert image == sky.Image(packages=["casty"], preload=["colorsys"])


# ---------------------------------------------------------------- hooks on the nodes


class Counting(Plugin):
    """Counts, where they happen, the workers and the calls; fails at a call that is told so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def worker(self, info: sky.InstanceInfo, /) -> Iterator[None]:
        with (self.folder / f"worker-{os.getpid()}").open("a") as file:
            file.write("entered ")
            file.flush()
            yield
            file.write("left ")

    @contextmanager
    def task(self, info: sky.InstanceInfo, /) -> Iterator[None]:
        with (self.folder / f"task-{info.node}-{info.slot}").open("a") as file:
            file.write("entered ")
            try:
                yield
            finally:
                file.write("left ")

    def noted(self, what: str) -> list[str]:
        return [path.read_text() for path in sorted(self.folder.glob(f"{what}-*"))]


@pytest.mark.parametrize(("executor", "workers"), [("process", 4), ("thread", 2)])
def test_a_worker_is_entered_once_in_each_process_and_left_at_the_end(
    executor: Any, workers: int, tmp_path: Path, bell: kit.Bell
) -> None:
    plugin = Counting(tmp_path)
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2, executor=executor), plugins=[plugin]) as compute:
        assert plugin.noted("worker") == ["entered "] * workers
        assert list(compute.map(work.square, range(20))) == [x * x for x in range(20)]
        assert plugin.noted("worker") == ["entered "] * workers

    assert plugin.noted("worker") == ["entered left "] * workers


def test_a_task_is_entered_and_left_around_each_call_whatever_becomes_of_it(tmp_path: Path) -> None:
    plugin = Counting(tmp_path)
    with sky.Compute(worker=ONE, plugins=[plugin]) as compute:
        compute.submit(work.square, 3).result(kit.SOON)
        with pytest.raises(LookupError):
            compute.submit(work.fail, "text").result(kit.SOON)
        assert compute.submit((tmp_path / "task-0-0").read_text).result(kit.SOON) == "entered left " * 2

    assert plugin.noted("task") == ["entered left " * 3]


def test_a_new_process_of_a_slot_is_entered_anew(tmp_path: Path) -> None:
    plugin = Counting(tmp_path)
    with sky.Compute(worker=ONE, plugins=[plugin]) as compute:
        assert compute.submit(work.die_once, tmp_path / "mark").result(kit.SOON) == "second attempt"

    assert [note.split()[0] for note in plugin.noted("worker")] == ["entered", "entered"]


class Failing(Plugin):
    """Raises in one of the hooks of a node."""

    def __init__(self, hook: str) -> None:
        self.hook = hook

    def worker(self, info: sky.InstanceInfo, /) -> AbstractContextManager[object]:
        return self.context("worker")

    def task(self, info: sky.InstanceInfo, /) -> AbstractContextManager[object]:
        return self.context("task")

    @contextmanager
    def context(self, hook: str) -> Iterator[None]:
        if self.hook == f"entering a {hook}":
            raise LookupError(self.hook)
        yield
        if self.hook == f"leaving a {hook}":
            raise LookupError(self.hook)


@pytest.mark.parametrize("hook", ["entering a task", "leaving a task"])
def test_what_a_plugin_raises_around_a_call_is_what_the_call_raises(hook: str) -> None:
    with sky.Compute(worker=ONE, plugins=[Failing(hook)]) as compute:
        for _ in range(2):
            with pytest.raises(LookupError, match=hook) as caught:
                compute.submit(work.square, 3).result(kit.SOON)
            assert "raise LookupError(self.hook)" in str(caught.value.__cause__)


def test_what_a_plugin_raises_in_a_worker_fails_the_pool_and_is_told(tmp_path: Path) -> None:
    pool = sky.Compute(
        provider=sky.Local(folder=tmp_path),
        worker=ONE,
        plugins=[Failing("entering a worker")],
        options=sky.Options(launch_attempts=1),
    )
    with pytest.raises(sky.BootFailed, match=r"\.worker raised LookupError: entering a worker"), pool:
        pass
    kit.assert_nothing_left(tmp_path, [])


def test_what_a_plugin_raises_while_a_worker_leaves_changes_nothing() -> None:
    with sky.Compute(worker=ONE, plugins=[Failing("leaving a worker")]) as compute:
        assert compute.submit(work.square, 3).result(kit.SOON) == 9


class Slow(Plugin):
    """Takes a second to leave a worker."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @contextmanager
    def worker(self, info: sky.InstanceInfo, /) -> Iterator[None]:
        yield
        time.sleep(1.0)
        self.file.write_text("left")


def test_an_idle_worker_has_time_to_leave_its_plugins(tmp_path: Path) -> None:
    with sky.Compute(worker=ONE, plugins=[Slow(tmp_path / "slow")]) as compute:
        assert compute.submit(work.square, 3).result(kit.SOON) == 9

    assert (tmp_path / "slow").read_text() == "left"


class Held(Plugin):
    """One that cannot be sent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def task(self, info: sky.InstanceInfo, /) -> AbstractContextManager[object]:
        return self.lock


def test_a_plugin_that_cannot_travel_is_named_before_anything_starts(tmp_path: Path) -> None:
    with (
        pytest.raises(sky.NotPortable, match=r"Held cannot be sent to a node: args\[0\]\.lock"),
        sky.Compute(provider=sky.Local(folder=tmp_path), plugins=[Held()]),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_plugin_without_hooks_for_nodes_stays_here(tmp_path: Path) -> None:
    class Here(Plugin):
        lock = threading.Lock()

        def driver(self, pool: Pool, /) -> AbstractContextManager[object]:
            return self.lock

    with sky.Compute(worker=ONE, plugins=[Here()]) as compute:
        assert Here.lock.locked()
        assert compute.submit(work.square, 2).result(kit.SOON) == 4
    assert not Here.lock.locked()
