"""What is measured, and how. A steady scenario finds a warm pool; `startstop` opens its own."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from bench import data, links, memory, profile, tasks, tunnel
from bench.backends import BACKENDS, Pool
from bench.figures import Figures, latency
from bench.plan import Plan

WHO_SECONDS = 0.1
"""How long a task lasts that only asks which worker runs it."""


class WrongAnswerError(Exception):
    """The pool answered, but not with what the tasks return: its time means nothing."""


@dataclass(frozen=True, slots=True)
class Steady:
    """Measured on a pool that is open and has worked before, as often as `--repeat` says."""

    about: str
    tasks: int
    settings: tuple[str, ...]
    warm: Literal["parallel", "submit"]
    measure: Callable[[Pool, Plan], Figures]


@dataclass(frozen=True, slots=True)
class Whole:
    """Measured from nothing to nothing, with a new pool each time."""

    about: str
    tasks: int
    measure: Callable[[Plan], Figures]


type Scenario = Steady | Whole


def seed(pool: Pool, plan: Plan) -> Figures:
    """Tasks of equal length: how much of the slots' time was work."""
    sleep = tasks.travelling(tasks.sleep, by_value=plan.by_value)
    elapsed, cpu = _timed(pool, plan, sleep, range(plan.tasks), (plan.seconds,), range(plan.tasks))
    ideal = plan.tasks * plan.seconds / plan.shape.slots
    return {
        "efficiency_pct": 100 * ideal / elapsed,
        "elapsed_s": elapsed,
        "ideal_s": ideal,
        "tasks_per_s": plan.tasks / elapsed,
        "driver_cpu_s": cpu,
    }


def trivial(pool: Pool, plan: Plan) -> Figures:
    """Tasks that do nothing: how many go through in a second, and what each costs the driver."""
    square = tasks.travelling(tasks.square, by_value=plan.by_value)
    right = (x * x for x in range(plan.tasks))
    elapsed, cpu = _timed(pool, plan, square, range(plan.tasks), (), right)
    return {
        "tasks_per_s": plan.tasks / elapsed,
        "elapsed_s": elapsed,
        "driver_cpu_us_per_task": cpu / plan.tasks * 1e6,
    }


def driver_cpu(pool: Pool, plan: Plan) -> Figures:
    """The same tasks, for their price alone: CPU of this process, user and system, all threads."""
    found = trivial(pool, plan)
    return {name: found[name] for name in ("driver_cpu_us_per_task", "tasks_per_s")}


def shares(pool: Pool, plan: Plan) -> Figures:
    """The same tasks: microseconds of CPU of each, by thread of this process and by kind of the others."""
    before = profile.spent(plan.backend)
    elapsed = trivial(pool, plan)["elapsed_s"]
    spent = profile.spent(plan.backend) - before
    used = {f"{whose}_us": seconds / plan.tasks * 1e6 for whose, seconds in spent.items()}
    return {name: each for name, each in used.items() if each >= 1} | {"clock_us": elapsed / plan.tasks * 1e6}


def roundtrip(pool: Pool, plan: Plan) -> Figures:
    """One call at a time through the library's own `submit`, waiting for each result."""
    square = tasks.travelling(tasks.square, by_value=plan.by_value)
    return latency([_clocked(lambda x: pool.submit(square, x)(), x, x * x) for x in range(plan.tasks)])


def onetask(pool: Pool, plan: Plan) -> Figures:
    """One `Parallel` of one task at a time."""
    delayed = import_module("joblib").delayed(tasks.travelling(tasks.square, by_value=plan.by_value))
    return latency(
        [_clocked(lambda x: pool.parallel([delayed(x)], plan.batch_size), x, [x * x]) for x in range(plan.tasks)]
    )


def idle_memory(_pool: Pool, plan: Plan) -> Figures:
    """What an idle pool holds once its slots have worked and `--settle` seconds have passed."""
    time.sleep(plan.settle)
    return memory.tree(plan.backend)


def startstop(plan: Plan) -> Figures:
    """From nothing to ready, to the first result, to an answer from all workers, and back to nothing."""
    square = import_module("joblib").delayed(tasks.travelling(tasks.square, by_value=plan.by_value))
    start = time.perf_counter()
    with BACKENDS[plan.backend].open(plan) as pool:
        entered = time.perf_counter()
        if pool.parallel([square(3)], plan.batch_size) != [9]:
            raise WrongAnswerError("3 * 3")
        first = time.perf_counter()
        seen = warm_up(pool, plan, "parallel")
        all_seen = time.perf_counter()
    left = time.perf_counter()
    return {
        "enter_s": entered - start,
        "first_result_s": first - start,
        "all_workers_s": all_seen - start,
        "workers_seen": seen,
        "leave_s": left - all_seen,
        "processes_left": memory.left_behind(),
    }


def warm_up(pool: Pool, plan: Plan, how: Literal["parallel", "submit"]) -> int:
    """Give every worker a small task until all have answered or `--warm-limit` is over; how many have answered."""
    who = tasks.travelling(tasks.who, by_value=plan.by_value)
    delayed = import_module("joblib").delayed(who)
    everyone = range(plan.shape.slots)
    seen: set[tuple[int, int]] = set()
    deadline = time.monotonic() + plan.warm_limit
    while len(seen) < plan.shape.slots:
        match how:
            case "parallel":
                seen.update(pool.parallel((delayed(WHO_SECONDS) for _ in everyone), 1))
            case "submit":
                seen.update(wait() for wait in [pool.submit(who, WHO_SECONDS) for _ in everyone])
        if time.monotonic() > deadline:
            break
    return len(seen)


def _timed(
    pool: Pool, plan: Plan, fn: Callable[..., Any], over: range, more: tuple[Any, ...], right: Any
) -> tuple[float, float]:
    """Seconds on the clock and of this process's CPU for one `Parallel` over all arguments."""
    delayed = import_module("joblib").delayed(fn)
    calls: Iterator[Any] = (delayed(x, *more) for x in over)
    clock, cpu = time.perf_counter(), time.process_time()
    answers = pool.parallel(calls, plan.batch_size)
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    if answers != list(right):
        raise WrongAnswerError(f"{plan.backend} did not return what {plan.tasks} tasks return")
    return clock, cpu


def _clocked(call: Callable[[int], Any], x: int, right: Any) -> float:
    start = time.perf_counter()
    answer = call(x)
    elapsed = time.perf_counter() - start
    if answer != right:
        raise WrongAnswerError(f"{answer!r} instead of {right!r}")
    return elapsed


SCENARIOS: dict[str, Scenario] = {
    "seed": Steady("2000 tasks of T seconds", 2000, ("tasks", "seconds", "batch_size"), "parallel", seed),
    "trivial": Steady("20,000 tasks that do nothing", 20_000, ("tasks", "batch_size"), "parallel", trivial),
    "roundtrip": Steady("submit().result(), one at a time", 500, ("tasks",), "submit", roundtrip),
    "onetask": Steady("Parallel of one task, one at a time", 100, ("tasks", "batch_size"), "parallel", onetask),
    "driver_cpu": Steady("driver CPU per trivial task", 20_000, ("tasks", "batch_size"), "parallel", driver_cpu),
    "steps": Steady("where the time of one call goes, one at a time", 500, ("tasks",), "submit", profile.steps),
    "shares": Steady("whose CPU trivial tasks take", 20_000, ("tasks", "batch_size"), "parallel", shares),
    "shared": Steady("200 tasks with the same array of 80 MB", 200, ("tasks", "batch_size"), "parallel", data.shared),
    "array": Steady("20 tasks with the same array of 100 MB", 20, ("tasks", "batch_size"), "parallel", data.array),
    "memmap": Steady("the same, mapped from a file", 20, ("tasks", "batch_size"), "parallel", data.memmap),
    "closure": Steady("20 tasks with 64 MB in their closure", 20, ("tasks", "batch_size"), "parallel", data.closure),
    "variable": Steady("the same in a global variable", 20, ("tasks", "batch_size"), "parallel", data.variable),
    "method": Steady("the same in a bound method's object", 20, ("tasks", "batch_size"), "parallel", data.method),
    "results": Steady("500 tasks that return 1 MiB", 500, ("tasks", "batch_size"), "parallel", data.results),
    "search": Steady("RandomizedSearchCV with so many candidates, on digits", 20, ("tasks",), "parallel", data.search),
    "memory": Steady("memory of an idle pool by kind of process", 1, ("settle",), "parallel", idle_memory),
    "latency": Whole("the seed shape with 80 ms to nodes and back (T = 5, 0.5, 0.05 s)", 2000, links.latency),
    "far": Whole("the seed shape over SSH, on hosts of the lab at the end of slow links", 2000, links.far),
    "uneven": Whole("tasks of T seconds, and one node four times as slow", 2000, links.uneven),
    "tunnel": Whole("MB/s through a tunnel and through ssh -L, on a host of the lab", 1, tunnel.throughput),
    "cold": Whole("the first GridSearchCV on a new pool, with so many folds", 4, data.first_search),
    "startstop": Whole("time to start and to stop a pool", 1, startstop),
}
"""Every scenario by its name on the command line."""

SUITES: dict[str, tuple[str, ...]] = {"data": ("array", "memmap", "closure", "variable", "method")}
"""Several scenarios under one name, run one after the other."""
