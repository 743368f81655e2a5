"""Several backends in one invocation, each in an interpreter of its own, in turn; and what one is to the others.

An interpreter each, because a library that was imported, a pool that left a process behind or a joblib backend that
was registered would be measured with the next one.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from bench.figures import ratio
from bench.measure import Line, failed
from bench.plan import Plan

GRACE = 30.0
"""Seconds that an interrupted backend has to put its processes away."""


def in_turn(plan: Plan, others: Sequence[str], limit: float) -> Iterator[Line]:
    """One line for the plan's own backend and each other one, then the line with their ratio."""
    lines = []
    for backend in (plan.backend, *others):
        lines.append(_alone(replace(plan, backend=backend), limit))
        yield lines[-1]
    ours, *theirs = lines
    yield {
        "ratio": {line["backend"]: _against(ours, line) for line in theirs},
        "of": plan.backend,
        "scenario": plan.scenario,
        "shape": ours["shape"],
    }


def _against(ours: Line, theirs: Line) -> dict[str, float] | str:
    for line in (ours, theirs):
        if "error" in line:
            return f"{line['backend']}: {line['error']}"
    return ratio(ours["figures"], theirs["figures"])


def _alone(plan: Plan, limit: float) -> Line:
    command = [sys.executable, "-m", "bench", *plan.words()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            printed, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            _stop(process)
            return failed(plan, f"no answer after {limit:g} s")
        except KeyboardInterrupt:  # the terminal told the other interpreter too: let it leave its block
            _wait(process)
            raise
    for text in reversed(printed.splitlines()):
        if text.startswith("{"):
            line: Line = json.loads(text)
            return line
    return failed(plan, f"ended with exit code {process.returncode} and without a line")


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    _wait(process)


def _wait(process: subprocess.Popen[str]) -> None:
    try:
        process.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
