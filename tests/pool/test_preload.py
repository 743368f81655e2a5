"""What calls need is imported once for all workers of a node, and an import that goes wrong costs nothing else."""

import importlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

import skyward as sky
from skyward.plugins.plugin import Plugin
from tests import kit, work
from tests.kit import Bell

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere modules are imported by each worker")

WAIT = 30.0

SLOW = "import time\ntime.sleep(0.2)\n"
"""Of what takes less to import, each worker has its own."""

RING = "import socket\nwith socket.create_connection(('127.0.0.1', {port})) as line:\n"
RING += "    line.sendall(b'%d\\n' % os.getpid())\n    line.recv(100)\n"
"""Waits, at import, until a test goes on."""

WORK = "from tests import work\ndef ring(port):\n    return work.ring(port)\ndef square(x):\n    return x * x\n"

numbers = itertools.count()

type Install = Callable[..., "Installed"]


class Installed:
    """A package that notes who imports it, and does `body` when it is imported on a node."""

    def __init__(self, folder: Path, body: str) -> None:
        self.name = f"installed_{next(numbers)}"
        self.notes = folder / f"{self.name}.imports"
        self.notes.touch()
        does = "".join(f"    {line}\n" for line in body.splitlines())
        note = f"    with open({str(self.notes)!r}, 'a') as notes:\n        print(os.getpid(), file=notes)\n"
        (folder / f"{self.name}.py").write_text(f"import os\nif os.getpid() != {os.getpid()}:\n{note}{does}{WORK}")

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(self.name)

    def imports(self) -> int:
        """How often it was imported on nodes."""
        return len(self.notes.read_text().split())


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return lambda body="": Installed(folder, body)


@contextmanager
def pool(nodes: int = 1, slots: int = 3, **more: Any) -> Iterator[sky.Compute]:
    with sky.Compute(nodes=nodes, worker=sky.Worker(concurrency=slots), **more) as compute:
        yield compute


def all_slots(compute: sky.Compute, bell: Bell, ring: Callable[[int], object]) -> set[int]:
    """Run a call on all slots at once, and return the processes."""
    waiting = [compute.submit(ring, bell.port) for _ in range(compute.slots)]
    lines = [bell.answer() for _ in waiting]
    for line in lines:
        line.release()
    assert not futures.wait(waiting, WAIT).not_done
    assert all(each.exception() is None for each in waiting)
    return {line.pid for line in lines}


def zygote_children(compute: sky.Compute) -> set[int]:
    return {child.pid for child in psutil.Process(kit.pids(compute.nodes[0])[1]).children()}


@pytest.mark.parametrize(("nodes", "slots"), [(2, 2), (1, 4)])
def test_what_a_call_refers_to_is_imported_once_on_each_node(
    install: Install, bell: Bell, nodes: int, slots: int
) -> None:
    installed = install(SLOW)
    with pool(nodes, slots) as compute:
        assert len(all_slots(compute, bell, installed.module.ring)) == nodes * slots
        assert installed.imports() == nodes


def test_what_a_function_of_the_script_imports_first_is_imported_once(install: Install, bell: Bell) -> None:
    installed = install(SLOW)
    script: dict[str, Any] = {"__name__": "__main__"}
    exec(f"def ring(port):\n    from {installed.name} import ring\n    return ring(port)\n", script)
    with pool() as compute:
        assert len(all_slots(compute, bell, script["ring"])) == 3
        assert installed.imports() == 1


def test_what_a_module_of_the_users_own_imports_first_is_imported_once(
    install: Install, bell: Bell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = install(SLOW)
    own = f"own_{installed.name}"
    (tmp_path / f"{own}.py").write_text(
        f'"""A helper."""\nimport {installed.name} as other\nring = lambda x: other.ring(x)\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pool() as compute:
        assert len(all_slots(compute, bell, importlib.import_module(own).ring)) == 3
        assert installed.imports() == 1


def test_a_second_package_is_imported_beside_the_first(install: Install, bell: Bell) -> None:
    first, second = install(SLOW), install(SLOW)
    with pool() as compute:
        assert compute.submit(first.module.square, 3).result(WAIT) == 9
        all_slots(compute, bell, second.module.ring)
        assert first.imports() == 1
        assert second.imports() == 2  # once for the workers that had run nothing, and by the one that had


def test_packages_that_are_imported_in_no_time_stay_imported(install: Install, bell: Bell) -> None:
    packages = [install(SLOW), *(install() for _ in range(12))]
    script: dict[str, Any] = {"__name__": "__main__"}
    imports = "".join(f"    import {each.name}\n" for each in packages)
    exec(f"def ring(port):\n{imports}    return {packages[0].name}.ring(port)\n", script)
    with pool(slots=2) as compute:
        all_slots(compute, bell, script["ring"])
        assert [each.imports() for each in packages] == [1] * len(packages)


def test_a_worker_in_the_place_of_one_that_died_has_what_was_imported(install: Install, bell: Bell) -> None:
    installed = install(SLOW)
    with pool() as compute:
        before = all_slots(compute, bell, installed.module.ring)
        for pid in before:
            kit.kill(pid)
        after = all_slots(compute, bell, installed.module.ring)
        assert not before & after
        assert installed.imports() == 1


def test_a_worker_that_has_run_a_call_is_not_replaced(install: Install) -> None:
    installed = install(SLOW)
    with pool(slots=1) as compute:
        pid = compute.submit(work.pid).result(WAIT)
        assert compute.submit(installed.module.square, 3).result(WAIT) == 9
        assert compute.submit(work.pid).result(WAIT) == pid


def test_threads_import_it_once_anyway(install: Install, bell: Bell) -> None:
    installed = install(SLOW)
    with sky.Compute(worker=sky.Worker(concurrency=3, executor="thread")) as compute:
        assert len(all_slots(compute, bell, installed.module.ring)) == 1
        assert installed.imports() == 1


class Prepares(Plugin):
    """Notes which processes it prepares."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    @contextmanager
    def _noted(self) -> Iterator[None]:
        with self.notes.open("a") as notes:
            print(os.getpid(), file=notes)
        yield

    def worker(self, info: sky.InstanceInfo, /) -> AbstractContextManager[None]:
        return self._noted()


def test_what_a_plugin_has_prepared_is_not_replaced(install: Install, bell: Bell, tmp_path: Path) -> None:
    installed, notes = install(SLOW), tmp_path / "prepared"
    with pool(plugins=[Prepares(notes)]) as compute:
        ran = all_slots(compute, bell, installed.module.ring)
    assert ran == set(map(int, notes.read_text().split()))


# ------------------------------------------------------------ imports that go wrong


def test_an_import_that_raises_is_the_error_of_the_calls_that_need_it(install: Install) -> None:
    installed, other = install("raise OSError('no such device')"), install(SLOW)
    with pool(slots=2) as compute:
        before = compute.nodes[0].instance
        failing = [compute.submit(installed.module.square, x) for x in range(4)]
        working = [compute.submit(other.module.square, x) for x in range(4)]
        for each in failing:
            with pytest.raises(OSError, match="no such device"):
                each.result(WAIT)
        assert [each.result(WAIT) for each in working] == [0, 1, 4, 9]
        assert compute.nodes[0].instance == before


@pytest.mark.parametrize("body", ["raise SystemExit(3)", "raise KeyboardInterrupt"])
def test_an_import_that_exits_is_the_error_of_the_calls_that_need_it(install: Install, body: str) -> None:
    installed = install(body)
    with pool(slots=2) as compute:
        with pytest.raises(sky.RemoteError, match=r"called sys\.exit\(3\)|raised KeyboardInterrupt"):
            compute.submit(installed.module.square, 3).result(WAIT)
        assert compute.submit(work.square, 3).result(WAIT) == 9


@pytest.mark.parametrize("body", ["os._exit(3)", f"os.kill(os.getpid(), {int(signal.SIGSEGV)})"])
def test_an_import_that_ends_its_process_costs_the_call_and_no_node(install: Install, body: str) -> None:
    installed = install(body)
    with pool(slots=2) as compute:
        before = compute.nodes[0].instance
        with pytest.raises(sky.BatchLost, match=r"exit code 3|SIGSEGV"):
            compute.submit(installed.module.square, 3).result(WAIT)
        assert compute.submit(work.square, 3).result(WAIT) == 9
        assert compute.nodes[0].instance == before


def test_what_starts_a_thread_is_imported_by_each_worker(install: Install, bell: Bell) -> None:
    installed = install(f"{SLOW}import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()")
    with pool() as compute:
        assert len(all_slots(compute, bell, installed.module.ring)) == 3
        assert installed.imports() == 4  # by each of the three, and once to see that there is a thread


def test_threads_of_numerical_libraries_do_no_harm(bell: Bell) -> None:
    np = pytest.importorskip("numpy")
    with pool(slots=2, image=sky.Image(env={"OPENBLAS_NUM_THREADS": "3"})) as compute:
        products = [compute.submit(np.dot, np.eye(200), np.full((200, 200), x)) for x in range(8)]
        assert [each.result(WAIT)[0, 0] for each in products] == list(range(8))


def test_what_an_import_prints_is_shown_once(install: Install, bell: Bell, capfd: pytest.CaptureFixture[str]) -> None:
    installed = install(f"{SLOW}print('welcome to', __name__)")
    with pool(options=sky.Options(console="plain")) as compute:
        all_slots(compute, bell, installed.module.ring)
    said = capfd.readouterr()
    assert (said.out + said.err).count(f"welcome to {installed.name}") == 1


# ------------------------------------------------------------ what dies meanwhile


@pytest.mark.kill
def test_workers_that_are_killed_during_the_import_lose_no_call(install: Install, bell: Bell) -> None:
    with pool(slots=3) as compute:
        workers = zygote_children(compute)
        installed = install(RING.format(port=bell.port) + SLOW)
        terms = sky.remote(retries=0)(installed.module.square)
        results = [terms.remote(x) for x in range(9)]
        line = bell.answer()
        assert line.pid not in workers
        for pid in workers:
            kit.kill(pid)
        kit.until(lambda: not workers & zygote_children(compute))
        line.release()
        assert [each.result(WAIT) for each in results] == [x * x for x in range(9)]
        assert installed.imports() == 1


@pytest.mark.kill
def test_an_import_that_is_killed_is_left_to_the_workers(install: Install, bell: Bell) -> None:
    with pool(slots=2) as compute:
        workers = zygote_children(compute)
        installed = install(RING.format(port=bell.port))
        results = [compute.submit(installed.module.square, x) for x in range(2)]
        kit.kill(bell.answer().pid)
        lines = [bell.answer() for _ in results]
        assert {line.pid for line in lines} == workers
        for line in lines:
            line.release()
        assert [each.result(WAIT) for each in results] == [0, 1]


@pytest.mark.kill
def test_workers_are_forked_without_a_template_when_that_is_killed(install: Install, bell: Bell) -> None:
    installed = install(SLOW)
    with pool(slots=2) as compute:
        workers = all_slots(compute, bell, installed.module.ring)
        (template,) = zygote_children(compute) - workers
        for pid in (template, *workers):
            kit.kill(pid)
        assert len(all_slots(compute, bell, installed.module.ring)) == 2
        assert installed.imports() == 3


def test_a_call_that_is_late_during_the_import_is_stopped(install: Install, bell: Bell) -> None:
    with pool(slots=2) as compute:
        installed = install(RING.format(port=bell.port) + SLOW)
        late = sky.remote(timeout=0.5)(installed.module.square).remote(3)
        line = bell.answer()
        with pytest.raises(TimeoutError):
            late.result(WAIT)
        line.release()
        assert compute.submit(installed.module.square, 3).result(WAIT) == 9
        assert installed.imports() == 1


def test_a_call_that_is_cancelled_during_the_import_never_begins(install: Install, bell: Bell) -> None:
    with pool(slots=1) as compute:
        installed = install(RING.format(port=bell.port) + SLOW)
        with compute.task_group() as group:
            group.submit(installed.module.square, 3)
            line = bell.answer()
            group.cancel()
        line.release()
        assert compute.submit(installed.module.square, 4).result(WAIT) == 16


def test_a_block_is_left_at_once_while_an_import_hangs(install: Install, bell: Bell) -> None:
    installed = install(RING.format(port=bell.port))

    def leave() -> None:
        with pool(slots=1) as compute:
            waiting = compute.submit(installed.module.square, 3)
            lines.append(bell.answer())
            assert not waiting.done()
            raise ZeroDivisionError

    lines: list[kit.Line] = []
    with pytest.raises(ZeroDivisionError):
        leave()
    assert lines[0].hears_the_end()
