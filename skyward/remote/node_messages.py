"""The messages that a node prints among other output, one line of JSON each. Pure: no I/O, no clock.

Both the script that makes a node of a machine and the node itself write them to standard output or error. As in RFC
7464 (JSON Text Sequences), a message begins with the control character RS, which JSON text never contains: a task may
print what it likes, since that travels inside an `OutputFrame`. A message may follow a line that somebody did not end.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

MARKER = "\x1eskyward "
"""What a message begins with; a JSON object follows."""


@dataclass(frozen=True)
class BootStep:
    """The script begins this step."""

    step: str


@dataclass(frozen=True)
class StepFailed:
    """A step of the script failed; the script ends."""

    step: str
    reason: str


@dataclass(frozen=True)
class FileRequested:
    """The script needs a file that the cache of the machine does not have."""

    file: str


@dataclass(frozen=True)
class WaitingForFiles:
    """The script waits until all requested files were sent."""


@dataclass(frozen=True)
class EnvironmentMismatch:
    """The environment is not what the driver requires: rows of name, version here, version there, and fix."""

    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class NodeStarted:
    """The node accepts calls: its port on 127.0.0.1, slots, free memory in bytes, and tokens of its mounts (see
    `mounts`)."""

    port: int
    slots: int
    memory: int
    mounts: Sequence[str] = ()


@dataclass(frozen=True)
class NodeFailed:
    """The node cannot go on; the first such message counts. `final`: another start would fail in the same way."""

    reason: str
    final: bool


@dataclass(frozen=True)
class NodeEnding:
    """The node ends itself; of interest only when nobody asked for it."""

    reason: str


@dataclass(frozen=True)
class OutputFrame:
    """A piece of what a slot printed or logged, and whether `more` of the same text follows; slot -1 is the node."""

    slot: int
    stream: int
    more: bool
    text: str


@dataclass(frozen=True)
class MachineFact:
    """A fact about the machine that `skyward doctor` asked for."""

    name: str
    value: str


type NodeMessage = (
    BootStep
    | StepFailed
    | FileRequested
    | WaitingForFiles
    | EnvironmentMismatch
    | NodeStarted
    | NodeFailed
    | NodeEnding
    | OutputFrame
    | MachineFact
)

_TYPES = {kind.__name__: kind for kind in get_args(NodeMessage.__value__)}
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(message: NodeMessage) -> bytes:
    """Return a message as a line."""
    fields = {"type": type(message).__name__} | vars(message)
    return f"{MARKER}{_JSON.encode(fields)}\n".encode()


def decode(line: str) -> tuple[str, NodeMessage | None]:
    """Split a line into the text before its message, and the message, if it has one."""
    text, marker, content = line.rpartition(MARKER)
    if not marker:
        return line, None
    try:
        fields = json.loads(content)
        return text, _TYPES[fields.pop("type")](**fields)
    except (AttributeError, KeyError, TypeError, ValueError):
        return line, None


SHELL = r"""
# Print a message of this type: say TYPE [FIELD TEXT]... Control characters become spaces.
say() {
    fields="\"type\":\"$1\""
    shift
    while [ $# -gt 1 ]; do
        rest=$2
        case $rest in *[[:cntrl:]]*) rest=$(printf %s "$rest" | tr '\001-\037' ' ') ;; esac
        text=
        while head=${rest%%[\"\\]*} && [ "$head" != "$rest" ]; do
            rest=${rest#"$head"}
            case $rest in \"*) text=$text$head'\"' ;; *) text=$text$head'\\' ;; esac
            rest=${rest#?}
        done
        fields="$fields,\"$1\":\"$text$rest\""
        shift 2
    done
    printf '\036skyward {%s}\n' "$fields"
}
"""
"""`say`, with which a script for a POSIX shell prints messages whose fields are all texts."""
