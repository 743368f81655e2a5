"""Which node gets which batch, and what happens when a node or a slot is lost."""

import pytest

from skyward.actors.router_state import MAX_INTERRUPTIONS, RouterState
from skyward.actors.routing import (
    QUEUED,
    Answered,
    AssignBatches,
    Cancelled,
    Complete,
    Died,
    DiscardLate,
    Drain,
    Drained,
    Fail,
    GaveBack,
    Measured,
    NodeComing,
    NodeDown,
    NodeRemoved,
    NodeUp,
    RebalanceTick,
    Retry,
    RevokeBatches,
    RoutingEffect,
    RoutingEvent,
    ScheduleRebalance,
    Submitted,
    step,
)


def told(*events: RoutingEvent, prefetch: int | None = 0) -> tuple[RoutingEffect, ...]:
    """What the last event led to."""
    return running(*events, prefetch=prefetch)[1]


def running(*events: RoutingEvent, prefetch: int | None = 0) -> tuple[RouterState, tuple[RoutingEffect, ...]]:
    state = RouterState(prefetch)
    effects: tuple[RoutingEffect, ...] = ()
    for event in events:
        effects = step(state, event)
    return state, effects


def test_a_batch_waits_for_a_node() -> None:
    assert told(Submitted((1,), 1)) == ()
    assert told(Submitted((1,), 1), NodeUp(0, 1)) == (AssignBatches(0, (1,)),)


def test_batches_go_to_the_node_with_the_least_to_do() -> None:
    assert told(NodeUp(0, 2), NodeUp(1, 2), Submitted((1, 2, 3), 1)) == (
        AssignBatches(0, (1, 3)),
        AssignBatches(1, (2,)),
    )


def test_a_node_is_given_as_much_again_as_it_has_slots() -> None:
    assert told(NodeUp(0, 2), Submitted((1, 2, 3, 4, 5), 1), prefetch=None) == (AssignBatches(0, (1, 2, 3, 4)),)
    assert told(NodeUp(0, 2), Submitted((1, 2, 3, 4, 5), 1), prefetch=1) == (AssignBatches(0, (1, 2, 3)),)


def test_a_node_holds_as_many_bytes_as_its_batches_bring() -> None:
    state, _ = running(NodeUp(0, 1), Submitted((1, 2), 1, sizes=(10, 20)), prefetch=None)
    assert state.nodes[0].size == 30
    step(state, Answered(0, (1,)))
    assert state.nodes[0].size == 20


def test_a_node_that_is_to_leave_ends_what_it_runs_and_gets_no_more() -> None:
    busy = (NodeUp(0, 1), NodeUp(1, 1), Submitted((1, 2, 3, 4), 1))
    assert told(*busy, Drain(0), prefetch=None) == (RevokeBatches(0, (1, 3), kill=False),)
    assert told(*busy, Drain(0), Drain(0), prefetch=None) == ()
    assert told(*busy, Drain(0), GaveBack(0, (1, 3), (3,)), prefetch=None) == ()
    given = (*busy, Drain(0), GaveBack(0, (1, 3), (3,)))
    assert told(*given, Answered(1, (2,)), prefetch=None) == (Complete((2,)), AssignBatches(1, (3,)))
    assert told(*given, Answered(0, (1,)), prefetch=None) == (Complete((1,)), Drained(0))
    assert told(*given, Answered(0, (1,)), Submitted((9,), 1), prefetch=None) == ()


def test_an_idle_node_that_is_to_leave_has_left_and_a_lost_one_says_no_more() -> None:
    assert told(NodeUp(0, 1), Drain(0)) == (Drained(0),)
    assert told(Drain(7)) == ()
    assert told(NodeUp(0, 1), Submitted((1,), 1), Drain(0), NodeDown(0, "x")) == (Retry(1, "x", 0),)


def test_what_is_lost_with_a_node_that_was_leaving_has_tries_of_its_own() -> None:
    events: list[RoutingEvent] = [Submitted((1,), 1, retries=0)]
    for number in range(MAX_INTERRUPTIONS):
        events += [NodeUp(number, 1), Drain(number), NodeDown(number, "taken away")]
    assert told(*events) == (Retry(1, "taken away", MAX_INTERRUPTIONS - 1),)
    lost = (NodeUp(99, 1), Drain(99), NodeDown(99, "taken away"))
    assert told(*events, *lost) == (Fail(1, ("taken away",) * (MAX_INTERRUPTIONS + 1)),)


def test_a_number_that_was_given_up_may_be_used_again() -> None:
    coming = (NodeUp(1, 1), NodeRemoved(0, "left"), NodeComing(0), Submitted((1,), 1, node=0))
    assert told(*coming) == ()
    assert told(*coming, NodeUp(0, 1)) == (AssignBatches(0, (1,)),)


def test_what_waits_for_slots_is_known() -> None:
    state, _ = running(NodeUp(0, 2), Submitted(tuple(range(10)), 1), Submitted((20, 21, 22), 2, limit=2), prefetch=1)
    assert (state.waiting(), state.queued) == (1 + 7 + 2, 1)
    state, _ = running(NodeUp(0, 1), Submitted((1, 2), 1, node=0), Submitted((3,), 1, node=5))
    assert state.waiting() == 1


def test_an_answer_settles_a_batch_and_makes_room() -> None:
    answered = (NodeUp(0, 1), Submitted((1, 2), 1), Answered(0, (1,)))
    assert told(*answered) == (Complete((1,)), AssignBatches(0, (2,)))


def test_a_batch_is_settled_once_and_a_second_outcome_is_dropped() -> None:
    assert told(NodeUp(0, 1), Submitted((1,), 1), Answered(0, (1,)), Answered(0, (1,))) == (DiscardLate(0, (1,)),)


def test_deaths_are_counted_and_each_but_the_last_is_retried() -> None:
    deaths = [Answered(0, died=(Died(1, f"slot {slot} of node 0: exit code 1"),)) for slot in range(3)]
    events: list[RoutingEvent] = [NodeUp(0, 3), Submitted((1,), 1, retries=2), *deaths]
    state, made = running(*events)
    assert state.deaths == 3
    assert told(*events[:-1]) == (Retry(1, "slot 1 of node 0: exit code 1", 0), AssignBatches(0, (1,)))
    assert made[-1] == Fail(1, tuple(f"slot {slot} of node 0: exit code 1" for slot in range(3)))


def test_filled_slots_are_known_whatever_comes_and_goes() -> None:
    events = (NodeUp(0, 2), NodeUp(1, 2), Submitted(tuple(range(7)), 1))
    for event, filled, slots in (
        (Submitted((), 1), 4, 4),
        (Answered(0, (0, 2, 4)), 3, 4),
        (NodeDown(1, "x"), 2, 2),
        (Cancelled((0, 1, 2)), 4, 4),
    ):
        state, _ = running(*events, event, prefetch=None)
        assert (state.filled, state.slots) == (filled, slots)


def test_groups_take_turns() -> None:
    effects = told(Submitted((1, 2, 3), 1), Submitted((10, 11), 2), NodeUp(0, 4))
    assert effects == (AssignBatches(0, (1, 10, 2, 11)),)


def test_a_group_stays_within_its_limit() -> None:
    events = (NodeUp(0, 4), Submitted((1, 2, 3), 1, limit=2), Submitted((9,), 2))
    assert told(*events[:2]) == (AssignBatches(0, (1, 2)),)
    assert told(*events) == (AssignBatches(0, (9,)),)
    assert told(*events, Answered(0, (1,))) == (Complete((1,)), AssignBatches(0, (3,)))


def test_a_group_goes_on_with_what_comes_later() -> None:
    waiting = (Submitted((1,), 1), Submitted((2,), 1))
    assert told(*waiting, NodeUp(0, 2)) == (AssignBatches(0, (1, 2)),)
    assert told(NodeUp(0, 2), *waiting) == (AssignBatches(0, (2,)),)


def test_a_group_stays_while_a_batch_of_it_is_out() -> None:
    events = (NodeUp(0, 1), Submitted((1, 2), 1), Cancelled((2,)), NodeUp(1, 1))
    assert told(*events, Submitted((3,), 1)) == (AssignBatches(1, (3,)),)


def test_a_pinned_batch_runs_on_its_node_only() -> None:
    assert told(NodeUp(0, 1), Submitted((1,), 1, node=1)) == ()
    assert told(NodeUp(0, 1), Submitted((1, 2), 1, node=1), NodeUp(1, 1)) == (AssignBatches(1, (1,)),)


def test_a_pinned_batch_fails_when_its_node_is_given_up() -> None:
    assert told(Submitted((1, 2), 1, node=1), Cancelled((2,)), NodeRemoved(1, "gone")) == (Fail(1, ("gone",)),)


def test_a_pinned_batch_fails_at_once_when_its_node_was_given_up() -> None:
    assert told(NodeUp(0, 1), NodeRemoved(1, "gone"), Submitted((1, 2), 1, node=1)) == (
        Fail(1, ("gone",)),
        Fail(2, ("gone",)),
    )


def test_a_lost_pinned_batch_waits_for_the_next_node_of_that_number() -> None:
    lost = (NodeUp(1, 1), Submitted((1,), 1, node=1), NodeDown(1, "x"))
    assert told(*lost) == (Retry(1, "x", 1),)
    assert told(*lost, NodeUp(1, 1)) == (AssignBatches(1, (1,)),)


def test_what_a_lost_node_had_goes_elsewhere_first() -> None:
    events = (NodeUp(0, 1), Submitted((1, 2, 3, 4), 1), NodeDown(0, "x"), NodeUp(1, 1))
    assert told(*events) == (AssignBatches(1, (1,)),)


def test_only_what_a_lost_node_may_have_started_counts_as_tried() -> None:
    state, effects = running(NodeUp(0, 1), Submitted((1, 2, 3), 1), Cancelled((3,)), NodeDown(0, "x"), prefetch=2)
    assert effects == (Retry(2, f"x{QUEUED}", 0), Retry(1, "x", 0))
    state, _ = running(NodeUp(0, 1), Submitted((1, 2), 1), NodeDown(0, "x"), prefetch=None)
    assert state.items[1].deaths == ("x",)
    assert state.items[2].deaths == ()


def test_a_node_lost_twice_is_lost_once() -> None:
    assert told(NodeUp(0, 1), NodeDown(0, "x"), NodeDown(0, "x")) == ()


def test_a_batch_that_died_is_tried_again_and_then_fails_with_every_cause() -> None:
    events: list[RoutingEvent] = [NodeUp(0, 1), Submitted((1, 2), 1, retries=1)]
    events.append(Answered(0, died=(Died(1, "a"),)))
    assert told(*events) == (Retry(1, "a", 0), AssignBatches(0, (1,)))
    events.append(Answered(0, died=(Died(1, "b"),)))
    assert told(*events) == (Fail(1, ("a", "b")), AssignBatches(0, (2,)))
    assert told(*events, Answered(0, died=(Died(1, "c"),))) == ()


def test_a_cancelled_batch_that_waits_never_starts() -> None:
    state, effects = running(Submitted((1, 2), 1), Cancelled((1, 7)), NodeUp(0, 2))
    assert effects == (AssignBatches(0, (2,)),)
    assert 1 not in state.items


def test_a_group_of_cancelled_batches_leaves_nothing() -> None:
    state, _ = running(Submitted((1,), 1), Cancelled((1,)), NodeUp(0, 1))
    assert (state.items, state.groups, list(state.turns)) == ({}, {}, [])


def test_a_cancelled_batch_on_a_node_is_killed_there() -> None:
    assert told(NodeUp(0, 2), Submitted((1, 2), 1), Cancelled((1, 2)), Cancelled((1,))) == ()
    assert told(NodeUp(0, 2), Submitted((1, 2), 1), Cancelled((1, 2))) == (RevokeBatches(0, (1, 2), kill=True),)


def test_nothing_of_a_cancelled_batch_reaches_the_caller() -> None:
    events = (NodeUp(0, 1), Submitted((1,), 1), Cancelled((1,)))
    for end in (Answered(0, done=(1,)), Answered(0, killed=(1,)), GaveBack(0, (1,), (1,)), NodeDown(0, "x")):
        state, effects = running(*events, end)
        assert not [effect for effect in effects if effect != DiscardLate(0, (1,))]
        assert (state.items, state.groups) == ({}, {})


def test_groups_of_cancelled_batches_do_not_keep_the_next_one_waiting() -> None:
    events = (
        Submitted((1,), 1),
        Submitted((2,), 2),
        Submitted((3,), 3),
        Cancelled((1, 2)),
        NodeUp(0, 1),
    )
    assert told(*events) == (AssignBatches(0, (3,)),)


@pytest.mark.parametrize("late", [Answered(0, (1,)), Answered(0, killed=(1,)), Answered(0, died=(Died(1, "b"),))])
def test_what_a_lost_node_says_of_its_batches_is_too_late(late: Answered) -> None:
    lost = (NodeUp(0, 1), Submitted((1,), 1), NodeDown(0, "a"))
    state, effects = running(*lost, late, NodeUp(1, 1))
    assert effects == (AssignBatches(1, (1,)),)
    assert state.items[1].deaths == ("a",)
    assert told(*lost, NodeUp(1, 1), late) == ((DiscardLate(0, (1,)),) if late.done else ())


def test_idle_slots_get_what_is_queued_on_the_fullest_node() -> None:
    events = (NodeUp(0, 1), Submitted((1, 2), 1), NodeUp(1, 1))
    assert told(*events, prefetch=None) == (RevokeBatches(0, (2,), kill=False),)
    given_back = (*events, GaveBack(0, (2,), (2,)))
    assert told(*given_back, prefetch=None) == (AssignBatches(1, (2,)),)


def test_what_comes_back_and_nobody_waits_for_is_forgotten() -> None:
    state, effects = running(NodeUp(0, 2), Submitted((1, 2), 1), GaveBack(0, (1, 8), (1, 8), (1, 8)))
    assert effects == ()
    assert list(state.items) == [2]


def test_a_batch_is_asked_back_once_at_a_time() -> None:
    events = (NodeUp(0, 1), Submitted((1, 2), 1), NodeUp(1, 1), NodeUp(2, 1))
    assert told(*events, prefetch=None) == ()


def test_idle_slots_are_filled_from_several_nodes() -> None:
    events = (NodeUp(0, 1), NodeUp(1, 1), Submitted((1, 2, 3, 4), 1), NodeUp(2, 2))
    assert told(*events, prefetch=None) == (RevokeBatches(0, (3,), kill=False), RevokeBatches(1, (4,), kill=False))


def test_what_is_asked_back_already_leaves_the_next_node_to_ask() -> None:
    events = (NodeUp(0, 1), NodeUp(1, 1), Submitted((1, 2, 3, 4), 1), NodeUp(2, 1), NodeUp(3, 1))
    assert told(*events, prefetch=None) == (RevokeBatches(1, (4,), kill=False),)


def test_a_batch_that_had_started_stays_where_it_is() -> None:
    events = (NodeUp(0, 1), Submitted((1, 2), 1), NodeUp(1, 1), Answered(0, (1,)), GaveBack(0, (2,), ()))
    state, effects = running(*events, prefetch=None)
    assert effects == ()
    assert state.items[2].at == 0


def test_news_of_a_batch_that_is_elsewhere_change_nothing() -> None:
    state, effects = running(NodeUp(0, 1), Submitted((1,), 1), GaveBack(7, (1, 8), (1, 8)))
    assert effects == ()
    assert state.items[1].at == 0


def test_a_pinned_batch_is_never_stolen() -> None:
    events = (NodeUp(0, 1), Submitted((1, 2), 1, node=0), NodeUp(1, 1))
    assert told(*events, prefetch=None) == ()


def test_nothing_is_stolen_while_there_is_work_to_place() -> None:
    events = (NodeUp(0, 1), NodeUp(1, 2), Submitted((1, 2, 3, 4, 5), 1, limit=2))
    assert told(*events, prefetch=None) == (AssignBatches(0, (1,)), AssignBatches(1, (2,)))


def test_an_unwanted_pinned_batch_leaves_nothing_with_its_node() -> None:
    state, effects = running(NodeUp(0, 1), Submitted((1,), 1, node=0), Cancelled((1,)), NodeDown(0, "x"))
    assert effects == ()
    assert not state.items


def test_a_lost_batch_of_a_group_with_others_waiting_goes_before_them() -> None:
    events = (NodeUp(0, 1), Submitted((1, 2), 1), Answered(0, died=(Died(1, "a"),)))
    assert told(*events) == (Retry(1, "a", 0), AssignBatches(0, (1,)))


def test_a_node_gets_as_far_ahead_as_the_way_to_it_is_long() -> None:
    near = (NodeUp(0, 1), Submitted((0,), 1), Answered(0, (0,), seconds=0.1))
    assert told(*near, Submitted(tuple(range(1, 9)), 1), prefetch=None) == (AssignBatches(0, (1, 2)),)
    assert told(*near, Measured(0, 0.1), Measured(7, 0.1), Submitted(tuple(range(1, 9)), 1), prefetch=None) == (
        AssignBatches(0, (1, 2, 3, 4)),
    )


def test_batches_that_take_no_time_are_moved_at_the_next_look_only() -> None:
    quick = (NodeUp(0, 1), Submitted((0,), 1), Answered(0, (0,), seconds=0.001), Submitted((1, 2), 1))
    assert told(*quick, NodeUp(1, 1), prefetch=None) == (ScheduleRebalance(),)
    assert told(*quick, NodeUp(1, 1), NodeUp(2, 1), prefetch=None) == ()
    assert told(*quick, NodeUp(1, 1), RebalanceTick(), prefetch=None) == (RevokeBatches(0, (2,), kill=False),)


def test_batches_that_take_their_time_are_moved_at_once() -> None:
    slow = (NodeUp(0, 1), Submitted((0,), 1), Answered(0, (0,), seconds=1.0), Submitted((1, 2), 1))
    assert told(*slow, NodeUp(1, 1), prefetch=None) == (RevokeBatches(0, (2,), kill=False),)
