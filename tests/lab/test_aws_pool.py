"""A pool on EC2: from nothing to results and back to nothing, whatever happens to calls, machines and the driver."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import skyward as sky
from tests import kit, work
from tests.lab.cloud import Cloud
from tests.lab.driver import Driver, Drivers
from tests.lab.host import BOOTED, until
from tests.lab.lab import NEAR

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).parents[2]
TWO = sky.Worker(concurrency=2)

type Make = Callable[..., sky.AWS]


def guards(key: str = "") -> list[psutil.Process]:
    """The guards of this process, or those with an access key."""
    found = []
    for each in psutil.process_iter():
        try:
            if "skyward.providers.aws.watchdog" in each.cmdline() and (
                each.environ().get("AWS_ACCESS_KEY_ID") == key if key else each.ppid() == os.getpid()
            ):
                found.append(each)
        except psutil.Error:
            continue
    return found


# ---------------------------------------------------------------- while the driver lives


def test_ten_machines_are_one_call_and_nothing_is_left(cloud: Cloud, aws: Make) -> None:
    with sky.Compute(provider=aws(), nodes=10, worker=TWO) as compute:
        assert compute.slots == 20
        assert len({node.instance for node in compute.nodes}) == 10
        assert list(compute.map(work.square, range(100))) == [each * each for each in range(100)]
        assert len(cloud.living()) == 10
        assert cloud.keys() == []
        assert cloud.endpoint.count("RunInstances") == 1
    assert cloud.left() == []
    assert guards() == []
    assert cloud.endpoint.count("TerminateInstances") <= 3


def test_tasks_find_what_the_image_brings(cloud: Cloud, aws: Make, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("from here")
    image = sky.Image(
        packages=["numpy"],
        preload=["colorsys"],
        env={"MODE": "fast"},
        apt=["openssh-server"],
        shell=["echo done >$HOME/made"],
        python="python{}.{}".format(*sys.version_info),
        files={"in/data.txt": tmp_path / "data.txt"},
    )

    def look() -> tuple[float, str, str, str]:
        import numpy

        made = Path.home() / "made"
        return float(numpy.arange(4).sum()), Path("in/data.txt").read_text(), os.environ["MODE"], made.read_text()

    with sky.Compute(provider=aws(), worker=TWO, image=image) as compute:
        assert compute.submit(look).result(kit.SOON) == (6.0, "from here", "fast", "done\n")
    assert cloud.left() == []


def test_throttling_slows_a_launch_of_ten_and_does_not_fail_it(cloud: Cloud, aws: Make) -> None:
    throttled = cloud.fail("*", "RequestLimitExceeded", times=math.inf, share=0.3)
    with sky.Compute(provider=aws(), nodes=10, worker=TWO) as compute:
        assert list(compute.map(work.square, range(20))) == [each * each for each in range(20)]
        assert len(cloud.living()) == 10
    assert throttled.hits >= 2
    assert cloud.left() == []


def test_lost_answers_make_no_second_machine(cloud: Cloud, aws: Make) -> None:
    for action in ("CreateSecurityGroup", "RunInstances", "TerminateInstances", "DeleteSecurityGroup"):
        cloud.fail(action, "InternalError", after=True)
    with sky.Compute(provider=aws(), nodes=3) as compute:
        assert {node.instance for node in compute.nodes} == {each.id for each in cloud.living()}
    assert cloud.left() == []


@pytest.mark.parametrize(
    ("code", "error"), [("UnauthorizedOperation", sky.Denied), ("VcpuLimitExceeded", sky.QuotaExceeded)]
)
def test_what_will_not_pass_fails_the_pool_at_once(cloud: Cloud, aws: Make, code: str, error: type[Exception]) -> None:
    cloud.fail("RunInstances", code, times=math.inf)
    with pytest.raises(error):
        sky.Compute(provider=aws(), nodes=3).__enter__()
    assert cloud.endpoint.count("RunInstances") == 1
    assert cloud.left() == []
    assert guards() == []


def test_an_exception_in_the_block_ends_the_machines(cloud: Cloud, aws: Make) -> None:
    with pytest.raises(KeyError), sky.Compute(provider=aws(), nodes=2):
        raise KeyError
    assert cloud.left() == []


def test_a_machine_that_is_taken_back_is_replaced(cloud: Cloud, aws: Make) -> None:
    options = sky.Options(grace=1, lease=20)
    with sky.Compute(provider=aws(spot=True), nodes=2, options=options) as compute:
        lost = compute.nodes[0].instance
        cloud.interrupt(lost, notice=0.1)
        kit.until(lambda: len({node.instance for node in compute.nodes} - {lost}) == 2, BOOTED)
        assert list(compute.map(work.square, range(10))) == [each * each for each in range(10)]
    assert cloud.left() == []


def test_a_machine_that_is_to_be_taken_back_ends_what_it_runs_and_another_is_there_before(
    cloud: Cloud, aws: Make
) -> None:
    options = sky.Options(grace=1, lease=20, retries=0)
    with sky.Compute(provider=aws(spot=True), nodes=2, worker=sky.Worker(concurrency=1), options=options) as compute:
        running = [compute.submit(time.sleep, 12) for _ in range(2)]
        lost = compute.nodes[0].instance
        cloud.interrupt(lost, notice=60)
        kit.until(lambda: len(compute.nodes) == 3, BOOTED)  # the one that is to go, and the one that comes for it
        assert [call.result(BOOTED) for call in running] == [None, None]
        kit.until(lambda: lost not in {node.instance for node in compute.nodes}, BOOTED)
        assert compute.report().retries == {}
        kit.until(lambda: lost not in {each.id for each in cloud.living()}, BOOTED)
        assert list(compute.map(work.square, range(10))) == [each * each for each in range(10)]
    assert cloud.left() == []


def test_a_machine_that_dies_without_a_word_is_replaced_and_ended(cloud: Cloud, aws: Make) -> None:
    with sky.Compute(provider=aws(), nodes=2, options=sky.Options(grace=1, lease=20)) as compute:
        lost = compute.nodes[0].instance
        cloud.crash(lost)
        kit.until(lambda: len({node.instance for node in compute.nodes} - {lost}) == 2, BOOTED)
    assert cloud.left() == []


def test_the_published_guide_runs_on_ten_machines(cloud: Cloud, tmp_path: Path) -> None:
    cloud.used = False
    guide = str(ROOT / "guides" / "10_joblib_concurrency.py")
    words = [sys.executable, guide, "--provider=aws", f"--allow={NEAR}", "--tasks=200", "--seconds=0.2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert "Tasks: 200\nNodes: 10\nConcurrency: 10\n" in ran.stdout, ran.stderr
    assert sum(cloud.spread().values()) == 0
    assert cloud.endpoint.count("RunInstances") == 1
    assert cloud.left() == []


# ---------------------------------------------------------------- when it does not


@pytest.fixture(scope="module")
def drivers() -> Iterator[Drivers]:
    with Drivers() as opened:
        yield opened


@pytest.fixture
def start(drivers: Drivers, cloud: Cloud, tmp_path: Path) -> Callable[..., Driver]:
    """Start a driver, with an access key of its own, whose calls take long."""

    def start(key: str, lease: float = 8, **more: Any) -> Driver:
        provider = {"allow": NEAR, "journal": str(tmp_path / "aws.jsonl"), "max_lifetime": 200.0, "tags": {"key": key}}
        job = {"provider": provider, "nodes": 2, "options": {"lease": lease}, "seconds": 1000} | more
        return drivers.start(tmp_path / key, cloud.environment(key), **job)

    return start


def runs(driver: Driver) -> None:
    until(lambda: "in the block" in driver.said, f"it is in its block: {driver.said}", 2 * BOOTED)


def test_ctrl_c_ends_the_machines_within_ten_seconds(cloud: Cloud, start: Callable[..., Driver]) -> None:
    driver = start("ctrl-c")
    runs(driver)
    began = time.monotonic()
    driver.kill(signal.SIGINT)
    until(lambda: not cloud.living(), "the machines are ended", 10)
    until(lambda: not driver.is_alive, "the driver leaves")
    assert "ended by KeyboardInterrupt" in driver.said
    assert time.monotonic() - began < 15
    assert cloud.left() == []
    assert guards("ctrl-c") == []


def test_after_ctrl_c_no_other_zone_is_asked_for_a_machine(cloud: Cloud, start: Callable[..., Driver]) -> None:
    cloud.capacity = {"*": 0}

    def interrupt(_: object) -> None:
        driver.kill(signal.SIGINT)
        until(lambda: "Dismissed()" in driver.said, "its nodes are dismissed")

    cloud.fail("RunInstances", do=interrupt)
    driver = start("shopping")
    until(lambda: not driver.is_alive, "the driver leaves")
    assert cloud.endpoint.count("RunInstances") == 1
    assert cloud.left() == []


def test_a_second_ctrl_c_is_safe_too(cloud: Cloud, start: Callable[..., Driver]) -> None:
    cloud.fail("TerminateInstances", delay=2)
    driver = start("twice")
    runs(driver)
    for _ in range(2):
        driver.kill(signal.SIGINT)
        until(lambda: any(call.action == "TerminateInstances" for call in cloud.calls), "it is being ended")
    until(lambda: not driver.is_alive, "the driver leaves")
    until(lambda: not cloud.left(), "nothing is left", 40)
    until(lambda: not guards("twice"), "nor is the guard")


def test_what_a_killed_driver_had_is_ended_by_its_guard(cloud: Cloud, start: Callable[..., Driver]) -> None:
    driver = start("killed", lease=60)
    runs(driver)
    driver.kill()
    until(lambda: not cloud.left(), "nothing is left", 40)
    until(lambda: not guards("killed"), "nor is the guard")


def test_if_the_guard_is_killed_too_the_machines_end_themselves(
    cloud: Cloud, start: Callable[..., Driver], aws: Make
) -> None:
    driver = start("alone", lease=15)
    runs(driver)
    (guard,) = guards("alone")
    guard.kill()
    driver.kill()
    until(lambda: not cloud.machines(), "the machines end themselves", 40)
    assert len(cloud.groups()) == 1
    with sky.Compute(provider=aws(), nodes=1):
        pass
    assert cloud.left() == []


def test_an_interpreter_that_leaves_without_leaving_its_block_leaves_nothing(cloud: Cloud, tmp_path: Path) -> None:
    text = (
        "import os, skyward as sky\n"
        f"provider = sky.AWS(allow={NEAR!r}, journal={str(tmp_path / 'journal')!r}, max_lifetime=200.0)\n"
        "compute = sky.Compute(provider=provider, options=sky.Options(lease=8)).__enter__()\nos._exit(0)\n"
    )
    environment = os.environ | cloud.environment("exits") | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", text], env=environment, timeout=100, check=True)
    until(lambda: not cloud.left(), "nothing is left", 40)
    until(lambda: not guards("exits"), "nor is the guard")
