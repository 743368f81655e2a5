"""Nodes far away, and nodes of different speed: what that costs Skyward. Each opens its own pool."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import tasks
from bench.backends import NotInstalledError
from bench.figures import Figures
from bench.plan import Plan

ROUND_TRIP = 0.08
"""Seconds to a node and back in `latency`."""

SECONDS = (5.0, 0.5, 0.05)
"""How long tasks last in `latency`."""

SLOWER = 4.0
"""How many times as long tasks last on node 0 in `uneven`."""


def latency(plan: Plan) -> Figures:
    """The seed shape with 80 ms to each node and back, for long and short tasks: how much of the time was work."""
    figures: dict[str, float] = {}
    with _pool(plan, ROUND_TRIP) as compute:
        for seconds in SECONDS:
            elapsed = _parallel(plan, tasks.sleep, seconds)
            figures[f"efficiency_pct_{seconds:g}s"] = 100 * plan.tasks * seconds / plan.shape.slots / elapsed
        report = compute.report()
    return figures | {f"lost_{name}_pct": 100 * getattr(report.lost, name) for name in report.lost.__slots__}


def far(plan: Plan) -> Figures:
    """The seed shape over SSH, on hosts of the lab at the end of links as `--round-trip` and `--loss` say."""
    began = time.perf_counter()
    with _far_pool(plan) as compute:
        entered = time.perf_counter()
        _parallel(plan, tasks.sleep, 0.05)
        before = compute.report()
        elapsed = _parallel(plan, tasks.sleep, plan.seconds)
        report = compute.report()
    figures = {
        "efficiency_pct": 100 * plan.tasks * plan.seconds / plan.shape.slots / elapsed,
        "elapsed_s": elapsed,
        "enter_s": entered - began,
        "retries": sum(report.retries.values()),
    }
    capacity = report.capacity - before.capacity
    for name in report.lost.__slots__:
        lost = getattr(report.lost, name) * report.capacity - getattr(before.lost, name) * before.capacity
        figures[f"lost_{name}_pct"] = 100 * lost / capacity
    return figures


def uneven(plan: Plan) -> Figures:
    """One node is four times as slow: by how many tasks of a fast node a run takes longer than it has to."""
    with _pool(plan, 0.0) as compute:
        _parallel(plan, tasks.sleep_unevenly, 0.01, SLOWER)
        elapsed = _parallel(plan, tasks.sleep_unevenly, plan.seconds, SLOWER)
        report = compute.report()
    workers = plan.shape.concurrency * (plan.shape.nodes - 1 + 1 / SLOWER)
    ideal = plan.tasks * plan.seconds / workers
    return {
        "elapsed_s": elapsed,
        "ideal_s": ideal,
        "tasks_over_ideal": (elapsed - ideal) / plan.seconds,
        "lost_tail_pct": 100 * report.lost.tail,
    }


@contextmanager
def _pool(plan: Plan, round_trip: float) -> Iterator[Any]:
    if plan.backend != "skyward":
        raise NotInstalledError(f"{plan.backend} cannot be put behind such links here")
    sky, forward = import_module("skyward"), import_module("tests.forward")
    with (
        forward.Links(delay=round_trip / 2) as links,
        sky.Compute(
            provider=links.provider if round_trip else sky.Local(),
            nodes=plan.shape.nodes,
            worker=sky.Worker(concurrency=plan.shape.concurrency, executor=plan.executor),
            plugins=[sky.plugins.joblib()],
        ) as compute,
    ):
        yield compute


@contextmanager
def _far_pool(plan: Plan) -> Iterator[Any]:
    if plan.backend != "skyward":
        raise NotInstalledError(f"{plan.backend} cannot be put on hosts of the lab")
    sky, lab = import_module("skyward"), import_module("tests.lab.lab")
    if reason := lab.why_not():
        raise NotInstalledError(f"no lab here: {reason}")
    lab.enter()
    with tempfile.TemporaryDirectory() as folder, lab.Lab(Path(folder)) as opened:
        hosts = opened.start_many(plan.shape.nodes, python=True, slow=True)
        for host in hosts:
            host.slow(delay=plan.round_trip / 2, loss=plan.loss)
        with sky.Compute(
            provider=sky.SSH(hosts=[host.name for host in hosts], config=opened.config),
            nodes=plan.shape.nodes,
            worker=sky.Worker(concurrency=plan.shape.concurrency, executor=plan.executor),
            plugins=[sky.plugins.joblib()],
        ) as compute:
            yield compute


def _parallel(plan: Plan, fn: Any, *more: float) -> float:
    """Seconds that one `Parallel` over all tasks takes."""
    joblib = import_module("joblib")
    fn = tasks.travelling(fn, by_value=plan.by_value)
    began = time.perf_counter()
    answers = joblib.Parallel(n_jobs=-1, batch_size=plan.batch_size)(
        joblib.delayed(fn)(number, *more) for number in range(plan.tasks)
    )
    elapsed = time.perf_counter() - began
    assert answers == list(range(plan.tasks))
    return elapsed
