"""Who owns a resource in the cloud, by its tags, and whether it is abandoned.

Each launch has tags of its own. A pool's security group has those of the pool's start, which say nothing of machines
that were launched later: they count only if there is no machine.
"""

import datetime as dt
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

BY, MADE, UNTIL = "skyward:by", "skyward:made", "skyward:until"
"""The tags for the owner, the time of creation, and the time after which it must not exist any more."""

GROUP_GRACE = dt.timedelta(minutes=15)
"""How long after the start of its pool a security group may exist without a machine."""

type Tags = Mapping[str, str]


def owner_tags(lifetime: float) -> dict[str, str]:
    """Return the tags of a resource that this process creates now and that may exist for `lifetime` seconds."""
    now = dt.datetime.now(dt.UTC)
    until = now + dt.timedelta(seconds=lifetime)
    return {BY: owner(), MADE: now.isoformat(timespec="seconds"), UNTIL: until.isoformat(timespec="seconds")}


def owner() -> str:
    """Return this process as an owner, as `host:pid:life`.

    Host and pid are for people. `life` is unique: the boot of this computer, the namespace of its pids, and the start
    time of the process.
    """
    return f"{socket.gethostname()}:{os.getpid()}:{_boot()}-{_start_time(os.getpid())}"


def is_orphan(tags: Tags) -> bool:
    """Whether the owner in these tags is a process that has certainly ended."""
    return is_running(tags) is False


def is_running(tags: Tags) -> bool | None:
    """Whether the owner in these tags still runs; None if that is not known.

    It is known only on the computer where it runs, and only on Linux; not after a reboot or in another container, even
    if host name and pid are the same.
    """
    maker, _, life = tags.get(BY, "").rpartition(":")
    place, _, began = life.rpartition("-")
    pid = maker.rpartition(":")[2]
    if not place or place != _boot() or not pid.isdigit():
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _start_time(int(pid)) in ("", began)


def is_overdue(tags: Tags, now: dt.datetime) -> bool:
    """Whether a resource with these tags must not exist any more."""
    return _is_past(tags.get(UNTIL, ""), now)


def is_stale(machines: Sequence[Tags], groups: Sequence[Tags], now: dt.datetime) -> bool:
    """Whether a pool whose machines and security groups have these tags is abandoned."""
    if machines:
        return all(is_orphan(each) or is_overdue(each, now) for each in machines)
    known = [is_running(each) for each in groups]
    ages = [is_overdue(each, now) or _is_past(each.get(MADE, ""), now - GROUP_GRACE) for each in groups]
    return all(old if alive is None else not alive for alive, old in zip(known, ages, strict=True))


def _is_past(time: str, now: dt.datetime) -> bool:
    try:
        return now > dt.datetime.fromisoformat(time)
    except (TypeError, ValueError):  # somebody has changed the tag
        return False


def _boot() -> str:
    """Return the boot of this computer and the pid namespace of this process; empty if they are not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return f"{boot[:8]}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """Return the start time of a process in ticks; empty if it is not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
