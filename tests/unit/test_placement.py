"""Which node the next batch is for, and what is worth moving."""

from skyward.actors.placement import REBALANCE_INTERVAL_S, place, steal
from skyward.actors.router_state import (
    MAX_BYTES_AHEAD,
    MAX_QUEUED_PER_SLOT,
    BatchGroup,
    NodeLoad,
    QueuedBatch,
    RouterState,
)


def pool(*nodes: NodeLoad, batches: int = 0, pace: float | None = 1.0) -> RouterState:
    """A pool whose nodes have this pace if none of their own, with so many batches to place."""
    state = RouterState(nodes=dict(enumerate(nodes)), pace=pace, slots=sum(node.slots for node in nodes))
    queue(state, batches)
    return state


def queue(state: RouterState, batches: int, limit: int | None = None) -> None:
    numbers = range(len(state.items), len(state.items) + batches)
    state.items |= {number: QueuedBatch(1, None, 2) for number in numbers}
    if batches:
        state.groups[1] = BatchGroup(limit)
        state.groups[1].queue.extend(numbers)
        state.turns.append(1)


def filled(*nodes: NodeLoad, held: tuple[int, ...], pace: float | None = 1.0) -> RouterState:
    """A pool whose nodes hold so many batches each, with nothing to place."""
    state = pool(*nodes, pace=pace)
    for number, count in enumerate(held):
        for batch in range(100 * number, 100 * number + count):
            state.items[batch] = QueuedBatch(1, None, 2)
            state.give(batch, number, nodes[number])
        slow = (nodes[number].pace or 0.0) > 1.5 * (pace or 1.0)
        state.slow |= {number} if slow else set()
    return state


def test_among_nodes_of_one_speed_the_one_with_the_least_to_do_is_next() -> None:
    assert place(pool(NodeLoad(2), NodeLoad(2), batches=3)) == {0: [0, 2], 1: [1]}
    assert place(pool(NodeLoad(2, pace=1.0), NodeLoad(2, pace=1.2), batches=3)) == {0: [0, 2], 1: [1]}


def test_a_fast_node_is_given_a_queue_before_a_slow_one_is_given_anything() -> None:
    assert place(pool(NodeLoad(2, pace=4.0), NodeLoad(2, pace=1.0), batches=5)) == {1: [0, 1, 2, 3], 0: [4]}


def test_paces_that_differ_by_less_than_it_takes_to_tell_are_the_same() -> None:
    assert place(pool(NodeLoad(2, pace=0.004), NodeLoad(2, pace=0.0001), batches=2)) == {0: [0], 1: [1]}


def test_a_node_holds_what_its_slots_run_while_an_answer_brings_the_next_batch() -> None:
    far = RouterState()
    assert far.room(NodeLoad(10)) == 20
    assert far.room(NodeLoad(10, round_trip=0.08, pace=5.0)) == 20
    assert far.room(NodeLoad(10, round_trip=0.08, pace=0.05)) == 10 + 48
    assert far.room(NodeLoad(10, round_trip=0.08, pace=0.0)) == 10 + 10 * MAX_QUEUED_PER_SLOT
    assert (far.depth(), pool(NodeLoad(10)).depth(), pool(NodeLoad(10, round_trip=0.08, pace=0.05)).depth()) == (
        2,
        2,
        5.8,
    )
    assert RouterState(prefetch=3).room(NodeLoad(10, round_trip=0.08, pace=0.05)) == 13


def test_a_node_that_holds_many_bytes_is_sent_no_more_ahead() -> None:
    state = pool(NodeLoad(2), batches=5)
    for item in state.items.values():
        item.size = MAX_BYTES_AHEAD // 3 + 1
    assert place(state) == {0: [0, 1, 2]}
    state.take(0, state.items[0], state.nodes[0])
    assert (state.nodes[0].size, place(state)) == (2 * (MAX_BYTES_AHEAD // 3 + 1), {0: [3]})
    state = pool(NodeLoad(2), batches=5)
    for item in state.items.values():
        item.size = MAX_BYTES_AHEAD
    assert place(state) == {0: [0, 1]}


def test_nothing_is_given_or_moved_to_a_node_that_leaves() -> None:
    assert place(pool(NodeLoad(2, leaving=True), NodeLoad(2), batches=5)) == {1: [0, 1, 2, 3]}
    assert steal(filled(NodeLoad(2), NodeLoad(2, leaving=True), held=(4, 0)), looked=True) == ({}, False)
    three = filled(NodeLoad(2, pace=1.0), NodeLoad(2, pace=1.0, leaving=True), NodeLoad(2, pace=1.0), held=(4, 0, 1))
    assert steal(three, looked=True) == ({0: (3,)}, False)
    assert pool(NodeLoad(2, leaving=True), NodeLoad(2)).depth() == 2


def test_what_is_pinned_waits_for_its_node() -> None:
    state = pool(NodeLoad(1))
    state.items |= {number: QueuedBatch(1, number, 2) for number in range(2)}
    for number in range(2):
        state.pinned.setdefault(number, type(state.turns)()).append(number)
    assert place(state) == {0: [0]}
    assert list(state.pinned) == [1]


def test_a_group_at_its_limit_is_passed_over_and_one_without_batches_is_forgotten() -> None:
    state = pool(NodeLoad(4))
    queue(state, 2, limit=1)
    assert place(state) == {0: [0]}
    state.items[1].unwanted = True
    state.groups[1].limit = None
    assert place(state) == {}
    assert (1 in state.items, list(state.turns), 1 in state.groups) == (False, [], True)
    gone = pool(NodeLoad(4), batches=1)
    gone.items[0].unwanted = True
    assert place(gone) == {}
    assert gone.groups == {}


def test_what_is_queued_is_moved_to_idle_slots_where_it_ends_sooner() -> None:
    assert steal(filled(NodeLoad(2), NodeLoad(2), held=(4, 0)), looked=False) == ({0: (2, 3)}, False)
    assert steal(filled(NodeLoad(2), NodeLoad(2), held=(4, 1)), looked=False) == ({0: (3,)}, False)


def test_it_is_not_moved_where_the_way_takes_longer_than_the_wait_but_another_look_is_worth_it() -> None:
    assert steal(filled(NodeLoad(2), NodeLoad(2, round_trip=1.0), held=(4, 0)), looked=False) == ({}, True)
    assert steal(filled(NodeLoad(2), NodeLoad(2), held=(4, 0), pace=0.001), looked=False) == ({}, True)


def test_it_is_moved_to_a_slow_node_only_when_it_is_stuck() -> None:
    waiting = filled(NodeLoad(2, pace=1.0), NodeLoad(2, pace=4.0), held=(3, 0))
    assert steal(waiting, looked=True) == ({}, True)
    stuck = filled(NodeLoad(2, pace=1.0, quiet=5.0 + REBALANCE_INTERVAL_S), NodeLoad(2, pace=4.0), held=(3, 0))
    assert steal(stuck, looked=True) == ({0: (2,)}, False)


def test_at_a_look_what_is_queued_on_a_slow_node_is_moved_into_the_queues_of_others() -> None:
    def uneven(*held: int) -> RouterState:
        return filled(NodeLoad(2, pace=4.0), NodeLoad(2, pace=1.0), held=held)

    assert steal(uneven(4, 2), looked=False) == ({}, True)
    assert steal(uneven(4, 3), looked=True) == ({0: (3,)}, True)
    assert steal(uneven(4, 4), looked=True) == ({}, True)
    assert steal(uneven(2, 4), looked=True) == ({}, False)


def test_before_anything_is_known_idle_slots_get_what_there_is() -> None:
    assert steal(filled(NodeLoad(2), NodeLoad(2, round_trip=9.0), held=(3, 0), pace=None), looked=False) == (
        {0: (2,)},
        False,
    )


def test_what_is_asked_back_or_pinned_stays() -> None:
    state = filled(NodeLoad(1), NodeLoad(3), held=(4, 0))
    state.items[3].asked, state.items[2].node = True, 0
    assert steal(state, looked=False) == ({0: (1,)}, False)


def test_nothing_is_moved_where_nothing_is_queued() -> None:
    assert steal(filled(NodeLoad(2), NodeLoad(2), held=(2, 0)), looked=True) == ({}, False)


def test_nothing_is_moved_while_there_is_work_to_place_or_no_other_node() -> None:
    assert steal(filled(NodeLoad(2), held=(4,)), looked=True) == ({}, False)
    state = filled(NodeLoad(2), NodeLoad(2), held=(4, 0))
    queue(state, 1)
    assert steal(state, looked=True) == ({}, False)
