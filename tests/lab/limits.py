"""Memory and processors of a host, where control groups can be written. Version 2 needs a delegated one."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
GONE = 2.0


def own() -> dict[str, Path]:
    """Our own control groups by controller; of version 2 there is one, without a name."""
    rows = [line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    return {names: GROUPS / names / path.lstrip("/") for names, path in rows if not names.startswith("name=")}


def why_not() -> str | None:
    """The reason why a host's memory cannot be limited here, if there is one."""
    group = own().get("memory") or own().get("")
    return None if group is not None and os.access(group, os.W_OK) else "control groups are not writable here"


def limit(name: str, pid: int, memory: int | None, cpus: float | None) -> list[Path]:
    """Put a process and what it starts into groups below ours; returns them."""
    ours, values = own(), dict[tuple[str, str], str]()
    if (GROUPS / "cgroup.controllers").exists():
        if memory:
            values |= {("", "memory.max"): str(memory), ("", "memory.swap.max"): "0"}
        if cpus:
            values["", "cpu.max"] = f"{int(cpus * 100_000)} 100000"
    else:
        if memory:
            values["memory", "memory.limit_in_bytes"] = str(memory)
        if cpus:
            values["cpu", "cpu.cfs_quota_us"] = str(int(cpus * 100_000))
    made = {controller: ours[controller] / name for controller, _ in values}
    for group in made.values():
        group.mkdir(exist_ok=True)
    for (controller, key), value in values.items():
        (made[controller] / key).write_text(value)
    for group in made.values():
        for each in (pid, *below(pid)):
            with contextlib.suppress(ProcessLookupError):
                (group / "cgroup.procs").write_text(str(each))
    return list(made.values())


def remove(groups: list[Path]) -> None:
    """Remove groups whose processes are ending."""
    until = time.monotonic() + GONE
    for group in groups:
        while group.exists() and time.monotonic() < until:
            with contextlib.suppress(OSError):
                group.rmdir()


def below(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that they did."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield int(child)
            yield from below(int(child))
