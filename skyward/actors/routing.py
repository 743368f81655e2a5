"""Which node gets which batch, and what happens when a node or a slot is lost? Pure: no I/O, no clock, no actor.

Batches of a group are placed in the order they came; groups take turns, so that a long one does not starve a short one.
A node holds as many batches as it has slots, and more to be queued there, so that a slot never waits for the network.
Where a batch goes, and what is taken back in the end for slots that are idle, is decided in `placement`.

`RouterState` is changed in place by `step`, which is the only one to do so: copying a queue of 100,000 for every event
would cost more than everything else the driver does. It holds numbers only.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import assert_never

from skyward.actors.placement import REBALANCE_INTERVAL_S, place, steal
from skyward.actors.router_state import MAX_INTERRUPTIONS, BatchGroup, NodeLoad, QueuedBatch
from skyward.actors.router_state import RouterState as RouterState

QUEUED = ", and may have begun the calls that were queued on it"
"""What is added to the reason why a node was lost, for batches that it probably had not begun."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """Batches to run, in this order, all under the same terms.

    At most `limit` batches of the group are on nodes at once (None: no limit). `node` is the only node they may run on
    (None: any). `retries` is how often one is tried again after it died with its slot or node. `sizes` are the bytes
    that each brings and those before did not, where that matters.
    """

    batches: tuple[int, ...]
    group: int
    limit: int | None = None
    node: int | None = None
    retries: int = 2
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Died:
    """A batch ended with its slot's worker, which may or may not have been its fault."""

    batch: int
    cause: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The node has outcomes: of batches that are `done`, that were `killed` as asked, and that `died`.

    Those that are done ran for `seconds` on average.
    """

    node: int
    done: tuple[int, ...] = ()
    killed: tuple[int, ...] = ()
    died: tuple[Died, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class GaveBack:
    """Of the batches `asked` back from the node, these had not started.

    Nobody waits for those of them that are `gone`, which nobody has cancelled: Ctrl-C came just when they were sent, or
    the pool has failed.
    """

    node: int
    asked: tuple[int, ...]
    batches: tuple[int, ...]
    gone: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeComing:
    """A node is being started under this number; another may have been given up."""

    node: int


@dataclass(frozen=True, slots=True)
class NodeUp:
    """The node takes batches. The way there and back takes `round_trip` seconds."""

    node: int
    slots: int
    round_trip: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The way to the node and back takes so many seconds now."""

    node: int
    round_trip: float


@dataclass(frozen=True, slots=True)
class NodeDown:
    """The node is lost with all it had. Another may come under its number."""

    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class NodeRemoved:
    """No other node will come under this number."""

    node: int
    reason: str


@dataclass(frozen=True, slots=True)
class Drain:
    """The node is to go: it ends what it runs, and gets no more. `Drained` follows once it holds nothing."""

    node: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Nobody waits for these batches any more."""

    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RebalanceTick:
    """`placement.REBALANCE_INTERVAL_S` seconds have passed since `ScheduleRebalance`."""


type RoutingEvent = (
    RebalanceTick
    | Submitted
    | Answered
    | GaveBack
    | NodeComing
    | NodeUp
    | Measured
    | NodeDown
    | NodeRemoved
    | Drain
    | Cancelled
)


@dataclass(frozen=True, slots=True)
class AssignBatches:
    """Send the batches to the node."""

    node: int
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RevokeBatches:
    """Ask the node for what it has not started; with `kill`, have it stop the rest."""

    node: int
    batches: tuple[int, ...]
    kill: bool


@dataclass(frozen=True, slots=True)
class Complete:
    """Give the callers the outcomes that the node sent."""

    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DiscardLate:
    """The node sent outcomes of batches that nobody waits for any more."""

    node: int
    batches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """Say that the batch is tried again, and how the last attempt ended, on which node."""

    batch: int
    cause: str
    node: int


@dataclass(frozen=True, slots=True)
class Fail:
    """Tell the caller that the batch is lost, and how each attempt ended."""

    batch: int
    causes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drained:
    """The node that was to leave holds nothing any more."""

    node: int


@dataclass(frozen=True, slots=True)
class ScheduleRebalance:
    """Say `RebalanceTick` in `placement.REBALANCE_INTERVAL_S` seconds."""


type RoutingEffect = ScheduleRebalance | AssignBatches | RevokeBatches | Complete | DiscardLate | Retry | Fail | Drained


def step(state: RouterState, event: RoutingEvent) -> tuple[RoutingEffect, ...]:
    """Note the event in `state` and return what to do."""
    effects: list[RoutingEffect] = []
    match event:
        case Submitted():
            _arrive(state, event, effects)
        case Answered(node, done, killed, died, seconds):
            if done:
                state.note_pace(node, seconds)
            settled = tuple(batch for batch in done if _is_at(state, batch, node) and _remove(state, batch))
            if settled:
                effects.append(Complete(settled))
            if len(settled) < len(done):
                effects.append(DiscardLate(node, tuple(set(done).difference(settled))))
            for batch in killed:
                _lose(state, node, batch, "it was killed", effects)
            for each in reversed(died):
                _lose(state, node, each.batch, each.cause, effects)
        case GaveBack(node, asked, batches, gone):
            for batch in asked:
                if (item := state.items.get(batch)) is not None:
                    item.asked = False
            for batch in gone:
                if (item := state.items.get(batch)) is not None:
                    item.unwanted = True
            _requeue(state, (batch for batch in reversed(batches) if _is_at(state, batch, node)))
        case NodeComing(node):
            state.removed.pop(node, None)
        case NodeUp(node, slots, round_trip):
            state.nodes[node] = NodeLoad(slots, round_trip)
            state.slots += slots
        case Measured(node, round_trip):
            state.note_round_trip(node, round_trip)
        case NodeDown(node, reason):
            _take_down(state, node, reason, effects)
        case NodeRemoved(node, reason):
            state.removed[node] = reason
            left = [batch for batch in state.pinned.pop(node, ()) if _remove(state, batch)]
            effects.extend(Fail(batch, (reason,)) for batch in left)
        case Drain(node):
            if (leaver := state.nodes.get(node)) is not None and not leaver.leaving:
                leaver.leaving = True
                state.leavers.add(node)
                if leaver.held:
                    effects.append(RevokeBatches(node, tuple(leaver.held), kill=False))
        case Cancelled(batches):
            effects.extend(_cancel(state, batches))
        case RebalanceTick():
            state.looking = False
            for other in state.nodes.values():
                other.quiet += REBALANCE_INTERVAL_S
        case _:
            assert_never(event)
    effects.extend(AssignBatches(node, tuple(batches)) for node, batches in place(state).items())
    if state.leavers:
        effects.extend(_leave(state))
    moves, worth_a_look = steal(state, looked=isinstance(event, RebalanceTick))
    effects.extend(RevokeBatches(number, moved, kill=False) for number, moved in moves.items())
    if worth_a_look and not state.looking:
        state.looking = True
        effects.append(ScheduleRebalance())
    return tuple(effects)


def _is_at(state: RouterState, batch: int, node: int) -> bool:
    item = state.items.get(batch)
    return item is not None and item.at == node


def _arrive(state: RouterState, event: Submitted, effects: list[RoutingEffect]) -> None:
    if event.node in state.removed:
        effects.extend(Fail(batch, (state.removed[event.node],)) for batch in event.batches)
        return
    for batch, size in zip_longest(event.batches, event.sizes, fillvalue=0):
        state.items[batch] = QueuedBatch(event.group, event.node, event.retries, size)
    if event.node is not None:
        state.pinned.setdefault(event.node, deque()).extend(event.batches)
        return
    group = state.groups.get(event.group)
    if group is None:
        group = state.groups[event.group] = BatchGroup(event.limit)
    if not group.queue:
        state.turns.append(event.group)
    group.queue.extend(event.batches)


def _remove(state: RouterState, batch: int) -> bool:
    """Forget a batch that is on a node or pinned; answer whether somebody still waits for it."""
    item = state.items.pop(batch)
    _detach(state, batch, item)
    return not item.unwanted


def _detach(state: RouterState, batch: int, item: QueuedBatch) -> None:
    if item.at is None:
        return
    state.take(batch, item, state.nodes[item.at])
    if item.node is None:
        group = state.groups[item.group]
        group.out -= 1
        if not group.out and not group.queue:
            del state.groups[item.group]


def _lose(state: RouterState, node: int, batch: int, cause: str, effects: list[RoutingEffect]) -> None:
    """A batch died with its slot or node: try again, or fail it."""
    if not _is_at(state, batch, node):
        return
    item = state.items[batch]
    state.deaths += 1
    item.deaths = (*item.deaths, cause)
    if item.unwanted:
        _remove(state, batch)
    elif len(item.deaths) > item.retries:
        _remove(state, batch)
        effects.append(Fail(batch, item.deaths))
    else:
        effects.append(Retry(batch, cause, node))
        _requeue(state, (batch,))


def _requeue(state: RouterState, batches: Iterable[int]) -> None:
    """Put batches at the front again, the last one foremost. One that nobody wants is forgotten."""
    for batch in batches:
        item = state.items[batch]
        if item.unwanted:
            _remove(state, batch)
        elif item.node is not None:
            _detach(state, batch, item)
            state.pinned.setdefault(item.node, deque()).appendleft(batch)
        else:
            group = state.groups[item.group]
            if not group.queue:
                state.turns.appendleft(item.group)
            group.queue.appendleft(batch)
            _detach(state, batch, item)


def _take_down(state: RouterState, number: int, reason: str, effects: list[RoutingEffect]) -> None:
    """Count as deaths only the batches that the node has probably started: it starts them in the order it got them.

    It may have started more than it reported, so the ledger also counts its queued batches as retries.
    """
    node = state.nodes.get(number)
    if node is None:
        return
    held = tuple(node.held)
    queued = (batch for batch in held[node.slots :] if not state.items[batch].unwanted)
    effects.extend(Retry(batch, f"{reason}{QUEUED}", number) for batch in queued)
    _requeue(state, reversed(held[node.slots :]))
    for batch in reversed(held[: node.slots]):
        if node.leaving and (item := state.items[batch]).interruptions < MAX_INTERRUPTIONS:
            item.interruptions += 1
            item.retries += 1
        _lose(state, number, batch, reason, effects)
    del state.nodes[number]
    state.slow.discard(number)
    state.leavers.discard(number)
    state.slots -= node.slots


def _leave(state: RouterState) -> list[RoutingEffect]:
    """Say which of the nodes that are to leave hold nothing any more."""
    gone = [number for number in sorted(state.leavers) if not state.nodes[number].held]
    state.leavers.difference_update(gone)
    return [Drained(number) for number in gone]


def _cancel(state: RouterState, batches: tuple[int, ...]) -> list[RoutingEffect]:
    """What waits is skipped when its turn comes; what is on a node is asked back, or killed there."""
    by_node: dict[int, list[int]] = {}
    for batch in batches:
        item = state.items.get(batch)
        if item is None or item.unwanted:
            continue
        item.unwanted = True
        if item.at is not None:
            by_node.setdefault(item.at, []).append(batch)
    return [RevokeBatches(node, tuple(asked), kill=True) for node, asked in by_node.items()]
