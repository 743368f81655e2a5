"""Which node is the next batch for, and what is worth moving to another? Pure: no I/O, no clock, no actor.

A batch goes where it will end first, as far as the pace of the nodes tells; among nodes of about the same prospects, to
the one with the least to do. What is queued on a node is taken back for an idle slot elsewhere when it would end there
sooner, the way included. A node that has not answered for longer than its batches take may be stuck behind long ones:
then what waits there is taken to wait as long again.
"""

import heapq
from collections import deque

from skyward.actors.router_state import SIMILAR_PACE_RATIO, NodeLoad, RouterState

HANDLING_TIME_S = 0.005
"""Seconds that moving a batch takes beside the way there and back; paces that differ by less are the same."""

REBALANCE_INTERVAL_S = 0.1
"""Seconds until another look at what may be worth moving."""


def place(state: RouterState) -> dict[int, list[int]]:
    """Give batches to nodes until there is no more room or no batch that may be placed; return those of each node."""
    given: dict[int, list[int]] = {}
    for number, queue in list(state.pinned.items()):
        node = state.nodes.get(number)
        while node is not None and state.room(node) > 0 and (batch := _next(state, queue)) is not None:
            _give(state, batch, number, node, given)
        if not queue:
            del state.pinned[number]
    if state.turns:
        _place_groups(state, given)
    return given


def _place_groups(state: RouterState, given: dict[int, list[int]]) -> None:
    """Place a batch of each group in turn."""
    alike = SIMILAR_PACE_RATIO * min((_even_pace(state, node) for node in state.nodes.values()), default=1.0)
    prospects = [
        (*_prospect(state, node, alike), number) for number, node in state.nodes.items() if state.room(node) > 0
    ]
    heapq.heapify(prospects)
    passed = 0  # groups in a row that had nothing to place
    while prospects and state.turns and passed < len(state.turns):
        name = state.turns.popleft()
        group = state.groups[name]
        batch = _next(state, group.queue) if group.open else None
        if batch is None:
            if group.queue:
                passed += 1
                state.turns.append(name)
            elif not group.out:
                del state.groups[name]
            continue
        passed = 0
        if group.queue:
            state.turns.append(name)
        *_, number = heapq.heappop(prospects)
        node = state.nodes[number]
        _give(state, batch, number, node, given)
        group.out += 1
        if state.room(node) > 0:
            heapq.heappush(prospects, (*_prospect(state, node, alike), number))


def _prospect(state: RouterState, node: NodeLoad, alike: float) -> tuple[int, float]:
    """What makes one node better than another for the next batch: when it would end there, roughly, and the load."""
    held, pace = len(node.held), _even_pace(state, node)
    ends = pace if held < node.slots else _ends_here(node, pace, held - node.slots)
    return int(ends / alike), held / node.slots


def _pace(state: RouterState, node: NodeLoad) -> float:
    """Seconds that a batch runs on the node."""
    pace = node.pace if node.pace is not None else state.pace
    return 1.0 if pace is None else pace


def _even_pace(state: RouterState, node: NodeLoad) -> float:
    """The same, but those that differ by less than it takes to tell are equal."""
    pace = _pace(state, node)
    return max(HANDLING_TIME_S, pace)


def _next(state: RouterState, queue: deque[int]) -> int | None:
    """Take the first batch of a queue that somebody waits for."""
    while queue:
        batch = queue.popleft()
        if not state.items[batch].unwanted:
            return batch
        del state.items[batch]
    return None


def _give(state: RouterState, batch: int, number: int, node: NodeLoad, given: dict[int, list[int]]) -> None:
    state.give(batch, number, node)
    given.setdefault(number, []).append(batch)


def steal(state: RouterState, *, looked: bool) -> tuple[dict[int, tuple[int, ...]], bool]:
    """Choose what to ask back, from which node, when there is nothing left to place.

    It is for slots that are idle; at a look, what is queued on slow nodes is also for the queues of others. The second
    value says that another look may be worth it.
    """
    if not state.queued:
        return {}, False
    idle = sum(max(0, node.slots - len(node.held)) for node in state.nodes.values() if not node.leaving)
    slow = any(len(state.nodes[number].held) > state.nodes[number].slots for number in state.slow)
    if len(state.nodes) < 2 or not (idle or slow) or any(state.groups[name].open for name in state.turns):
        return {}, False
    deep = [(number, node) for number, node in state.nodes.items() if _lasts(state, node)]
    if not deep or not (idle or looked):
        return {}, True
    there = _ends_there(state, idle, queued=looked and slow)
    there = there[sum(state.items[batch].asked for node in state.nodes.values() for batch in node.held) :]
    asked: dict[int, tuple[int, ...]] = {}
    left = slow
    for number, node in sorted(deep, key=lambda each: each[1].slots - len(each[1].held)):
        if not there:
            break
        taken: list[int] = []
        for place, batch in reversed(tuple(enumerate(tuple(node.held)[node.slots :]))):
            item = state.items[batch]
            if item.asked or item.node is not None:
                continue
            if not there or _ends_here(node, _pace(state, node), place) <= there[0] + node.round_trip:
                left = left or bool(there)
                break
            there.pop(0)
            item.asked = True
            taken.append(batch)
        if taken:
            asked[number] = tuple(reversed(taken))
    return asked, left


def _lasts(state: RouterState, node: NodeLoad) -> bool:
    """Whether what is queued on the node takes longer than moving it would."""
    queued = len(node.held) - node.slots
    return queued > 0 and _ends_here(node, _pace(state, node), queued - 1) > HANDLING_TIME_S


def _ends_there(state: RouterState, idle: int, *, queued: bool) -> list[float]:
    """In how many seconds a batch would end that is moved, soonest first: to an idle slot, or into a queue."""
    if state.pace is None:
        return [0.0] * idle
    ends = []
    for number, node in state.nodes.items():
        if node.leaving:
            continue
        pace, way = _pace(state, node), 2 * node.round_trip + HANDLING_TIME_S
        ends += [pace + way] * (node.slots - len(node.held))
        if queued and number not in state.slow:
            places = range(max(0, len(node.held) - node.slots), node.slots)
            ends += [SIMILAR_PACE_RATIO * (_ends_here(node, pace, place) + way) for place in places]
    return sorted(ends)


def _ends_here(node: NodeLoad, pace: float, place: int) -> float:
    """In how many seconds a batch ends that is queued on the node behind `place` others."""
    wait = node.quiet if node.quiet > 1.5 * pace else pace * max(0.5, (place + 1) / node.slots)
    return wait + pace
