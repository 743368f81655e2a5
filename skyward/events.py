"""The typed events of a run, as `Compute.events()` yields them. Pure: no I/O, no clock, no actor.

Console, report and page use only these events. `at` is seconds since 1970, of a clock that never goes backwards. A
batch is the unit that is sent to a node; with joblib it holds several tasks. The record of a run has a line for each
event.

| event | says |
| --- | --- |
| `RunStarted`, `Reported`, `RunEnded` | what was requested; what was done so far, and at the end |
| `Quoted`, `Spent` | what machines will cost before they are launched; what they have cost |
| `NodeChanged`, `NodeStep` | the stage of a node, from launch to shutdown; the step of its bootstrap |
| `NodeSilent`, `NodeHeard` | its connection is cut or it is frozen; it is heard from again |
| `NodeFacts`, `NodeNoticed`, `NodeGivenUp` | its load; its machine is about to be reclaimed; it will not be replaced |
| `TasksCounted` | how many tasks the caller will submit |
| `BatchesArrived`, `BatchesSent`, `BatchesEnded` | a batch on its usual way |
| `BatchesReturned`, `BatchRetried`, `BatchLost`, `BatchesCancelled` | a batch on its other ways |
| `BatchesLate`, `ResultsLost` | answers that no longer count |
| `Printed`, `Logged` | what a task wrote; what it logged |
| `DashboardOpened` | the link to the live page |
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

type Stage = Literal["launching", "reaching", "booting", "joining", "ready", "ending", "ended"]


NOT_COUNTED = -1
"""Number of a task that belongs to no `Parallel` call, `map` or `TaskGroup`."""


def label(batch: int, function: str, first: int, tasks: int) -> str:
    """Return the label of a batch of tasks: `train (call 3)`, `train, task 17` or `train, tasks 17 to 19`."""
    if first == NOT_COUNTED:
        return f"{function} (call {batch})" if function else f"call {batch}"
    return f"{function}, task {first}" if tasks == 1 else f"{function}, tasks {first} to {first + tasks - 1}"


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The block was entered. `nodes` machines are requested, and there may be up to `most`; `executor` is that of
    `Worker`.

    `program` is the running script, `version` and `python` are the versions of Skyward and Python here.
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
    """What the pool has done so far: `report` is `Report.as_dict()`. Emitted at growing intervals."""

    at: float
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The pool is shut down, except for the machines that `leaked`. `report` is `Report.as_dict()`, `error` the reason
    of a failure."""

    at: float
    error: str
    leaked: tuple[str, ...]
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Quoted:
    """What machines that are about to be launched will cost: `hourly` dollars for all `count` of them, and `text` as
    one line."""

    at: float
    text: str
    machine: str
    count: int
    hourly: float


@dataclass(frozen=True, slots=True)
class Spent:
    """All machines so far have cost `dollars`; those that run now cost `hourly` dollars per hour."""

    at: float
    dollars: float
    hourly: float


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node has reached a stage. `generation` counts the nodes under this number; `reason` says why it is being shut
    down.

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
    """The machine of a booting node has begun a step of its bootstrap."""

    at: float
    node: int
    step: str


@dataclass(frozen=True, slots=True)
class NodeSilent:
    """The node is silent; after `grace` seconds it counts as lost."""

    at: float
    node: int
    grace: float


@dataclass(frozen=True, slots=True)
class NodeHeard:
    """A silent node is heard from again."""

    at: float
    node: int


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The state of a node: batches queued and running, one-minute load, bytes of available memory.

    `cpu` is the share of its processors that was busy since the previous event, `total` the bytes of all its memory.
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
    """The cloud has announced that it will reclaim the machine of the node."""

    at: float
    node: int
    said: str


@dataclass(frozen=True, slots=True)
class NodeGivenUp:
    """This node will not be replaced. `reason` is empty if it was meant to leave."""

    at: float
    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class TasksCounted:
    """The number of tasks that the batches of a group hold in total, such as those of one call of `Parallel` or `map`.

    -1 means that it is not known yet. It may be emitted several times, and is certain once it is `final`.
    """

    at: float
    group: int
    tasks: int
    final: bool = False


@dataclass(frozen=True, slots=True)
class BatchesArrived:
    """The caller submitted batches of a group, which hold this many tasks."""

    at: float
    batches: int
    tasks: int
    group: int = 0


@dataclass(frozen=True, slots=True)
class BatchesSent:
    """Batches were sent to a node, `size` bytes in total."""

    at: float
    node: int
    batches: int
    size: int


@dataclass(frozen=True, slots=True)
class BatchesEnded:
    """A node has answered batches. For each: its number, its slot, the seconds that it ran, its status, and its tasks.

    A status is `returned`, `raised`, `overdue` (it ran longer than its timeout), `killed` (as requested) or `died`.
    `slots` has -1 for a batch that never began. `size` is the bytes of all their results, except large ones. `errors`
    has a line for each batch that raised, in order. `functions` has the name of the function of each, or one for all;
    `firsts` the number of the first task of each (see `NOT_COUNTED`). `opening` has the seconds in which the slot
    unpickled each, imported modules or waited for imports, unless that took almost no time for all of them, and
    `imports` the seconds of each module.
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
    """A node gave back batches that it had not begun: for other nodes, or because nobody waits for them."""

    at: float
    node: int
    batches: int


@dataclass(frozen=True, slots=True)
class BatchRetried:
    """A batch that died of `cause`, or was lost with its node, is retried. `call` names its function and task."""

    at: float
    batch: int
    cause: str
    node: int = -1
    call: str = ""


@dataclass(frozen=True, slots=True)
class BatchLost:
    """A batch died too often, and its call fails. `causes` has the cause of each attempt."""

    at: float
    batch: int
    causes: tuple[str, ...]
    tasks: int = 1
    call: str = ""


@dataclass(frozen=True, slots=True)
class BatchesCancelled:
    """These batches were cancelled."""

    at: float
    batches: int


@dataclass(frozen=True, slots=True)
class BatchesLate:
    """A node answered batches that nobody waits for any more: the number of their tasks, how many raised, and the
    seconds that they ran."""

    at: float
    node: int
    batches: int
    tasks: int = 1
    raised: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ResultsLost:
    """A node answered batches, but their large results were lost before they were fetched. The fields are those of
    `BatchesLate`; the batches are retried or lost."""

    at: float
    node: int
    batches: int
    tasks: int
    raised: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Printed:
    """A task wrote this to `stdout` or `stderr`: whole lines, or an unfinished one. Slot -1 is the node itself."""

    at: float
    node: int
    slot: int
    stream: Literal["stdout", "stderr"]
    text: str


@dataclass(frozen=True, slots=True)
class Logged:
    """A task logged this, under its logger's name, at a level of `logging`. Slot -1 is the node itself.

    `trace` is its traceback; `path`, `line` and `function` are where the task logged it.
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
    | ResultsLost
    | Printed
    | Logged
    | DashboardOpened
)

_EVENT_TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__value__.__args__}
_FIELDS = {kind: tuple(each.name for each in fields(kind)) for kind in _EVENT_TYPES.values()}


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
        kind: Any = _EVENT_TYPES[given["event"]]
        values = {name: given[name] for name in _FIELDS[kind] if name in given}
        event: Event = kind(
            **{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        )
        return event
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
