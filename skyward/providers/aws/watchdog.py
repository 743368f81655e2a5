"""`python -m skyward.providers.aws.watchdog`: ends what a pool has in the cloud when its driver cannot any more.

A process of its own and of its own session, started before anything is created. It waits, with nothing but the standard
library loaded, until the driver says `done` or is gone: killed, crashed, or left by a second Ctrl-C. Then it ends the
pool's machines and removes their security group, again and again until nothing is found any more, twice in a row with
time in between, as a launch may still be under way. Once the group is gone no such launch can succeed.

It is not what the machines' end depends on: if this machine dies, they end themselves when their lease is over, and
their group, which costs nothing, is removed by whoever uses or asks next: see `staleness` and `sky.down`.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
import time
from dataclasses import asdict, dataclass

POLL_INTERVAL_S = 0.5
"""Seconds between two looks whether the driver is still there; usually the end of a pipe says it at once."""

DONE = b"done\n"


@dataclass(frozen=True, slots=True)
class Charge:
    """What a guard looks after: a pool in a region, until the time after which its machines are gone anyway."""

    pool: str
    region: str
    profile: str | None
    journal: str
    settle: float
    lifetime: float


class Watchdog:
    """A guard that runs. The end of the pipe to it is the end of this process, or `dismiss`."""

    def __init__(self, charge: Charge) -> None:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        hears, self._pipe = os.pipe()
        self._pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "skyward.providers.aws.watchdog"],
            os.environ | {"PYTHONPATH": path},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, hears, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setsigmask=[signal.SIGINT, signal.SIGHUP],  # Ctrl-C is for the driver
        )
        os.close(hears)
        os.write(self._pipe, json.dumps(asdict(charge)).encode() + b"\n")

    def dismiss(self) -> None:
        """Nothing is left: it need not do anything."""
        with contextlib.suppress(OSError):
            os.write(self._pipe, DONE)
        os.close(self._pipe)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def main() -> None:
    """Wait, and sweep if the driver has gone without a word."""
    driver = os.getppid()
    os.setsid()
    said = b""
    while os.getppid() == driver:
        ready, _, _ = select.select([0], [], [], POLL_INTERVAL_S)
        if not ready:
            continue
        data = os.read(0, 4096)
        said += data
        if not data or said.endswith(b"\n" + DONE):
            break
    line, _, rest = said.partition(b"\n")
    if rest.endswith(DONE) or not line:
        return
    asyncio.run(_sweep(Charge(**json.loads(line))))


async def _sweep(charge: Charge) -> None:
    from pathlib import Path

    from skyward.providers.aws import resources
    from skyward.providers.aws.api import Api
    from skyward.providers.aws.journal import Journal

    api = Api(charge.region, charge.profile)
    until, clean, pause = time.monotonic() + charge.lifetime, 0, 0.2
    while clean < 2 and time.monotonic() < until:
        try:
            clean = 0 if (await resources.sweep(api, charge.pool)).left else clean + 1
            pause = charge.settle if clean else min(2 * pause, 5.0)
        except Exception:  # noqa: BLE001 - whatever it is, there is nobody to tell, and it may pass
            clean, pause = 0, min(2 * pause, 15.0)
        if clean < 2:
            await asyncio.sleep(pause)
    if clean == 2:
        await Journal(Path(charge.journal)).note("gone", pool=charge.pool, by="guard")


if __name__ == "__main__":
    main()
