"""When a block is left early, the terminal shows what is meant for users, and nothing of what goes on inside."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, os, signal, sys, time
import skyward as sky
from skyward.actors import routing; from skyward.actors import placement
from skyward.providers import local

class Interrupted(sky.Local):
    async def launch(self, order):
        instance = await super().launch(order)
        if sys.argv[1] == "a Ctrl-C during the start":
            os.kill(os.getpid(), signal.SIGINT)
        if sys.argv[1] == "an error during the start":
            raise sky.Denied("not here")
        return instance

    async def terminate(self, instance):
        await super().terminate(instance)
        if sys.argv[1] == "while the router is about to look":
            # the loop ends after that
            asyncio.get_running_loop().run_in_executor(None, time.sleep, 3 * placement.REBALANCE_INTERVAL_S)

async def spawned(*command, **how):
    process = await spawn(*command, **how)
    if sys.argv[1] == "a Ctrl-C when a process has started":
        os.kill(os.getpid(), signal.SIGINT)
    return process

spawn, local._spawned = local._spawned, spawned

if __name__ == "__main__":
    if sys.argv[1] == "while the router is about to look":
        routing.steal = lambda state, *, looked: ({}, True)
    try:
        with sky.Compute(provider=Interrupted(), nodes=3, worker=sky.Worker(concurrency=1)) as compute:
            waiting = [compute.submit(time.sleep, 600) for _ in range(9)]
            if sys.argv[1] == "a Ctrl-C in the block":
                os.kill(os.getpid(), signal.SIGINT)
            raise LookupError("mine")
    except (KeyboardInterrupt, LookupError, sky.SkywardError) as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("what", "raised"),
    [
        ("a Ctrl-C during the start", "KeyboardInterrupt"),
        ("a Ctrl-C when a process has started", "KeyboardInterrupt"),
        ("an error during the start", "Denied"),
        ("a Ctrl-C in the block", "KeyboardInterrupt"),
        ("an error in the block", "LookupError"),
        ("while the router is about to look", "LookupError"),
    ],
)
def test_what_leaves_a_block_early_shows_nothing_internal(what: str, raised: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "always:unclosed resource <UV", "-c", PROGRAM, what],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert (ran.stdout, ran.returncode) == (f"{raised}\n", 0)
    assert ran.stderr == ""
