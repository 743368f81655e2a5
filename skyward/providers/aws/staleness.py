"""Who owns a resource in the cloud, by its tags, and whether it is abandoned.

Each launch has tags of its own. A pool's security group has those of the pool's first moment: they say nothing of
machines that came later, so that they count only where there is no machine.
"""

import datetime as dt
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

BY, MADE, UNTIL = "skyward:by", "skyward:made", "skyward:until"
"""The tags that say whose it is, when it was made, and when it is to have ended in any case."""

STARTING = dt.timedelta(minutes=15)
"""How long, after its pool has begun, a security group may be without a machine."""

type Tags = Mapping[str, str]


def stamps(lifetime: float) -> dict[str, str]:
    """Return the tags of what is made here and now, and may live for so many seconds."""
    now = dt.datetime.now(dt.UTC)
    until = now + dt.timedelta(seconds=lifetime)
    return {BY: whose(), MADE: now.isoformat(timespec="seconds"), UNTIL: until.isoformat(timespec="seconds")}


def whose() -> str:
    """Return who makes something here and now, as `host:pid:life`.

    Host and pid are for people. `life` is what no other process ever has: this boot of the machine, its namespace of
    pids, and when the process began.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{_place()}-{_began(os.getpid())}"


def is_orphan(tags: Tags) -> bool:
    """Whether what has these tags was made by a process that has surely ended."""
    return lives(tags) is False


def lives(tags: Tags) -> bool | None:
    """Whether the process still runs that made what has these tags; None where that is not known.

    It is known only where it ran, and only on Linux: not of one from before a reboot, or in another container, though
    the name of the host and the pid be the same.
    """
    maker, _, life = tags.get(BY, "").rpartition(":")
    place, _, began = life.rpartition("-")
    pid = maker.rpartition(":")[2]
    if not place or place != _place() or not pid.isdigit():
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _began(int(pid)) in ("", began)


def is_overdue(tags: Tags, now: dt.datetime) -> bool:
    """Whether what has these tags should long have ended."""
    return _is_past(tags.get(UNTIL, ""), now)


def is_stale(machines: Sequence[Tags], groups: Sequence[Tags], now: dt.datetime) -> bool:
    """Whether nobody needs a pool any more whose machines and security groups have these tags."""
    if machines:
        return all(is_orphan(each) or is_overdue(each, now) for each in machines)
    known = [lives(each) for each in groups]
    ages = [is_overdue(each, now) or _is_past(each.get(MADE, ""), now - STARTING) for each in groups]
    return all(old if alive is None else not alive for alive, old in zip(known, ages, strict=True))


def _is_past(time: str, now: dt.datetime) -> bool:
    try:
        return now > dt.datetime.fromisoformat(time)
    except (TypeError, ValueError):  # somebody has changed the tag
        return False


def _place() -> str:
    """This boot of the machine, and the namespace of pids that this process is in; empty where that is not told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return f"{boot[:8]}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty if that is not told."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
