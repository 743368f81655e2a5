"""The shell scripts that the SSH provider runs on a machine. Pure: no I/O, no clock, no luck.

Each node has a folder of its own in `~/.cache/skyward/run/MACHINE`, as several machines may share a home. A node that
is being started has a lease, which a shell watches until the parent process of the node does. The files of the lease
are those of `skyward.remote.node.parent_process` and `skyward.remote.node_config`.
"""

import shlex
from collections.abc import Sequence

END_MARK = "skyward-command-ended"
"""The last line of each stream of a command begins with this; a token and the exit code follow."""

_ROOT = r"""
umask 077
root="$HOME/.cache/skyward/run/$(uname -n)"

# Whether this pid belongs to a process of the node in this folder: pids are reused.
lives() {
    kill -0 "$1" 2>/dev/null || return 1
    if [ -r "/proc/$1/cmdline" ]; then
        tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF "$2"
    else
        ps -o args= -p "$1" | grep -qF "$2"
    fi
}

# Whether anything of the node in this folder runs: its parent process, its start, or the shell that watches its lease.
runs() {
    parent=$(cat "$1/hold" 2>/dev/null)
    [ -f "$1/pids" ] && read -r parent _ <"$1/pids"
    for each in $parent $(cat "$1"/.*.pid 2>/dev/null); do
        lives "$each" "$1" && return 0
    done
    return 1
}

# The processes with this folder in their command line, in case the files with their pids are lost.
named() { grep -lF "$1" /proc/[0-9]*/cmdline 2>/dev/null | tr -dc '0-9\n'; }

nap() { sleep 0.05 2>/dev/null || sleep 1; }

# Remove the folder of a node, and its unfinished environments, whose names end with that of the node.
clear() { rm -rf "$1" "$HOME/.cache/skyward/env/"*".${1##*/}"; }

# Stop all processes of the node in this folder, first its parent process, which stops the others; remove the folder.
finish() {
    parent= group=
    [ -f "$1/pids" ] && read -r parent group <"$1/pids"
    starts="$(cat "$1/hold" "$1"/.*.pid 2>/dev/null) $(named "$1")"
    if [ -n "$parent" ] && lives "$parent" "$1"; then
        kill -TERM "$parent"
        turns=0
        while [ "$turns" -lt 180 ] && lives "$parent" "$1"; do
            nap
            turns=$((turns + 1))
        done
        lives "$parent" "$1" && kill -KILL "$parent"
    fi
    for each in $group $starts; do
        [ "$each" = $$ ] && continue
        lives "$each" "$1" && { kill -KILL "-$each" || kill -KILL "$each"; } 2>/dev/null
    done
    turns=0
    until clear "$1" 2>/dev/null || [ "$turns" -ge 40 ]; do # a file transfer may still add to it
        nap
        turns=$((turns + 1))
    done
    clear "$1"
}
"""

_LEASE_LOOP = (
    _ROOT
    + r"""
folder=$1
echo $$ >"$folder/hold"
silent=0
lease=15
while sleep 1; do
    [ -d "$folder" ] && ! [ -f "$folder/pids" ] || exit 0
    [ -f "$folder/lease" ] && read -r lease <"$folder/lease"
    if rm "$folder/alive" 2>/dev/null; then silent=0; else silent=$((silent + 1)); fi
    echo "$silent" >"$folder/silent"
    [ "$silent" -lt "$lease" ] && continue
    finish "$folder"
    rmdir "$root" "${root%/*}" 2>/dev/null
    exit 0
done
"""
)
"""Watch the lease of a node until its parent process does: stop the node when the driver has not written the file
`alive` for as many seconds as the file `lease` says. Rounds are counted, as the clock may be changed."""


def settle(node: str) -> str:
    """Make the node's folder, start its lease, print its path, and remove nodes of earlier runs with expired leases."""
    return (
        _ROOT
        + f'folder="$root/"{shlex.quote(node)}\nlease_script={shlex.quote(_LEASE_LOOP)}\n'
        + r"""
mkdir -p "$folder" && chmod 700 "${root%/*}" "$root" "$folder" || exit 1
now=$(date +%s)
echo "$now" >"$folder/began" || exit 1
cd "$folder" || exit 1
if ! watcher=$(cat hold 2>/dev/null) || ! lives "$watcher" "$folder"; then
    command -v setsid >/dev/null && alone=setsid || alone=nohup
    $alone sh -c "$lease_script" skyward-lease "$folder" >/dev/null 2>&1 </dev/null &
fi
pwd
for old in "$root"/*/; do
    old=${old%/}
    runs "$old" && continue
    began= lease=
    [ -f "$old/began" ] && read -r began <"$old/began"
    [ -f "$old/lease" ] && read -r lease <"$old/lease"
    [ "$now" -gt $((${began:-0} + ${lease:-3600})) ] && finish "$old"
done
exit 0
"""
    )


def finish(node: str) -> str:
    """Stop all processes of the node, and remove everything but the cache."""
    name = shlex.quote(node)
    gone = f'finish "$root/"{name} || exit 1\n'
    return _ROOT + gone + 'rmdir "$root" "${root%/*}" 2>/dev/null\nexit 0\n'


def find(pool: str) -> str:
    """Print the names of the pool's nodes that are running or starting, one per line."""
    return (
        _ROOT
        + f'for found in "$root/"{shlex.quote(pool)}-*; do\n'
        + r"""
    [ -d "$found" ] || continue
    [ ! -f "$found/pids" ] || runs "$found" || continue
    echo "${found##*/}"
done
exit 0
"""
    )


def make(folders: Sequence[str]) -> str:
    """Create folders that only this user can access, the first with its parents, or check that existing ones are so."""
    parent = shlex.quote(folders[0].rpartition("/")[0] or "/")
    return (
        f"umask 077; LC_ALL=C; export LC_ALL; mkdir -p {parent} || exit 1\n"
        f"for each in {shlex.join(folders)}; do\n"
        r"""
    problem=$(mkdir "$each" 2>&1) && continue
    [ -d "$each" ] || [ -L "$each" ] || { echo "$problem" >&2; exit 1; }
    set -- $(ls -ldn "$each")
    case $1 in d???------*) [ "$3" = "$(id -u)" ] && continue ;; esac
    echo "$each exists and is not a folder of this user alone" >&2
    exit 1
done
"""
    )


def write(path: str, size: int) -> str:
    """Write the standard input to a file, unless it is shorter than `size` because the connection was lost."""
    return (
        f"umask 077; LC_ALL=C; export LC_ALL; path={shlex.quote(path)}; part=$path.$$.part\n"
        f'if cat >"$part" && [ "$(($(wc -c <"$part")))" = {size} ]; then mv -f "$part" "$path" && exit 0; fi\n'
        'rm -f "$part"; exit 1\n'
    )


def start(folder: str, number: int, token: str, command: Sequence[str]) -> str:
    """Start a command that continues when the connection is lost; its output goes to files in the folder.

    The folder must be one of `settle`, which has a lease.
    """
    wrapper = (
        'echo $$ >"$1.pid"; shift; "$@"; code=$?; '
        f'printf "\\n%s %s\\n" "{END_MARK} {token}" "$code"; printf "\\n%s %s\\n" "{END_MARK} {token}" "$code" >&2'
    )
    words = shlex.join([wrapper, f"{folder}/", f"{folder}/.{number}", *command])
    return (
        f"umask 077; cd {shlex.quote(folder)} || exit 1\n"
        "[ -f began ] || { echo 'its folder was removed' >&2; exit 1; }\n"
        "command -v setsid >/dev/null && alone=setsid || alone=nohup\n"
        f"$alone sh -c {words} >.{number}.out 2>.{number}.err </dev/null &\n"
    )


def follow(folder: str, number: int, out: int, err: int) -> str:
    """Print and follow the output of a command, after the given number of lines of each stream."""
    out_file, err_file = (shlex.quote(f"{folder}/.{number}.{name}") for name in ("out", "err"))
    return f"tail -n +{out + 1} -f {out_file} & tail -n +{err + 1} -f {err_file} >&2 & wait"
