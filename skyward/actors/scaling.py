"""How many nodes should there be? Pure: no I/O, no clock, no actor.

A pool has `wanted` nodes, numbered from 0, and is open once `needed` of them are ready. A node that ends while the pool
is open is started again under its number, in a new generation; one that never became ready is tried a bounded number of
times, and only once where another attempt would end the same way. One that becomes ready and is lost soon, again and
again, is started after longer and longer waits, and in the end no more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

SETTLED = 300.0
"""Seconds that a node serves after which its loss has nothing to do with those before it."""

LOSSES = 6
"""Losses in a row, each before the node had settled, after which it is not replaced any more."""

PAUSE = 1.0
"""Seconds until a node is started again that was lost soon for the second time; twice as many each time after that."""


@dataclass(frozen=True, slots=True)
class Node:
    """One number of the pool: which generation lives under it, and whether it is ready.

    It failed to become so `failures` times in a row, and was lost soon after it had `losses` times in a row. With
    `pausing` nothing lives there until a while has passed.
    """

    generation: int = 0
    ready: bool = False
    failures: int = 0
    losses: int = 0
    pausing: bool = False


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
    nodes
        By number, those that exist or are about to.
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
    nodes: Mapping[int, Node] = field(default_factory=dict)
    opened: bool = False
    closing: bool = False
    leaked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """The pool is to have so many nodes, and be open once `needed` of them are ready; None is all."""

    nodes: int
    needed: int | None = None


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
class Closing:
    """The pool is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Swept:
    """The provider was asked for anything with the pool's tag; these could not be ended.

    Where it could not be `asked`, what could not be ended before counts as well.
    """

    leaked: tuple[str, ...]
    asked: bool = True


type Event = Wanted | NodeReady | NodeEnded | Paused | Closing | Swept


@dataclass(frozen=True, slots=True)
class Start:
    """Start a supervisor for the node."""

    node: int
    generation: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Say `Paused` in so many seconds."""

    node: int
    generation: int
    seconds: float


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
    """Tell the user that the pool cannot be had, and why."""

    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReportGivenUp:
    """Tell the user that a node is not tried again, and why. The pool goes on with the others."""

    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sweep:
    """Ask the provider for anything with the pool's tag and end it."""


@dataclass(frozen=True, slots=True)
class ReportClosed:
    """Tell the user that the pool is gone, but for what leaked."""

    leaked: tuple[str, ...]


type Effect = Start | Pause | Dismiss | ReportOpened | ReportFailed | ReportGivenUp | Sweep | ReportClosed


def step(state: Scaling, event: Event) -> tuple[Scaling, tuple[Effect, ...]]:
    """Return the next state and what to do. News of an earlier generation of a node changes nothing."""
    match event:
        case Wanted(count, needed):
            if state.closing:
                return state, ()
            added = range(state.wanted, count)  # not those that were given up: their generations would begin anew
            nodes = dict(state.nodes) | {number: Node() for number in added}
            wanted = max(count, state.wanted)
            state = replace(state, wanted=wanted, needed=wanted if needed is None else needed, nodes=nodes)
            return state, tuple(Start(number, 0) for number in added)
        case NodeReady(number, generation):
            return _ready(state, number, generation)
        case NodeEnded():
            return _ended(state, event)
        case Paused(number, generation):
            node = state.nodes.get(number)
            if node is None or node.generation != generation or not node.pausing:
                return state, ()
            again = replace(node, pausing=False)
            return replace(state, nodes=dict(state.nodes) | {number: again}), (Start(number, generation),)
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


def _ready(state: Scaling, number: int, generation: int) -> tuple[Scaling, tuple[Effect, ...]]:
    node = state.nodes.get(number)
    if node is None or node.generation != generation:
        return state, ()
    return _open(replace(state, nodes=dict(state.nodes) | {number: replace(node, ready=True, failures=0)}))


def _open(state: Scaling) -> tuple[Scaling, tuple[Effect, ...]]:
    ready = sum(node.ready for node in state.nodes.values())
    if state.opened or state.closing or ready < state.needed:
        return state, ()
    return replace(state, opened=True), (ReportOpened(),)


def _ended(state: Scaling, ended: NodeEnded) -> tuple[Scaling, tuple[Effect, ...]]:
    node = state.nodes.get(ended.node)
    if node is None or node.generation != ended.generation:
        return state, ()
    others = {number: each for number, each in state.nodes.items() if number != ended.node}
    if ended.leaked:
        state = replace(state, leaked=(*state.leaked, ended.leaked))
    if state.closing:
        return replace(state, nodes=others), () if others else (Sweep(),)
    failures = 0 if node.ready else node.failures + 1
    losses = node.losses if not node.ready else 1 if ended.seconds >= SETTLED else node.losses + 1
    if failures < state.attempts and losses < LOSSES and not ended.final:
        wait = PAUSE * 2.0 ** (losses - 2) if losses > 1 and node.ready else 0.0
        again = Node(node.generation + 1, failures=failures, losses=losses, pausing=wait > 0)
        start = Pause(ended.node, again.generation, wait) if wait else Start(ended.node, again.generation)
        return replace(state, nodes=dict(state.nodes) | {ended.node: again}), (start,)
    if len(others) >= (1 if state.opened else state.needed):
        return replace(state, nodes=others), (ReportGivenUp(ended.node, ended.reason),)
    return replace(state, nodes=others), (ReportFailed(ended.node, ended.reason),)
