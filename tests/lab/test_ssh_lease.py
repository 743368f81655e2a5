"""What is left on machines when the driver is gone, at whatever moment: nothing but the cache."""

import os
import signal
import subprocess
import sys
import time

import pytest

import skyward as sky
from tests.lab.conftest import Hosts
from tests.lab.host import Host, until
from tests.lab.lab import Lab
from tests.lab.test_ssh_pool import OURS, ROOT, nothing_is_left, program, ssh

pytestmark = pytest.mark.timeout(240)

FOLDERS = "echo /home/ubuntu/.cache/skyward/run/*/*/"

WAIT = "async def wait(*_): await asyncio.Event().wait()\n"

MOMENTS = {
    "before a word": (
        f"{WAIT}NodeStarter.run = NodeStarter.renew = wait\n",
        "[ -f ~ubuntu/.cache/skyward/run/*/*/began ]",
    ),
    "before a command": (f"{WAIT}NodeStarter.run = wait\n", "[ -f ~ubuntu/.cache/skyward/run/*/*/lease ]"),
    "while the script waits": (
        "EnvironmentBundle.content = lambda self, name: time.sleep(1000)\n",
        "grep -q WaitingForFiles ~ubuntu/.cache/skyward/run/*/*/.1.out",
    ),
    "during a step": ("image = sky.Image(shell=['sleep 1000'])\n", "pgrep -f '[s]leep 1000'"),
    "before the first contact": (
        f"{WAIT}NodeClient.open = wait\n",
        "grep -q NodeStarted ~ubuntu/.cache/skyward/run/*/*/.1.out",
    ),
}
"""Moments of a start: how a program stays at it, and what is true on the machine then."""


def starting(lab: Lab, host: Host, stay: str) -> subprocess.Popen[bytes]:
    """A program that brings up a node, and stays where it is told to."""
    text = (
        "import asyncio, time\nimport skyward as sky\nfrom skyward.actors.node_starter import NodeStarter\n"
        "from skyward.actors.node_client import NodeClient\nfrom skyward.environment.bundle import EnvironmentBundle\n"
        f"image = sky.Image()\n{stay}"
        f"provider = sky.SSH(hosts=[{host.name!r}], config={str(lab.config)!r})\n"
        "with sky.Compute(provider=provider, image=image, options=sky.Options(lease=10)): pass\n"
    )
    return subprocess.Popen([sys.executable, "-c", text], env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_driver_that_is_killed_while_a_node_starts_leaves_nothing(moment: str, hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(python=True)
    stay, there = MOMENTS[moment]
    with starting(lab, host, stay) as process:
        until(lambda: host.run(f"{there} >/dev/null 2>&1 && echo yes || true"), moment)
        process.send_signal(signal.SIGKILL)

    until(lambda: nothing_is_left(host), "what was started ends itself", 20)
    assert "sleep" not in host.run("ps -e -o args=")
    assert host.run("ls -d ~ubuntu/.cache/skyward/env/*.* 2>/dev/null || true") == ""


@pytest.mark.slow
def test_a_node_that_starts_is_held_for_as_long_as_its_driver_lives(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(python=True)
    stay, there = MOMENTS["before the first contact"]
    with starting(lab, host, stay) as process:
        until(lambda: host.run(f"{there} >/dev/null 2>&1 && echo yes || true"), "it is up")
        folder, until_then = host.run(FOLDERS), time.monotonic() + 13
        while time.monotonic() < until_then:  # longer than a lease
            assert host.run(FOLDERS) == folder
        process.send_signal(signal.SIGKILL)

    until(lambda: nothing_is_left(host), "the node ends itself", 20)


def test_killed_drivers_leave_nothing_however_often(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(used=True)
    for _ in range(3):
        with program(lab, [host], "compute.map(time.sleep, [1000] * 9); time.sleep(1000)", lease=5) as process:
            until(lambda: int(host.run(OURS)) >= 5, "the node runs")
            process.send_signal(signal.SIGKILL)
        until(lambda: nothing_is_left(host), "the node ends itself", 10)


def test_what_a_dead_node_left_is_cleared_by_the_next_start(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(used=True)
    with program(lab, [host], "time.sleep(1000)", lease=5) as process:
        host.run("kill -STOP $(cut -d' ' -f1 /home/ubuntu/.cache/skyward/run/*/*/pids)")
        process.send_signal(signal.SIGKILL)
    host.run("kill -KILL $(cut -d' ' -f1 /home/ubuntu/.cache/skyward/run/*/*/pids)")
    (left,) = host.run("ls /home/ubuntu/.cache/skyward/run/*").split()
    host.run(f"echo 1 | tee /home/ubuntu/.cache/skyward/run/*/{left}/began")
    with sky.Compute(provider=ssh(lab, host)):
        assert left not in host.run("ls /home/ubuntu/.cache/skyward/run/*")
    assert nothing_is_left(host)
