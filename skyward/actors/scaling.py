"""The number of nodes of a pool. Pure: no I/O, no clock, no actor.

A pool has `wanted` nodes, numbered from 0, and is open once `needed` of them are ready. A node that is lost while the
pool is open is started again under its number, in a new generation. One that never became ready is tried a bounded
number of times, and only once if another attempt would fail the same way. One that is repeatedly lost soon after it
became ready is started after longer and longer pauses, and in the end not at all.

While a node drains, its replacement is requested again and again: capacity refused now may be free when the old machine
is gone. The last node never drains before its replacement is ready.

A pool may have up to `most` nodes: it grows when batches wait for slots for a while, and nodes that are idle for long
leave, down to `needed`. The router tells a node to leave, so that it holds no batch when it is terminated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import assert_never

SETTLED_AFTER_S = 300.0
"""Seconds that a node serves after which its loss has nothing to do with those before it."""

MAX_LOSSES = 6
"""Consecutive losses of a node, each before it had settled, after which it is not replaced."""

RESTART_DELAY_S = 1.0
"""Seconds until a node is started again that was lost soon, or failed to start in an open pool, for the second time;
twice as many each time after that."""

SCALE_UP_CHECKS = 3
"""Looks in a row at which batches must have waited for slots before more nodes are started."""

SCALE_DOWN_IDLE_S = 60.0
"""Seconds without a batch after which a node that is not needed leaves."""


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """One number of the pool: which generation lives under it, and whether it is ready.

    It failed to become so `failures` times in a row, and was lost soon after it had `losses` times in a row. With
    `pausing` nothing lives there until a while has passed, or until one that is leaving is gone. One that is `leaving`
    is not replaced. One that is `spared` was being started when another had just left: its failure does not count.
    """

    generation: int = 0
    ready: bool = False
    failures: int = 0
    losses: int = 0
    pausing: bool = False
    leaving: bool = False
    spared: bool = False


@dataclass(frozen=True, slots=True)
class Scaling:
    """The nodes of a pool.

    Attributes
    ----------
    attempts
        How often a node is tried that does not become ready.
    wanted
        How many nodes the pool is to have.
    needed
        How many of them must be ready before the pool is open.
    most
        How many it may have at a time. What could not be had is not asked for again.
    nodes
        By number, those that exist or are about to.
    past
        The last generation under each number that nothing lives under any more.
    short
        Looks in a row at which batches waited for slots.
    opened
        Whether as many nodes as are needed have been ready at some time.
    closing
        Whether the pool is on its way out.
    leaked
        Names of what could not be ended.
    """

    attempts: int
    wanted: int = 0
    needed: int = 0
    most: int = 0
    nodes: Mapping[int, PlannedNode] = field(default_factory=dict)
    past: Mapping[int, int] = field(default_factory=dict)
    short: int = 0
    opened: bool = False
    closing: bool = False
    leaked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """The pool is to have so many nodes, and be open once `needed` of them are ready; None is all.

    It may come to have up to `most`; None is no more than that.
    """

    nodes: int
    needed: int | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class NodeReady:
    """The node takes batches."""

    node: int
    generation: int


@dataclass(frozen=True, slots=True)
class NodeEnded:
    """Nothing of the node is left, unless its machine, called `leaked`, could not be ended.

    What is `final` would happen to another one as well. It served for so many `seconds`.
    """

    node: int
    generation: int
    reason: str
    leaked: str = ""
    final: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Paused:
    """The time since `Pause` has passed."""

    node: int
    generation: int


@dataclass(frozen=True, slots=True)
class ScalingTick:
    """A second has passed. So many batches wait for slots, of which a node has `slots`.

    `idle` says of nodes for how many seconds they have had no batch.
    """

    waiting: int
    slots: int
    idle: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Noticed:
    """The node's machine is about to be taken away."""

    node: int
    generation: int


@dataclass(frozen=True, slots=True)
class NodeDrained:
    """The node that was told to leave holds no batch any more."""

    node: int


@dataclass(frozen=True, slots=True)
class Closing:
    """The pool is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Swept:
    """The provider was asked for anything with the pool's tag; these could not be ended.

    Where it could not be `asked`, what could not be ended before counts as well.
    """

    leaked: tuple[str, ...]
    asked: bool = True


type ScalingEvent = Wanted | NodeReady | NodeEnded | Paused | ScalingTick | Noticed | NodeDrained | Closing | Swept


@dataclass(frozen=True, slots=True)
class StartNode:
    """Start a supervisor for the node."""

    node: int
    generation: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Say `Paused` in so many seconds; for `reason` the node is not started before."""

    node: int
    generation: int
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class ReportWaiting:
    """Say that the node is started again once one that is leaving is gone."""

    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class DrainNode:
    """Tell the router that the node is to leave; `NodeDrained` follows."""

    node: int


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Tell the node's supervisor to end it."""

    node: int
    generation: int


@dataclass(frozen=True, slots=True)
class ReportOpened:
    """Tell the user that as many nodes as are needed are ready."""


@dataclass(frozen=True, slots=True)
class ReportFailed:
    """Tell the user that the pool cannot start, and why."""

    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReportGivenUp:
    """Tell the user that a node is not tried again, and why; no reason where it was to leave. The pool goes on."""

    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """Ask the provider for anything with the pool's tag and end it."""


@dataclass(frozen=True, slots=True)
class ReportClosed:
    """Tell the user that the pool is gone, but for what leaked."""

    leaked: tuple[str, ...]


type ScalingEffect = (
    StartNode
    | Pause
    | ReportWaiting
    | DrainNode
    | Dismiss
    | ReportOpened
    | ReportFailed
    | ReportGivenUp
    | Sweep
    | ReportClosed
)


def step(state: Scaling, event: ScalingEvent) -> tuple[Scaling, tuple[ScalingEffect, ...]]:
    """Return the next state and what to do. News of an earlier generation of a node changes nothing."""
    match event:
        case Wanted(number, needed, most):
            if state.closing:
                return state, ()
            added = [each for each in range(state.wanted, number) if each not in state.nodes]
            new = {each: PlannedNode(state.past.get(each, -1) + 1) for each in added}
            wanted = max(number, state.wanted)
            needed = wanted if needed is None else needed
            nodes = dict(state.nodes) | new
            state = replace(state, wanted=wanted, needed=needed, most=max(wanted, most or 0), nodes=nodes)
            return state, tuple(StartNode(each, node.generation) for each, node in new.items())
        case NodeReady(number, generation):
            return _ready(state, number, generation)
        case NodeEnded():
            return _ended(state, event)
        case Paused(number, generation):
            node = state.nodes.get(number)
            if node is None or node.generation != generation or not node.pausing:
                return state, ()
            again = replace(node, pausing=False)
            return replace(state, nodes=dict(state.nodes) | {number: again}), (StartNode(number, generation),)
        case ScalingTick():
            return _look(state, event)
        case Noticed(number, generation):
            return _replace_early(state, number, generation)
        case NodeDrained(number):
            node = state.nodes.get(number)
            return state, () if node is None or not node.leaving else (Dismiss(number, node.generation),)
        case Closing():
            if state.closing:
                return state, ()
            alive = {number: node for number, node in state.nodes.items() if not node.pausing}
            dismissals = tuple(Dismiss(number, node.generation) for number, node in alive.items())
            return replace(state, closing=True, nodes=alive), dismissals or (Sweep(),)
        case Swept(leaked, asked):
            leaked = leaked if asked else tuple(dict.fromkeys(state.leaked + leaked))
            return replace(state, leaked=leaked), (ReportClosed(leaked),)
    assert_never(event)


def _ready(state: Scaling, number: int, generation: int) -> tuple[Scaling, tuple[ScalingEffect, ...]]:
    node = state.nodes.get(number)
    if node is None or node.generation != generation:
        return state, ()
    ready = replace(node, ready=True, failures=0, spared=False)
    state, effects = _open(replace(state, nodes=dict(state.nodes) | {number: ready}))
    return state, ((DrainNode(number), *effects) if node.leaving else effects)  # the router did not know it before


def _open(state: Scaling) -> tuple[Scaling, tuple[ScalingEffect, ...]]:
    ready = sum(node.ready for node in state.nodes.values())
    if state.opened or state.closing or ready < state.needed:
        return state, ()
    return replace(state, opened=True), (ReportOpened(),)


def _ended(state: Scaling, ended: NodeEnded) -> tuple[Scaling, tuple[ScalingEffect, ...]]:
    node = state.nodes.get(ended.node)
    if node is None or node.generation != ended.generation:
        return state, ()
    others = {number: each for number, each in state.nodes.items() if number != ended.node}
    if ended.leaked:
        state = replace(state, leaked=(*state.leaked, ended.leaked))
    if state.closing:
        return replace(state, nodes=others), () if others else (Sweep(),)
    gone = replace(state, nodes=others, past=dict(state.past) | {ended.node: node.generation})
    if node.leaving:
        state, starts = _ask_again(gone)
        return state, (ReportGivenUp(ended.node, ""), *starts)
    leaver = any(each.leaving for each in others.values())
    failures, final = (0, False) if node.ready else (node.failures + 1, ended.final)
    if node.spared and not leaver:
        failures, final = 0, False
    losses = node.losses if not node.ready else 1 if ended.seconds >= SETTLED_AFTER_S else node.losses + 1
    if leaver or (failures < state.attempts and losses < MAX_LOSSES and not final):
        row = losses if node.ready else failures if state.opened or leaver else 0
        wait = RESTART_DELAY_S * 2.0 ** (row - 2) if row > 1 else 0.0
        again = PlannedNode(node.generation + 1, failures=failures, losses=losses, pausing=final or wait > 0)
        nodes = dict(state.nodes) | {ended.node: again}
        if final:
            return replace(state, nodes=nodes), (ReportWaiting(ended.node, ended.reason),)
        pause = Pause(ended.node, again.generation, wait, ended.reason)
        return replace(state, nodes=nodes), (pause if wait else StartNode(ended.node, again.generation),)
    if len(others) >= (1 if state.opened else state.needed):
        return replace(gone, most=len(others)), (ReportGivenUp(ended.node, ended.reason),)
    return gone, (ReportFailed(ended.node, ended.reason),)


def _ask_again(state: Scaling) -> tuple[Scaling, tuple[ScalingEffect, ...]]:
    """One has left: start what failed beside it, and give another try to what may just be failing for it."""
    nodes, starts = dict(state.nodes), list[ScalingEffect]()
    for number, node in state.nodes.items():
        if node.pausing and node.failures:
            nodes[number] = replace(node, failures=0, pausing=False)
            starts.append(StartNode(number, node.generation))
        elif not node.ready and not node.pausing:
            nodes[number] = replace(node, spared=True)
    return replace(state, nodes=nodes), tuple(starts)


def _look(state: Scaling, look: ScalingTick) -> tuple[Scaling, tuple[ScalingEffect, ...]]:
    """Let the pool grow or shrink."""
    if state.closing or not state.opened:
        return state, ()
    state = replace(state, short=state.short + 1 if look.waiting else 0)
    staying = {number: node for number, node in state.nodes.items() if not node.leaving}
    if state.short >= SCALE_UP_CHECKS:
        coming = sum(not node.ready for node in staying.values())
        lacking = -(-look.waiting // max(1, look.slots)) - coming
        return _grow(state, min(lacking, state.most - len(staying)))
    spare = sum(node.ready for node in staying.values()) - state.needed
    if look.waiting or spare <= 0:
        return state, ()
    idle = [number for number, seconds in look.idle.items() if seconds >= SCALE_DOWN_IDLE_S]
    bored = [number for number in idle if number in staying and staying[number].ready]
    chosen = sorted(bored, reverse=True)[:spare]
    nodes = dict(state.nodes) | {number: replace(state.nodes[number], leaving=True) for number in chosen}
    return replace(state, nodes=nodes), tuple(map(DrainNode, chosen))


def _replace_early(state: Scaling, number: int, generation: int) -> tuple[Scaling, tuple[ScalingEffect, ...]]:
    """Start another node for one that is about to go, under a number of its own, as both are there for a while."""
    node = state.nodes.get(number)
    if node is None or node.generation != generation or node.leaving or state.closing:
        return state, ()
    nodes = dict(state.nodes) | {number: replace(node, leaving=True)}
    state, starts = _grow(replace(state, nodes=nodes), 1)
    return state, (DrainNode(number), *starts)


def _grow(state: Scaling, size: int) -> tuple[Scaling, tuple[ScalingEffect, ...]]:
    """Start so many more nodes, under the lowest numbers that are free."""
    free = (number for number in count() if number not in state.nodes)
    new = {number: PlannedNode(state.past.get(number, -1) + 1) for number in islice(free, max(0, size))}
    starts = tuple(StartNode(number, node.generation) for number, node in new.items())
    return replace(state, nodes=dict(state.nodes) | new), starts
