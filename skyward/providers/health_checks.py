"""Checks whether a machine can be a node, and how to fix what is missing. Pure: no I/O, no clock.

`script` returns a script for the machine's shell, `judged` turns its output into findings.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from skyward.remote.node_messages import SHELL, MachineFact, decode

DISK_LEAST, DISK_USUAL = 128, 1024
MEMORY_LEAST, MEMORY_USUAL = 128, 512
"""Megabytes that are the minimum, and that are usually enough. A node's own packages take 60 on a disk."""

MAX_CLOCK_LAG_S = 86_400 - 3600
"""Seconds that a clock may be slow: certificates are valid from a day ago."""

MAX_CLOCK_OFFSET_S = 30.0
"""Seconds that clocks may differ without a warning."""

LONG_ROUND_TRIP_S = 0.3
"""Seconds of a round trip above which short tasks are inefficient."""

SHELL_TOOLS = "cat chmod cp date df find grep id kill ln ls mkdir mv nohup rm rmdir sleep tail touch tr uname wc"
"""The commands that Skyward's scripts use."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check. `fix` says how to fix a problem."""

    check: str
    verdict: Literal["ok", "warn", "FAIL"]
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class HostRequirements:
    """The requirements of a program on a machine.

    Attributes
    ----------
    python
        `major.minor` of its own Python.
    suffix
        Suffix of its extension modules.
    looks
        Shell functions that look for a Python (`find_python`) and for `uv` (`find_uv`).
    system
        Its own system and architecture, as `uname -sm` prints them.
    uv
        Whether it has a `uv` that it can send to machines of the same system.
    installer
        The beginning of the command that installs packages for its own Python.
    """

    python: str
    suffix: str
    looks: str
    system: str
    uv: bool
    installer: str


def script(needs: HostRequirements, folder: str = "") -> str:
    """Return the script for a machine's shell; `folder` is where files will be, if not in the usual cache."""
    cache = shlex.quote(folder) if folder else '"$HOME/.cache/skyward"'
    head = f"python={shlex.quote(needs.python)}; cache={cache}; tools={shlex.quote(SHELL_TOOLS)}"
    return f"{head}\n{_CHECK_SCRIPT}".replace("@SAY@", SHELL).replace("@LOOKS@", needs.looks)


_CHECK_SCRIPT = r"""
LC_ALL=C; export LC_ALL
given=; sent_uv=
@SAY@
fact() { say MachineFact name "$1" value "${2-}"; }
@LOOKS@
fact user "$(id -un)"
fact system "$(uname -sm)"
fact processors "$(getconf _NPROCESSORS_ONLN 2>/dev/null)"
for each in $tools; do command -v "$each" >/dev/null || fact missing "$each"; done
command -v setsid >/dev/null && fact setsid yes
[ -r /proc/self/stat ] && fact proc yes
[ -r /proc/meminfo ] && while read -r name size _; do
    [ "$name" = MemAvailable: ] && fact memory "$size"
done </proc/meminfo
place=$cache
while [ ! -e "$place" ] && [ ! -L "$place" ]; do place=${place%/*}; place=${place:-/}; done
fact place "$place"
[ -d "$place" ] && [ -w "$place" ] && fact writable yes
fact disk "$(df -Pk "$place" 2>/dev/null | tail -n 1)"
if find_python; then
    fact python "$there $py"
else
    find_uv
    [ -n "$uv" ] && fact uv "$uv"
fi
fact over
exit 0
"""


def judged(told: str, needs: HostRequirements, *, bare: bool = True) -> list[Finding]:
    """Turn the output of the script into findings. A machine that is not `bare` uses the program's own Python."""
    messages = (decode(line)[1] for line in told.split("\n"))
    facts = [message for message in messages if isinstance(message, MachineFact)]
    said = {fact.name: fact.value.strip() for fact in facts}
    if "over" not in said:
        return [Finding("shell", "FAIL", "the script of this check did not finish", "check which `sh` is there")]
    missing = [fact.value for fact in facts if fact.name == "missing"]
    found = [_system(said), _tools(missing, "setsid" in said, "proc" in said)]
    if bare:
        found.append(_python(said, needs))
    return [*found, _disk(said), _memory(said)]


def _system(said: dict[str, str]) -> Finding:
    text = said.get("system", "")
    if not text.startswith("Linux "):
        return Finding("system", "FAIL", f"{text or 'an unknown system'}: nodes run on Linux", "take another machine")
    processors = said.get("processors", "")
    return Finding("system", "ok", f"{text}, {processors} processors" if processors else text)


def _tools(missing: Sequence[str], setsid: bool, proc: bool) -> Finding:
    if missing:
        fix = "install coreutils, grep and procps there, or equivalents"
        return Finding("tools", "FAIL", f"there is no {', no '.join(missing)}", fix)
    if not proc:
        return Finding("tools", "FAIL", "/proc is not there", "mount it: mount -t proc proc /proc")
    if not setsid:
        text = "there is no setsid: what a node starts may outlive it when it is killed"
        return Finding("tools", "warn", text, "install util-linux there")
    return Finding("tools", "ok", "a shell's usual commands, setsid, /proc")


def _python(said: dict[str, str], needs: HostRequirements) -> Finding:
    if "python" in said:
        suffix, _, path = said["python"].partition(" ")
        if suffix == needs.suffix:
            return Finding("python", "ok", f"CPython {needs.python}: {path}")
        text = f"CPython {needs.python}: {path}, of another kind ({suffix}): packages are not sent but fetched with pip"
        return Finding(
            "python", "warn", text, "make sure that it reaches an index, or name one that it reaches: Image(index=)"
        )
    if "uv" in said:
        whose = f"{said['uv']} installs it"
    elif needs.uv and said.get("system") == needs.system:
        whose = "your uv is sent, and installs it"
    else:
        text = f"there is no CPython {needs.python}, which is what your program runs on, and no uv to install it"
        return Finding(
            "python", "FAIL", text, f"install python{needs.python} or uv there, or uv here: {needs.installer} uv"
        )
    text = f"there is no CPython {needs.python}: {whose} at the first start"
    return Finding("python", "warn", text, f"make sure that it can download it, or install python{needs.python} there")


def _disk(said: dict[str, str]) -> Finding:
    place, user = said.get("place", ""), said.get("user", "")
    if "writable" not in said:
        return Finding(
            "disk", "FAIL", f"{user} cannot write to {place}", f"change its owner to {user}: chown {user} {place}"
        )
    sizes = re.search(r"\d+ +\d+ +(-?\d+) +\d+%", said.get("disk", ""))
    if sizes is None:
        return Finding(
            "disk", "warn", f"the free space in {place} is not known", f"check with df: {DISK_USUAL} MB are enough"
        )
    free = int(sizes[1]) // 1024
    text = f"{free} MB are free in {place}"
    if free >= DISK_USUAL:
        return Finding("disk", "ok", text)
    fix = f"free some space: {DISK_USUAL} MB are enough; ~/.cache/skyward may be removed while no node is running"
    return Finding("disk", "FAIL" if free < DISK_LEAST else "warn", text, fix)


def _memory(said: dict[str, str]) -> Finding:
    if not said.get("memory", "").isdecimal():
        return Finding(
            "memory", "warn", "the free memory is not known", f"check with free: {MEMORY_USUAL} MB are enough"
        )
    free = int(said["memory"]) // 1024
    text = f"{free} MB are free"
    if free >= MEMORY_USUAL:
        return Finding("memory", "ok", text)
    return Finding(
        "memory", "FAIL" if free < MEMORY_LEAST else "warn", text, f"stop other programs: {MEMORY_USUAL} MB are enough"
    )


def clock(ahead: float, within: float) -> Finding:
    """Check a clock that is `ahead` seconds ahead of the local one, plus or minus `within`."""
    off = max(abs(ahead) - within, 0.0)
    if off <= MAX_CLOCK_OFFSET_S:
        return Finding("clock", "ok", f"within {max(within, abs(ahead)):.0f} s of the one here")
    text = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the one here"
    fix = "set it by the network: timedatectl set-ntp true"
    if ahead < 0 and off > MAX_CLOCK_LAG_S:
        return Finding("clock", "FAIL", f"{text}: it will reject the certificates of a pool as not yet valid", fix)
    return Finding("clock", "warn", text, fix)


def round_trip(seconds: float) -> Finding:
    """Check the round trip time."""
    text = f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
    if seconds < LONG_ROUND_TRIP_S:
        return Finding("round trip", "ok", text)
    return Finding("round trip", "warn", text, "run tasks of less than a second on nearer machines")


def shell(code: int, told: str) -> Finding:
    """Check a login shell by the exit code and output of `PROBE`."""
    if code == 0 and told == f"{_SAYS}\n":
        return Finding("shell", "ok", "a POSIX shell, which prints nothing of its own")
    if code == 0 and told.endswith(f"{_SAYS}\n"):
        text = f"its start-up files print {told.splitlines()[0]!r}also in shells that are not interactive"
        return Finding("shell", "FAIL", text, "have them print in interactive shells only: case $- in *i*) ... esac")
    text = f"the login shell is not a POSIX shell: it printed {' '.join(told.split())[:80]!r}"
    return Finding("shell", "FAIL", text, "give the account another: chsh -s /bin/sh")


_SAYS = "a shell"
PROBE = f'x="a"; f() {{ printf "%s shell\\n" "$1"; }}; [ -n "${{x#b}}" ] && f "$x" # {_SAYS}'
"""A line that every POSIX shell understands, and other shells do not."""


def advised(error: str, name: str) -> tuple[str, str]:
    """Split an error about a machine into the problem and, if it ends with a command, the command that fixes it."""
    text, _, command = error.removeprefix(f"{name}: ").partition("\n  ")
    return text, command
