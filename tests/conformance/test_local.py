"""What holds for `sky.Local` alone."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

import skyward as sky
from skyward.providers import local as local_provider
from skyward.providers.local import LocalProcess
from skyward.providers.provider import Instance, Process, Provider
from tests import byhand, kit
from tests.conformance.test_provider import ORDER, machine, output, run


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not give nodes that cannot end by themselves all the time of a busy machine."""
    monkeypatch.setattr(local_provider, "TERMINATE_TIMEOUT_S", 2.0)


def local(folder: Path) -> sky.Local:
    return sky.Local(folder=folder)


def test_a_folder_that_others_may_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "skyward-pool-0-0").mkdir(mode=0o755)

    with pytest.raises(sky.ProvisioningError, match="not a folder of this user alone"):
        run(local(tmp_path).launch(ORDER))


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "skyward-pool-0-0").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(sky.ProvisioningError):
        run(local(tmp_path).launch(ORDER))


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "skyward-pool-0-0").touch(mode=0o600)

    with pytest.raises(sky.ProvisioningError):
        run(local(tmp_path).launch(ORDER))


def test_where_there_is_no_place_for_folders_there_is_no_machine(tmp_path: Path) -> None:
    provider = local(tmp_path)
    tmp_path.rmdir()

    with pytest.raises(sky.ProvisioningError, match="cannot make a folder"):
        run(provider.launch(ORDER))


async def boot(provider: Provider, instance: Instance) -> tuple[Process, list[psutil.Process]]:
    """Start a real node on the machine, and return its command and all its processes."""
    host = await provider.reach(instance)
    await host.write(byhand.files(Path(host.folder).name))
    process = await host.start([host.python, "-m", "skyward.remote.node", host.folder])
    stream, line = await anext(process.lines())
    assert stream == "stdout", line
    return process, kit.tree(Path(instance.id).parent)


async def as_it_is(processes: list[psutil.Process]) -> None:
    """Leave the node alone."""


async def frozen(processes: list[psutil.Process]) -> None:
    """A node whose processes do not listen any more."""
    for process in processes:
        process.suspend()


async def headless(processes: list[psutil.Process]) -> None:
    """A node whose parent process is frozen, so that it cannot end the others."""
    processes[0].send_signal(signal.SIGSTOP)


@pytest.mark.parametrize("condition", [as_it_is, frozen, headless])
def test_terminate_ends_every_process_of_a_node_and_removes_its_folder(
    tmp_path: Path, condition: Callable[[list[psutil.Process]], Awaitable[None]]
) -> None:
    async def scenario() -> None:
        provider = local(tmp_path)
        instance = await provider.launch(ORDER)
        process, processes = await boot(provider, instance)
        assert len(processes) == 4
        await condition(processes)
        await provider.terminate(instance)
        await process.wait()

        assert byhand.ended(processes)

    run(scenario())
    assert not list(tmp_path.iterdir())


def test_a_node_whose_parent_process_has_ended_is_found_as_its_folder_with_a_key_is_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        provider = local(tmp_path)
        instance = await provider.launch(ORDER)
        process, processes = await boot(provider, instance)
        os.kill(processes[0].pid, signal.SIGKILL)
        await process.wait()

        assert list(await provider.find("pool")) == [instance]
        await provider.terminate(instance)
        assert list(await provider.find("pool")) == []
        assert byhand.ended(processes)

    run(scenario())
    assert not list(tmp_path.iterdir())


WAITS = [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]
"""A command that does not end when its standard input does."""


def of(process: Process) -> asyncio.subprocess.Process:
    assert isinstance(process, LocalProcess)
    return process._process


@pytest.mark.parametrize("killed", [False, True])
def test_terminate_returns_once_the_loop_has_heard_of_the_end_of_each_command(tmp_path: Path, killed: bool) -> None:
    async def scenario() -> None:
        provider = sky.Local(folder=tmp_path)
        instance = await provider.launch(ORDER)
        host = await provider.reach(instance)
        processes = [of(await host.start(WAITS)) for _ in range(2)]
        if killed:
            processes[0].kill()
        await provider.terminate(instance)

        assert [process.returncode for process in processes] == [-signal.SIGKILL] * 2

    uvloop.run(scenario())


def test_a_start_that_is_cancelled_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        provider = sky.Local(folder=tmp_path)
        instance = await provider.launch(ORDER)
        host = await provider.reach(instance)
        made, may_go_on = asyncio.Event(), asyncio.Event()
        processes = []

        async def slow(*command: str, **how: Any) -> asyncio.subprocess.Process:
            processes.append(await spawned(*command, **how))
            made.set()
            await may_go_on.wait()
            return processes[0]

        monkeypatch.setattr(local_provider, "_spawned", slow)
        starting = asyncio.create_task(host.start([sys.executable, "-c", "input()"]))
        await made.wait()
        starting.cancel()
        ending = asyncio.create_task(provider.terminate(instance))
        await asyncio.wait({starting})
        may_go_on.set()
        await ending

        assert starting.cancelled()
        assert processes[0].returncode is not None

    spawned = local_provider._spawned
    uvloop.run(scenario())


@pytest.mark.filterwarnings("ignore:unclosed resource <UVProcessTransport:ResourceWarning")
def test_a_process_for_which_the_program_itself_has_waited_has_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        provider = sky.Local(folder=tmp_path)
        instance = await provider.launch(ORDER)
        host = await provider.reach(instance)
        process = of(await host.start(WAITS))
        process.kill()
        os.waitpid(process.pid, 0)  # noqa: ASYNC222 - before the loop does
        await provider.terminate(instance)

        assert process.returncode is None

    uvloop.run(scenario())


def test_a_command_does_not_hear_ctrl_c_of_the_driver(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with machine(local(tmp_path)) as (_, host):
            process = await host.start([sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"])

            assert await output(process) == [("stdout", "True")]

    run(scenario())


def test_its_name_is_local(tmp_path: Path) -> None:
    assert partial(local, tmp_path)().name == "local"


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(sky.InvalidArgument, match=r"folder=.*: you may not write into this folder; give a folder"):
        sky.Local(folder=tmp_path)


def test_a_machine_without_a_folder_for_temporary_files_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(prefix: object = None) -> str:
        raise FileNotFoundError

    monkeypatch.setattr("tempfile.gettempdir", gone)
    with pytest.raises(sky.InvalidArgument, match=r"none of the usual folders .* can be written .*; set TMPDIR to a"):
        sky.Compute()


def test_the_path_of_the_folder_may_be_longer_than_that_of_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    with sky.Compute(provider=local(folder), worker=sky.Worker(concurrency=1)) as compute:
        assert compute.submit(abs, -3).result(kit.SOON) == 3
    assert not any(folder.iterdir())
