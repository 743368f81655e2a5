"""The POSIX shell script that makes a bare machine a node. Pure: no I/O, no clock, no actor.

The script stands in the node's folder beside its other files. It looks for the environment of its recipe in the
machine's cache, builds it if it is not there, and becomes the node. What it needs for that and does not find it asks
for, in messages (see `node_messages`), and waits until the driver has put that into `sent`, as long as the folder is
there: what runs in it has a lease, which the node's parent process takes over.

Everything in the cache is named by its content and appears whole or not at all, so that a start that was cut off leaves
nothing half done, and several drivers do not disturb each other. When something new comes in, what was not used for
`CACHE_KEEP_DAYS` days goes, but for what the folder of a node says that it uses.
"""

import hashlib
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from skyward.remote.node_messages import SHELL

SCRIPT_FILE = "boot.sh"
"""The name of the script in the node's folder."""

CACHE_KEEP_DAYS = 30
"""Days for which the cache keeps what no start uses."""

STEP_FAILED_EXIT_CODE = 70
"""The exit code of a script one of whose steps has failed; another attempt would fail the same way."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package that the driver can send, as it is installed there.

    Attributes
    ----------
    name, version
        What it is.
    digest
        Of its content.
    tags
        Which Pythons it is for, as in the name of a wheel.
    own
        Whether no index has this very one.
    """

    name: str
    version: str
    digest: str
    tags: str = "py3-none-any"
    own: bool = False

    @property
    def file(self) -> str:
        """Its file, under a name that pip understands."""
        return f"{self.name.replace('-', '_')}-{self.version}-1{self.digest}-{self.tags}.whl"

    @property
    def anywhere(self) -> bool:
        """Whether it does not depend on the machine."""
        return self.tags.endswith("-any")

    @property
    def pin(self) -> str:
        """It as a requirement."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a node's environment is made of.

    Attributes
    ----------
    python
        `major.minor` of the driver's Python, and so of the node's.
    suffix
        What the driver's extension modules end with, which says for what Pythons and machines they are.
    wheels
        The packages at the driver's versions.
    fetch
        What only an index has, as pip writes it.
    pip
        The installer, which is used when something is fetched, if the driver has one to send.
    uv
        The file of a `uv` that the driver can send to a machine of its own kind, which is `machine`; empty for none.
    index
        Where packages are fetched from; empty: they are sent, and what cannot be comes from where the machine's own
        configuration says.
    interpreter
        The machine's Python, if it is not to be looked for.
    apt
        Packages of the system.
    shell
        Commands that end the making of the environment.
    files
        Files that tasks find in their working folder: names, and the digests of their contents.
    """

    python: str
    suffix: str
    wheels: tuple[Wheel, ...]
    fetch: tuple[str, ...] = ()
    pip: Wheel | None = None
    uv: str = ""
    machine: str = ""
    index: str = ""
    interpreter: str = ""
    apt: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """The name of the environment in a cache. The files are no part of it."""
        parts = (self.python, self.interpreter, self.wheels, self.fetch, self.index, self.apt, self.shell)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


def script(recipe: Recipe) -> bytes:
    """Return the script for a recipe."""
    sent = [wheel for wheel in recipe.wheels if wheel.own or not recipe.index]
    pinned = [wheel.pin for wheel in recipe.wheels if wheel not in sent]
    anywhere = [wheel for wheel in sent if wheel.anywhere]
    bound = [wheel.pin for wheel in sent if wheel not in anywhere]
    values = {
        "python": recipe.python,
        "suffix": recipe.suffix,
        "key": recipe.key,
        "given": recipe.interpreter,
        "apt": " ".join(map(shlex.quote, recipe.apt)),
        "machine": recipe.machine,
        "sent_uv": recipe.uv,
        "pip_file": recipe.pip.file if recipe.pip is not None else "",
        "index": recipe.index,
        "trusted": _host(recipe.index) if recipe.index.startswith("http:") else "",
        "sends": " ".join(wheel.file for wheel in sent),
        "sends_elsewhere": " ".join(wheel.file for wheel in anywhere),
    }
    lists = {
        "constraints": _lines(wheel.pin for wheel in recipe.wheels),
        "fetch": _lines([*recipe.fetch, *pinned]),
        "fetch_elsewhere": _lines([*recipe.fetch, *pinned, *bound]),
    }
    head = [f"{name}={shlex.quote(value)}" for name, value in (values | lists).items()]
    shell = [
        f'step {shlex.quote(_title(command))}\n(eval {shlex.quote(command)}) 2>&1 || fail "exit code $?"'
        for command in recipe.shell
    ]
    places = {
        "@SAY@": SHELL,
        "@LOOKS@": LOOKS,
        "@VALUES@": _lines(head),
        "@SHELL@": _lines(shell),
        "@KEPT@": str(CACHE_KEEP_DAYS),
        "@HAVE@": _lines(f"have files/{digest}" for _, digest in recipe.files),
        "@PLACE@": _lines(f"place {shlex.quote(name)} {digest}" for name, digest in recipe.files),
    }
    return re.sub("|".join(places), lambda place: places[place[0]], _SCRIPT_TEMPLATE).encode()


def _host(address: str) -> str:
    """The machine and port of an address: what pip must be told to trust when the user says `http`."""
    return address.partition("://")[2].partition("/")[0].rpartition("@")[2]


def _title(command: str) -> str:
    """The step that a command of the user is: its first line."""
    return command.strip().partition("\n")[0]


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(texts)


LOOKS = r"""
# Whether this is a Python of the right version; then `py` is its real path, as a shim may depend on where we are.
fits() {
    told=$("$1" -c 'import os, sys, sysconfig
assert sys.implementation.name == "cpython" and "%d.%d" % sys.version_info[:2] == sys.argv[1]
print(sysconfig.get_config_var("EXT_SUFFIX"), os.path.realpath(sys.executable))' "$python" 2>/dev/null) || return 1
    py=${told#* }
    there=${told%% *}
}

find_python() {
    if [ -n "$given" ]; then
        command -v "$given" >/dev/null || fail "there is no $given"
        fits "$given" || fail "$given is not CPython $python, which is what your program runs on"
        return 0
    fi
    for each in "python$python" python3 python "/usr/local/bin/python$python" "/opt/python$python/bin/python$python" \
        "/opt/python/$python"*"/bin/python$python" "$HOME/.local/bin/python$python" \
        "$HOME/.local/share/uv/python/cpython-$python"*"/bin/python$python" \
        "$HOME/.pyenv/versions/$python"*"/bin/python$python" "$cache/python/cpython-$python"*"/bin/python$python"; do
        command -v "$each" >/dev/null && fits "$each" && return 0
    done
    return 1
}

find_uv() {
    for uv in uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" /usr/local/bin/uv; do
        uv=$(command -v "$uv" 2>/dev/null) && return 0
    done
    uv=
    [ -n "$sent_uv" ] && [ "$(uname -sm)" = "$machine" ] || return 0
    have "bin/$sent_uv"
    asked
    uv="$cache/bin/$sent_uv"
    chmod 700 "$uv"
}
"""
"""Functions of the script that look for a Python, and for `uv`. They want `python`, `given`, `cache` and `sent_uv`."""

_SCRIPT_TEMPLATE = r"""#!/bin/sh
set -u
umask 077
folder=${0%/*}
cache="$HOME/.cache/skyward"
@VALUES@
env="$cache/env/$key-$(uname -m)" # machines of several kinds may share a home
made="$env.${folder##*/}"
now=
lacks=
grew=

@SAY@
step() { now=$1; say BootStep step "$1"; }
fail() { say StepFailed step "$now" reason "$1"; rm -rf "$made"; exit 70; }

# Have a file of this name in the cache: it is there, or was sent, or is asked for.
have() {
    touch -c "$cache/$1" 2>/dev/null
    [ -f "$cache/$1" ] && return 0
    if [ -f "$folder/sent/${1##*/}" ]; then
        grew=1
        mkdir -p "$cache/${1%/*}" && mv -f "$folder/sent/${1##*/}" "$cache/$1" && return 0
        fail "cannot write to $cache"
    fi
    say FileRequested file "${1##*/}"
    lacks="$lacks $1"
}

# Wait for what was asked for; a file that is sent appears whole.
asked() {
    [ -n "$lacks" ] || return 0
    say WaitingForFiles
    while [ -n "$lacks" ]; do
        [ -d "$folder" ] || exit 1 # nobody can send anything any more
        sleep 0.05 2>/dev/null || sleep 1
        left=
        for each in $lacks; do
            if [ -f "$folder/sent/${each##*/}" ]; then have "$each"; else left="$left $each"; fi
        done
        lacks=$left
    done
}

@LOOKS@
build() {
    mkdir -p "$cache/wheels" "$cache/env" 2>/dev/null || { step cache; fail "cannot make $cache: is the disk full?"; }
    rm -rf "$made"

    if [ -n "$apt" ]; then
        step apt
        eval "set -- $apt"
        if ! dpkg -s "$@" >/dev/null 2>&1; then
            command -v apt-get >/dev/null || fail "this machine has no apt-get"
            root=
            [ "$(id -u)" = 0 ] || root="sudo -n"
            $root env DEBIAN_FRONTEND=noninteractive apt-get -q update 2>&1
            $root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$@" 2>&1 ||
                fail "exit code $?"
        fi
    fi

    step python
    if ! find_python; then
        find_uv
        [ -n "$uv" ] || fail "there is no Python $python here, and no uv to install one: install python$python or uv"
        UV_PYTHON_INSTALL_DIR="$cache/python" UV_PYTHON_INSTALL_BIN=0 "$uv" python install "$python" 2>&1 ||
            fail "uv cannot install Python $python (exit code $?)"
        find_python || fail "uv has installed a Python $python that does not run"
    fi
    if [ "$there" != "$suffix" ]; then
        sends=$sends_elsewhere
        fetch=$fetch_elsewhere
    fi

    step packages
    for each in $sends; do have "wheels/$each"; done
    [ -z "$fetch" ] || [ -z "$pip_file" ] || have "wheels/$pip_file"
    asked
    mkdir -p "$made/bin" "$made/lib/python$python/site-packages" || fail "cannot write to $cache: is the disk full?"
    ln -s "$py" "$made/bin/python" || fail "cannot make links in $cache"
    printf 'home = %s\ninclude-system-site-packages = false\n' "${py%/*}" >"$made/pyvenv.cfg" ||
        fail "cannot write to $cache: is the disk full?"
    site="$made/lib/python$python/site-packages"
    unpack='import sys, zipfile
for wheel in sys.argv[2:]:
    zipfile.ZipFile(wheel).extractall(sys.argv[1])'
    if [ -n "$fetch" ]; then
        step "packages from an index"
        printf '%s\n' "$constraints" >"$made/constraints"
        printf '%s\n' "$fetch" >"$made/fetch"
        if [ -n "$pip_file" ]; then
            "$py" -c "$unpack" "$made/pip" "$cache/wheels/$pip_file" || fail "cannot unpack pip"
            PYTHONPATH="$made/pip"
            export PYTHONPATH
        fi
        if [ -n "$index" ]; then
            PIP_INDEX_URL=$index
            PIP_TRUSTED_HOST=$trusted
            export PIP_INDEX_URL PIP_TRUSTED_HOST
        fi
        PYTHONDONTWRITEBYTECODE=1 "$py" -m pip install --disable-pip-version-check --no-input --no-compile \
            --no-warn-script-location --target "$site" --find-links "$cache/wheels" \
            -c "$made/constraints" -r "$made/fetch" 2>&1 ||
            fail "pip cannot install what your image asks for (exit code $?)"
        unset PYTHONPATH PIP_INDEX_URL PIP_TRUSTED_HOST
        rm -rf "$made/pip"
        step packages
    fi
    # shellcheck disable=SC2086 # names without spaces
    (cd "$cache/wheels" && "$py" -c "$unpack" "$site" $sends) 2>&1 || fail "cannot unpack the packages (exit code $?)"
    "$made/bin/python" -c 'import casty, cloudpickle, uvloop, skyward.remote.node.actor_process' 2>&1 ||
        fail "the node's own packages do not load here (exit code $?)"
    PATH="$made/bin:$PATH"
    @SHELL@
    mkdir "$made/complete"
    grew=1
    # another driver may have been quicker: then its own is as good
    [ -d "$env/complete" ] || mv "$made" "$env" 2>/dev/null
    rm -rf "$made" "$env/${made##*/}"
}

# Whether the folder of a node, on whatever machine that shares this home, says that it uses this environment.
in_use() { cat "$cache/run/"*/*/uses 2>/dev/null | grep -qxF "$1"; }

# Make room in the cache. Whoever starts says what it uses before it looks for it; so what is taken away, and is in use
# after all, is put back.
trim() {
    for old in "$cache/env/"*; do
        name=${old##*/}
        case $name in
            *.*) # was never completed, or taken away: its node is gone, then so is who made it
                set -- "$cache/run/"*/"${name#*.}"
                [ -d "$1" ] || rm -rf "$old"
                continue
                ;;
        esac
        [ -n "$(find "$old/complete" -prune -mtime +@KEPT@ 2>/dev/null)" ] || continue
        in_use "$name" && continue
        mv "$old" "$made" 2>/dev/null || continue
        if in_use "$name" && [ ! -e "$old" ]; then mv "$made" "$old" 2>/dev/null; fi
        rm -rf "$made" "$old/${made##*/}"
    done
    for each in wheels files bin; do
        [ ! -d "$cache/$each" ] || find "$cache/$each" -type f -mtime +@KEPT@ -exec rm -f {} +
    done
}

# Put a file that tasks find in their working folder there.
place() {
    case $1 in */*) mkdir -p "$folder/work/${1%/*}" ;; esac
    cp "$cache/files/$2" "$folder/work/$1" || fail "cannot write $1: is the disk full?"
}

echo "${env##*/}" >"$folder/uses"
touch -c "$env/complete" 2>/dev/null
if ! [ -d "$env/complete" ] || ! "$env/bin/python" -c '' 2>/dev/null; then
    [ -d "$env/complete" ] && rm -rf "$env"
    build
fi
step files
mkdir -p "$folder/work" || fail "cannot write to $folder: is the disk full?"
@HAVE@
asked
@PLACE@
rm -rf "$folder/sent"
[ -z "$grew" ] || trim
cd "$folder/work" || fail "there is no $folder/work"
step proof
"$env/bin/python" -m skyward.remote.node.environment_check "$folder" || exit
step node
exec "$env/bin/python" -m skyward.remote.node "$folder"
"""
