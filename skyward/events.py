"""Every fact of a run as one typed event, as `Compute.events()` yields them. Pure: no I/O, no clock, no actor.

Console, report and page are drawn from these alone. `at` is seconds since 1970, of a clock that never goes backwards.
A batch is what travels as one call: with joblib it holds several tasks. A record of a run has a line for each.

| event | says |
| --- | --- |
| `RunStarted`, `Reported`, `RunEnded` | what was asked for; what has come of it so far, and in the end |
| `Quoted`, `Spent` | what machines will cost before they are launched; what they have cost |
| `NodeChanged`, `NodeStep` | where a node is on its way from its launch to its end; what its machine is being given |
| `NodeSilent`, `NodeHeard` | its link is cut or it is frozen; it is heard again |
| `NodeFacts`, `NodeNoticed`, `NodeGivenUp` | how it is; its machine is about to be taken away; none comes after it |
| `TasksCounted` | how many tasks the caller will give |
| `BatchesArrived`, `BatchesSent`, `BatchesEnded` | a batch on its usual way |
| `BatchesReturned`, `BatchRetried`, `BatchLost`, `BatchesCancelled`, `BatchesLate` | a batch on its other ways |
| `Printed`, `Logged` | what a task wrote; what it logged |
| `DashboardOpened` | the link to the live page |
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

type Stage = Literal["launching", "reaching", "booting", "joining", "ready", "ending", "ended"]


NOT_COUNTED = -1
"""Stands for the number of a task in its `Parallel` call, `map` or `TaskGroup`, where it belongs to none."""


def label(batch: int, function: str, first: int, tasks: int) -> str:
    """Return what a batch of tasks is called: `train (call 3)`, `train, task 17` or `train, tasks 17 to 19`."""
    if first == NOT_COUNTED:
        return f"{function} (call {batch})" if function else f"call {batch}"
    return f"{function}, task {first}" if tasks == 1 else f"{function}, tasks {first} to {first + tasks - 1}"


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The block was entered. `nodes` machines are asked for, and there may be `most`; `executor` is that of `Worker`.

    `program` is the script that runs, `version` and `python` are those of Skyward and Python here.
    """

    at: float
    run: str
    provider: str
    nodes: int
    most: int
    concurrency: int | None
    executor: str
    program: str
    version: str
    python: str


@dataclass(frozen=True, slots=True)
class Reported:
    """What the pool has done so far: `report` is `Report.as_dict()`. It is told now and then, ever more seldom."""

    at: float
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The pool is gone, but for the machines that `leaked`. `report` is `Report.as_dict()`, `error` what ended it."""

    at: float
    error: str
    leaked: tuple[str, ...]
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Quoted:
    """What machines are about to cost: `hourly` dollars for all `count` of them, as one line of `text`."""

    at: float
    text: str
    machine: str
    count: int
    hourly: float


@dataclass(frozen=True, slots=True)
class Spent:
    """All machines so far have cost `dollars`; those that are there now cost `hourly` dollars an hour."""

    at: float
    dollars: float
    hourly: float


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node, in its `generation`th life, has come to a stage; `reason` says why, where it is on its way out.

    `instance` and `host` are known once the machine is there, `slots` once the node is ready.
    """

    at: float
    node: int
    generation: int
    stage: Stage
    reason: str = ""
    instance: str = ""
    host: str = ""
    slots: int = 0


@dataclass(frozen=True, slots=True)
class NodeStep:
    """The machine of a node that is booting has begun a step of its bootstrap."""

    at: float
    node: int
    step: str


@dataclass(frozen=True, slots=True)
class NodeSilent:
    """The node is not heard; after `grace` seconds it is lost."""

    at: float
    node: int
    grace: float


@dataclass(frozen=True, slots=True)
class NodeHeard:
    """A node that was silent is heard again."""

    at: float
    node: int


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says of itself: batches queued and running, one-minute load, bytes of memory that are available.

    `cpu` is the share of its processors that worked since it said so before, `total` the bytes of all its memory.
    """

    at: float
    node: int
    queued: int
    running: int
    load: float
    memory: int
    cpu: float = 0.0
    total: int = 0


@dataclass(frozen=True, slots=True)
class NodeNoticed:
    """The cloud has said that it takes the machine of the node away soon."""

    at: float
    node: int
    said: str


@dataclass(frozen=True, slots=True)
class NodeGivenUp:
    """No other node comes under this number; no reason where it was to leave."""

    at: float
    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class TasksCounted:
    """The batches of a group, such as those of one call of `Parallel` or `map`, hold so many tasks in all.

    -1 means that this is not known yet. It may be told several times, and is certain once it is `final`.
    """

    at: float
    group: int
    tasks: int
    final: bool = False


@dataclass(frozen=True, slots=True)
class BatchesArrived:
    """The caller gave batches of a group, which hold so many tasks."""

    at: float
    batches: int
    tasks: int
    group: int = 0


@dataclass(frozen=True, slots=True)
class BatchesSent:
    """Batches, and `size` bytes with them, were sent to a node."""

    at: float
    node: int
    batches: int
    size: int


@dataclass(frozen=True, slots=True)
class BatchesEnded:
    """A node has answered batches: of each its number, its slot, the seconds it ran, how it ended, and its tasks.

    A status is `returned`, `raised`, `overdue` (it ran longer than its timeout), `killed` (as asked) or `died`.
    `slots` has -1 for one that never began. `size` are the bytes of all their results, but for large ones. `errors` has
    a line for each that raised, in their order. `functions` has the name of the function of each, or one for all;
    `firsts` the number of the first task of each (see `NOT_COUNTED`). `opening` has the seconds that the slot unpickled
    each, imported modules or waited for that, unless it took next to no time for all of them, and `imports` those of
    each module.
    """

    at: float
    node: int
    batches: tuple[int, ...]
    slots: tuple[int, ...]
    seconds: tuple[float, ...]
    statuses: tuple[str, ...]
    tasks: tuple[int, ...]
    size: int
    errors: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    firsts: tuple[int, ...] = ()
    opening: tuple[float, ...] = ()
    imports: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BatchesReturned:
    """A node gave back batches that it had not begun, for others to run or since nobody waits for them."""

    at: float
    node: int
    batches: int


@dataclass(frozen=True, slots=True)
class BatchRetried:
    """A batch, which died of `cause`, or was lost with its node, is tried again. `call` names its function and task."""

    at: float
    batch: int
    cause: str
    node: int = -1
    call: str = ""


@dataclass(frozen=True, slots=True)
class BatchLost:
    """A batch of so many tasks died too often, each time of one of the `causes`: its caller is told."""

    at: float
    batch: int
    causes: tuple[str, ...]
    tasks: int = 1
    call: str = ""


@dataclass(frozen=True, slots=True)
class BatchesCancelled:
    """Nobody waits for these batches any more."""

    at: float
    batches: int


@dataclass(frozen=True, slots=True)
class BatchesLate:
    """A node answered batches that nobody waits for any more: they hold so many tasks, and so many of them raised."""

    at: float
    node: int
    batches: int
    tasks: int = 1
    raised: int = 0


@dataclass(frozen=True, slots=True)
class Printed:
    """A task wrote this to `stdout` or `stderr`: whole lines, or what there is of one. The node itself is slot -1."""

    at: float
    node: int
    slot: int
    stream: Literal["stdout", "stderr"]
    text: str


@dataclass(frozen=True, slots=True)
class Logged:
    """A task logged this, under its logger's name, at a level as `logging` has them. The node itself is slot -1.

    `trace` is the traceback that came with it; `path`, `line` and `function` say where the task did so.
    """

    at: float
    node: int
    slot: int
    logger: str
    level: int
    text: str
    trace: str = ""
    path: str = ""
    line: int = 0
    function: str = ""


@dataclass(frozen=True, slots=True)
class DashboardOpened:
    """The run can be watched: `url` opens its page once, in a browser on this machine."""

    at: float
    url: str


type Event = (
    RunStarted
    | Reported
    | RunEnded
    | Quoted
    | Spent
    | NodeChanged
    | NodeStep
    | NodeSilent
    | NodeHeard
    | NodeFacts
    | NodeNoticed
    | NodeGivenUp
    | TasksCounted
    | BatchesArrived
    | BatchesSent
    | BatchesEnded
    | BatchesReturned
    | BatchRetried
    | BatchLost
    | BatchesCancelled
    | BatchesLate
    | Printed
    | Logged
    | DashboardOpened
)

_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__value__.__args__}
_FIELDS = {kind: tuple(each.name for each in fields(kind)) for kind in _KINDS.values()}


def to_json(event: Event) -> str:
    """Return the event as one line of JSON, `{"event": "NodeHeard", "at": ..., "node": 3}`."""
    kind = type(event)
    return json.dumps({"event": kind.__name__} | {name: getattr(event, name) for name in _FIELDS[kind]})


def from_json(line: str) -> Event | None:
    """Return the event of a line; None for one that a newer Skyward wrote, or that was cut off.

    Fields that a newer one has added are left out.
    """
    try:
        given: dict[str, Any] = json.loads(line)
        kind: Any = _KINDS[given["event"]]
        values = {name: given[name] for name in _FIELDS[kind] if name in given}
        event: Event = kind(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        )
        return event
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
