"""Drivers to kill: programs with a pool on EC2, forked from one that has imported everything.

`python -m tests.lab.driver` reads a line of JSON for each program on standard input, and answers with its pid. What the
program's log and its block say goes to the file that the line names.
"""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]


class Drivers:
    """Where drivers come from."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self._lock = threading.Lock()
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        )

    def start(self, said: Path, environment: Mapping[str, str], **job: Any) -> "Driver":
        """Start one; see `run` for what a job is."""
        stdin, stdout = self._parent.stdin, self._parent.stdout
        assert stdin is not None
        assert stdout is not None
        said.touch()
        with self._lock:
            stdin.write(json.dumps({"said": str(said), "environment": dict(environment), **job}) + "\n")
            stdin.flush()
            return Driver(int(stdout.readline()), said)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.close()
        self._parent.wait(20)
        self._parent.stdout.close()


class Driver:
    """A driver that runs, and what it has said."""

    def __init__(self, pid: int, said: Path) -> None:
        self.pid, self._said = pid, said

    @property
    def said(self) -> str:
        """All that it has said."""
        return self._said.read_text()

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return Path(f"/proc/{self.pid}").exists()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal, if it is still there."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return


def say(text: str) -> None:
    """Print a line at once."""
    os.write(1, f"{text}\n".encode())


def main() -> None:
    """Fork a driver for each line."""
    import aioboto3  # noqa: F401 - so that no driver has to
    import botocore.config  # noqa: F401

    import skyward.api.compute
    import skyward.providers.aws.pool
    import skyward.providers.ssh.tunnel  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            run(job)
        say(str(pid))


def run(job: Mapping[str, Any]) -> None:
    """Be a driver: a pool with the job's provider, nodes and options, in whose block its calls are made."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.update(job["environment"])
    said = os.open(job["said"], os.O_WRONLY | os.O_APPEND)
    for fd in (1, 2):
        os.dup2(said, fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    random.seed()
    logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)d %(message)s")
    for name in ("botocore", "aiobotocore", "asyncio", "asyncssh"):
        logging.getLogger(name).setLevel(logging.WARNING)
    import skyward as sky

    code = 0
    try:
        with sky.Compute(
            provider=sky.AWS(**job["provider"]),
            nodes=job["nodes"],
            worker=sky.Worker(concurrency=2),
            options=sky.Options(**job["options"]),
        ) as compute:
            say("in the block")
            for _ in compute.map(time.sleep, [job["seconds"]] * (4 * job["nodes"])):
                pass
            if job.get("raises"):
                raise ValueError(job["raises"])
        say("after the block")
    except BaseException as error:  # noqa: BLE001 - whatever ends it is said
        say(f"ended by {type(error).__name__}: {error}")
        code = 1
    os._exit(code)


if __name__ == "__main__":
    main()
