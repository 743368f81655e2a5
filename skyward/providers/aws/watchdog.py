"""`python -m skyward.providers.aws.watchdog`: clears a pool when its driver cannot do so any more.

It is a process and a session of its own, started before anything is created. With only the standard library loaded, it
waits until the driver says `done` or is gone: killed, crashed, or stopped by a second Ctrl-C. Then it terminates the
pool's machines and removes their security group, repeatedly until two sweeps in a row, with time in between, find
nothing: a launch may still be under way. Once the group is gone, no such launch can succeed.

The machines do not depend on it: if this computer crashes, they shut themselves down when their lease expires. Their
group, which costs nothing, is removed by the next pool or by `sky.down`: see `staleness`.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

DRIVER_POLL_INTERVAL_S = 0.5
"""Seconds between two checks whether the driver still runs; usually the end of a pipe says so at once."""

MAX_CLEAR_DELAY_S = 15.0
"""Seconds between two attempts to clear the pool, at most."""

DONE = b"done\n"


@dataclass(frozen=True, slots=True)
class WatchedPool:
    """The pool that a watchdog clears, and the seconds after which its machines have shut themselves down anyway."""

    pool: str
    region: str
    profile: str | None
    journal: str
    settle: float
    lifetime: float


def start(watched: WatchedPool) -> Callable[[], None]:
    """Start a watchdog and return the function that dismisses it. Without that, it acts once this process is gone."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    reader, pipe = os.pipe()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "skyward.providers.aws.watchdog"],
        os.environ | {"PYTHONPATH": path},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, reader, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ],
        setsigmask=[signal.SIGINT, signal.SIGHUP],  # Ctrl-C is for the driver
    )
    os.close(reader)
    os.write(pipe, json.dumps(asdict(watched)).encode() + b"\n")

    def dismiss() -> None:
        with contextlib.suppress(OSError):
            os.write(pipe, DONE)
        os.close(pipe)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    return dismiss


def main() -> None:
    """Wait, and clear the pool if the driver is gone without saying so."""
    driver = os.getppid()
    os.setsid()
    said = b""
    while os.getppid() == driver:
        ready, _, _ = select.select([0], [], [], DRIVER_POLL_INTERVAL_S)
        if not ready:
            continue
        data = os.read(0, 4096)
        said += data
        if not data or said.endswith(b"\n" + DONE):
            break
    line, _, rest = said.partition(b"\n")
    if rest.endswith(DONE) or not line:
        return
    asyncio.run(_clear(WatchedPool(**json.loads(line))))


async def _clear(watched: WatchedPool) -> None:
    import math
    from functools import partial
    from pathlib import Path

    from skyward.providers.aws.api import Api
    from skyward.providers.aws.journal import Journal
    from skyward.providers.aws.termination import Terminator
    from skyward.retry import backoff, retry

    terminator = Terminator(Api(watched.region, watched.profile))
    clear = partial(terminator.clear, watched.pool, math.inf, watched.settle, always_twice=True)
    async with asyncio.timeout(watched.lifetime):
        # whatever the error is, there is nobody to tell, and it may pass
        await retry(clear, on=Exception, delays=backoff(longest=MAX_CLEAR_DELAY_S))
    await Journal(Path(watched.journal)).note("gone", pool=watched.pool, by="guard")


if __name__ == "__main__":
    main()
