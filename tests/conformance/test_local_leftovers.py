"""What ended, or could not be ended, on this machine: nothing is called gone that was not seen to be gone."""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import skyward as sky
from skyward.actors import lifecycle
from skyward.providers import scratch
from skyward.providers.provider import Order
from tests import byhand, kit, work

ONE = sky.Worker(concurrency=1)
ORDER = Order(pool="pool", name="pool-0-0")

DRIVER = """
import os, sys, time
from pathlib import Path
import skyward as sky
if __name__ == "__main__":
    with sky.Compute(provider=sky.Local(folder=sys.argv[1]), worker=sky.Worker(concurrency=1)) as compute:
        print(compute.nodes[0].instance, flush=True)
        time.sleep(600)
"""


@pytest.fixture
def driver(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another program with a pool in `tmp_path`."""
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        yield process
        process.kill()


def folder_of(driver: "subprocess.Popen[str]") -> Path:
    assert driver.stdout is not None
    return Path(driver.stdout.readline().strip())


def run_a_pool(folder: Path) -> None:
    with sky.Compute(provider=sky.Local(folder=folder), worker=ONE) as compute:
        assert compute.submit(work.square, 3).result(kit.SOON) == 9


def test_the_next_pool_clears_what_a_killed_pair_of_driver_and_node_left(
    driver: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    left = folder_of(driver)
    parent, group = map(int, (left / "pids").read_text().split())
    processes = kit.tree(tmp_path)
    os.kill(group, signal.SIGSTOP)  # it cannot end by itself, nor end its workers
    os.kill(parent, signal.SIGKILL)
    driver.kill()
    driver.wait()
    assert (left / "key.pem").exists()

    run_a_pool(tmp_path)

    assert byhand.ended(processes)
    assert not list(tmp_path.iterdir())


def test_a_pool_leaves_alone_what_another_program_uses(driver: "subprocess.Popen[str]", tmp_path: Path) -> None:
    used = folder_of(driver)

    run_a_pool(tmp_path)

    assert [psutil.Process(int(pid)).is_running() for pid in (used / "pids").read_text().split()] == [True, True]
    assert list(tmp_path.iterdir()) == [used]
    driver.kill()
    driver.wait()
    kit.until(lambda: not used.exists())


def test_a_node_whose_driver_has_been_killed_is_left_alone_until_its_parent_process_has_ended_it(
    driver: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    used = folder_of(driver)
    parent, group = map(int, (used / "pids").read_text().split())
    os.kill(parent, signal.SIGSTOP)
    driver.kill()
    driver.wait()

    run_a_pool(tmp_path)

    assert used.exists()
    assert psutil.pid_exists(group)
    os.kill(parent, signal.SIGCONT)
    kit.until(lambda: not used.exists())


def test_a_pool_touches_nothing_that_is_not_certainly_a_folder_of_ours(tmp_path: Path) -> None:
    name = "skyward-11300852-34c31173-0-0"
    for other in ("", "-locked", "-open", "-link"):
        root = tmp_path / f"root{other}"
        (root / name).mkdir(mode=0o700, parents=True)
        (root / name / "data").touch()
    (tmp_path / "root-open" / name / scratch.LOCK_FILE).touch()
    (tmp_path / "root-open" / name).chmod(0o755)
    (tmp_path / "root-link" / name / scratch.LOCK_FILE).symlink_to("data")
    (tmp_path / "root-locked" / "skyward-mine").mkdir(mode=0o700)
    (tmp_path / "root-locked" / "skyward-mine" / scratch.LOCK_FILE).touch()
    held = scratch.lock(tmp_path / "root-locked" / name)

    for root in tmp_path.iterdir():
        assert list(scratch.clear_abandoned(root, "12010852-34c31173")) == []
        assert (root / name / "data").exists()

    os.close(held)
    root = tmp_path / "root-locked"
    assert list(scratch.clear_abandoned(root, "11300852-34c31173")) == []
    assert list(scratch.clear_abandoned(root, "12010852-34c31173")) == [(root / name, None)]
    assert [path.name for path in root.iterdir()] == ["skyward-mine"]


def test_a_folder_with_a_key_that_cannot_be_removed_is_a_leak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(path: Path, **how: Any) -> None:
        how["onexc"](os.rmdir, str(path), OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path)))

    monkeypatch.setattr(lifecycle, "MAX_TERMINATE_ATTEMPTS", 1)
    compute = sky.Compute(provider=sky.Local(folder=tmp_path), worker=ONE).__enter__()
    (node,) = compute.nodes
    os.kill(kit.pids(node)[0], signal.SIGSTOP)  # else it removes the folder by itself
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stuck)
        with pytest.raises(sky.Leaked) as raised:
            compute.__exit__(None, None, None)

    assert raised.value.instances == (node.instance,)
    shutil.rmtree(node.instance)


def test_a_node_of_which_nothing_can_be_read_is_not_said_to_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptor_is_left(*_: object, **__: object) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def scenario() -> None:
        provider = sky.Local(folder=tmp_path)
        instance = await provider.launch(ORDER)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", no_descriptor_is_left)
            with pytest.raises(OSError, match="Too many open files"):
                await provider.terminate(instance)
        await provider.terminate(instance)

    asyncio.run(scenario())


def test_a_folder_that_its_parent_process_removes_at_the_same_time_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    scratch.remove(folder)
    folder.mkdir()
    scratch.remove(folder)
    assert not folder.exists()


def test_a_folder_in_which_a_file_appears_meanwhile_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    arrived: list[object] = []

    def arrive(*where: Any, **how: Any) -> None:
        if not arrived:
            (folder / "key.pem").touch()
            arrived.append(where)
        rmdir(*where, **how)

    folder.mkdir()
    rmdir = os.rmdir
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", arrive)
        scratch.remove(folder)

    assert arrived
    assert not folder.exists()


def test_what_is_written_for_a_node_that_has_ended_makes_no_new_folder(tmp_path: Path) -> None:
    async def write_late() -> None:
        provider = sky.Local(folder=tmp_path)
        instance = await provider.launch(ORDER)
        host = await provider.reach(instance)
        await host.write({"work/data/a.txt": b"a"})
        assert (Path(instance.id) / "work" / "data" / "a.txt").read_bytes() == b"a"
        await provider.terminate(instance)
        with pytest.raises(FileNotFoundError):
            await host.write({"work/data/a.txt": b"a"})

    asyncio.run(write_late())
    assert not list(tmp_path.iterdir())
