"""What the processes of a pool hold, by kind.

`uss` is what would be free again if the process ended, `pss` adds its share of pages held with others (Linux only),
`rss` counts shared pages once per process, so that sums of it are too high for forked processes.
"""

from collections import Counter
from typing import Any

from bench.backends import NotInstalledError, load

MEGABYTE = 1e6
NODE = "skyward.remote.node"


def tree(backend: str) -> dict[str, float]:
    """Megabytes and counts of this process and all that it started, summed by kind."""
    held: dict[str, Counter[str]] = {}
    for kind, process in processes(backend):
        try:
            memory = process.memory_full_info()
        except _psutil().NoSuchProcess:
            continue
        megabytes = {f"{what}_mb": getattr(memory, what, 0) / MEGABYTE for what in ("uss", "pss", "rss")}
        held.setdefault(kind, Counter()).update({"processes": 1} | megabytes)
    held["total"] = sum(held.values(), Counter())
    return {f"{kind}_{what}": amount for kind, amounts in held.items() for what, amount in amounts.items()}


def processes(backend: str) -> list[tuple[str, Any]]:
    """This process (`driver`) and all that it started, each behind its kind."""
    driver = _psutil().Process()
    started = driver.children(recursive=True)
    kinds = _kinds(backend, started)
    return [("driver", driver), *((kinds.get(process.pid, "other"), process) for process in started)]


def left_behind() -> int:
    """How many children this process has now, or -1 when psutil is not there to count them."""
    try:
        return len(_psutil().Process().children(recursive=True))
    except NotInstalledError:
        return -1


def _psutil() -> Any:
    return load("psutil", "psutil")


def _kinds(backend: str, processes: list[Any]) -> dict[int, str]:
    match backend:
        case "skyward":
            return _kinds_of_nodes(processes)
        case "ray":
            return {process.pid: _name_in_ray(process) for process in processes}
        case _:
            return {process.pid: _name_in_joblib(process) for process in processes}


def _kinds_of_nodes(processes: list[Any]) -> dict[int, str]:
    """Leash, host, zygote and slots share one command line: tell them by who started whom.

    A leash is a node process whose parent is none. Of its children the one with children is the zygote, and those are
    the slots (with `--executor thread` one process for all slots of the node); the other is the host. While nobody has
    children, the one with the fewest threads is the zygote.
    """
    nodes = {process.pid: process for process in processes if NODE in _command(process)}
    parents = {pid: process.ppid() for pid, process in nodes.items()}
    kinds = {}
    for leash in (pid for pid, parent in parents.items() if parent not in nodes):
        kinds[leash] = "leash"
        forked = [pid for pid, parent in parents.items() if parent == leash]
        with_children = {pid for pid in forked if pid in parents.values()}
        zygotes = with_children or set(sorted(forked, key=lambda pid: int(nodes[pid].num_threads()))[:1])
        kinds |= {pid: "zygote" if pid in zygotes else "host" for pid in forked}
        kinds |= {pid: "slot" for pid, parent in parents.items() if parent in zygotes}
    return kinds


def _name_in_ray(process: Any) -> str:
    try:
        name: str = process.name()
    except _psutil().NoSuchProcess:
        return "other"
    return "worker" if name.startswith("ray::") else "helper" if name.startswith("python") else name


def _name_in_joblib(process: Any) -> str:
    return "tracker" if "resource_tracker" in _command(process) else "worker"


def _command(process: Any) -> str:
    try:
        return " ".join(process.cmdline())
    except _psutil().NoSuchProcess:
        return ""
