"""One run of one plan, as the line that is printed."""

import os
import platform
import time
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, assert_never

from bench.backends import BACKENDS
from bench.figures import Figures, rounded, summary
from bench.machine import speed
from bench.plan import Plan
from bench.scenarios import SCENARIOS, Steady, Whole, warm_up

type Line = dict[str, Any]


def run(plan: Plan) -> Line:
    """Do what the plan says and describe what came out and where."""
    backend, scenario = BACKENDS[plan.backend], SCENARIOS[plan.scenario]
    line = _heading(plan)
    start = time.perf_counter()
    backend.load()
    line["import_s"] = rounded(time.perf_counter() - start)
    line["versions"] = _versions(backend.packages)
    runs: list[Figures]
    match scenario:
        case Steady():
            line["settings"] |= {name: getattr(plan, name) for name in scenario.settings}
            with backend.open(plan) as pool:
                line["workers_seen"] = warm_up(pool, plan, scenario.warm)
                line["warm"] = True
                runs = [scenario.measure(pool, plan) for _ in range(plan.repeat)]
        case Whole():
            line["warm"] = False
            runs = [scenario.measure(plan) for _ in range(plan.repeat)]
        case _:
            assert_never(scenario)
    return line | summary(runs) | {"load_1m_at_end": _load()}


def failed(plan: Plan, why: str) -> Line:
    """The line of a run that gave no figures."""
    return _heading(plan) | {"error": why}


def _heading(plan: Plan) -> Line:
    shape = {"nodes": plan.shape.nodes, "concurrency": plan.shape.concurrency, "slots": plan.shape.slots}
    settings: dict[str, Any] = {"by_value": plan.by_value, "repeat": plan.repeat}
    if plan.backend == "skyward":
        settings["executor"] = plan.executor
    return {
        "backend": plan.backend,
        "scenario": plan.scenario,
        "shape": shape,
        "settings": settings,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "machine": speed(),
        "load_1m_at_start": _load(),
    }


def _load() -> float:
    return rounded(os.getloadavg()[0])


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    names = dict.fromkeys((*packages, "joblib", "cloudpickle"))
    return {"python": platform.python_version()} | {name: _version(name) for name in names}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        try:
            return str(getattr(import_module(package), "__version__", "not packaged"))
        except ModuleNotFoundError:
            return "not installed"
