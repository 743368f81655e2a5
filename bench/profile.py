"""Where the time of a call goes on its way there and back (`steps`), and whose CPU is used (`spent`).

`steps` looks at Skyward from inside: a note of the time is put around a few of its methods for as long as it measures.
"""

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

from bench import memory, tasks
from bench.backends import NotInstalledError, Pool
from bench.figures import Figures
from bench.plan import Plan

STATIONS = (
    ("skyward.actors.driver", "Driver", "send", "packed"),
    ("skyward.actors.driver", "Driver", "_drain", "on_the_loop"),
    ("skyward.actors.node_client", "NodeClient", "_assign", "placed"),
    ("skyward.actors.node_client", "NodeClient", "_take", "came_back"),
    ("skyward.calls.completion", "CompletionThread", "put", "settled"),
    ("skyward.calls.completion", "CompletionThread", "_complete", "in_the_groups_thread"),
)
"""Methods whose beginning is a station, and what has been done by then; between `placed` and `came_back` it runs."""


def steps(pool: Pool, plan: Plan) -> Figures:
    """Microseconds from one station to the next of a call, medians over one call at a time; they add up to its time."""
    if plan.backend != "skyward":
        raise NotInstalledError(f"steps are those of skyward; {plan.backend} has others")
    clock = tasks.travelling(tasks.clock, by_value=plan.by_value)
    names = [name for *_, name in STATIONS]
    names.insert(names.index("came_back"), "ran")
    gaps: dict[str, list[float]] = {name: [] for name in (*names, "had")}
    seen: dict[str, float] = {}
    with _watched(lambda name: seen.setdefault(name, time.perf_counter())):
        for _ in range(plan.tasks):
            seen.clear()
            began = time.perf_counter()
            ran = pool.submit(clock)()
            passed = seen | {"ran": ran, "had": time.perf_counter()}
            for name, found in gaps.items():
                found.append(passed[name] - began)
                began = passed[name]
    return {f"{name}_us": statistics.median(values) * 1e6 for name, values in gaps.items()}


@contextmanager
def _watched(note: Callable[[str], object]) -> Iterator[None]:
    with ExitStack() as stack:
        for module, owner, method, name in STATIONS:
            kind = getattr(import_module(module), owner)
            plain = getattr(kind, method)
            stack.callback(setattr, kind, method, plain)
            setattr(kind, method, _noting(plain, note, name))
        yield


def _noting(plain: Callable[..., Any], note: Callable[[str], object], name: str) -> Callable[..., Any]:
    def noting(*args: Any, **more: Any) -> Any:
        note(name)
        return plain(*args, **more)

    return noting


def spent(backend: str) -> Counter[str]:
    """Seconds of CPU so far: of this process by thread, of the others by kind."""
    names = {thread.native_id: _kind(thread.name) for thread in threading.enumerate()}
    used: Counter[str] = Counter()
    for kind, process in memory.processes(backend):
        if kind != "driver":
            times = process.cpu_times()
            used[kind] += times.user + times.system
            continue
        for thread in process.threads():
            used[f"driver_{names.get(thread.id, 'casty')}"] += thread.user_time + thread.system_time
    return used


def _kind(name: str) -> str:
    """The name of a thread without the numbers of its pool."""
    return "-".join(part for part in name.split("-") if part.isalpha())
