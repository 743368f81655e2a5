"""How many nodes there should be."""

from skyward.actors.scaling import (
    MAX_LOSSES,
    RESTART_DELAY_S,
    SCALE_DOWN_IDLE_S,
    SCALE_UP_CHECKS,
    SETTLED_AFTER_S,
    Closing,
    Dismiss,
    DrainNode,
    NodeDrained,
    NodeEnded,
    NodeReady,
    Noticed,
    Pause,
    Paused,
    ReportClosed,
    ReportFailed,
    ReportGivenUp,
    ReportOpened,
    ReportWaiting,
    Scaling,
    ScalingEffect,
    ScalingEvent,
    ScalingTick,
    StartNode,
    Sweep,
    Swept,
    Wanted,
    step,
)


def told(*events: ScalingEvent, attempts: int = 2) -> tuple[ScalingEffect, ...]:
    """What the last event led to."""
    state = Scaling(attempts)
    effects: tuple[ScalingEffect, ...] = ()
    for event in events:
        state, effects = step(state, event)
    return effects


def test_every_wanted_node_is_started_once() -> None:
    assert told(Wanted(2)) == (StartNode(0, 0), StartNode(1, 0))
    assert told(Wanted(2), Wanted(3)) == (StartNode(2, 0),)


def test_the_pool_is_open_when_every_node_is_ready() -> None:
    assert told(Wanted(2), NodeReady(0, 0)) == ()
    assert told(Wanted(2), NodeReady(0, 0), NodeReady(1, 0)) == (ReportOpened(),)


def test_the_pool_opens_once() -> None:
    assert told(Wanted(1), NodeReady(0, 0), NodeEnded(0, 0, "x"), NodeReady(0, 1)) == ()


def test_news_of_another_generation_or_number_change_nothing() -> None:
    assert told(Wanted(1), NodeReady(0, 7)) == ()
    assert told(Wanted(1), NodeEnded(0, 7, "x")) == ()
    assert told(NodeReady(5, 0)) == told(NodeEnded(5, 0, "x")) == ()


def test_a_lost_node_is_replaced_under_its_number() -> None:
    assert told(Wanted(1), NodeReady(0, 0), NodeEnded(0, 0, "x")) == (StartNode(0, 1),)


def test_a_node_that_is_lost_soon_again_and_again_is_replaced_later_each_time_and_in_the_end_no_more() -> None:
    state, _ = step(Scaling(2), Wanted(1))
    seen: list[ScalingEffect] = []
    for generation in range(MAX_LOSSES):
        state, _ = step(state, NodeReady(0, generation))
        state, effects = step(state, NodeEnded(0, generation, "x", seconds=5.0))
        seen += effects
        state, _ = step(state, Paused(0, generation + 1))
    assert seen == [
        StartNode(0, 1),
        *(Pause(0, n, RESTART_DELAY_S * 2.0 ** (n - 2), "x") for n in range(2, MAX_LOSSES)),
        ReportFailed(0, "x"),
    ]


def test_a_node_that_had_settled_is_replaced_at_once() -> None:
    lost: list[ScalingEvent] = [Wanted(1), NodeReady(0, 0), NodeEnded(0, 0, "x", seconds=1.0), NodeReady(0, 1)]
    assert told(*lost, NodeEnded(0, 1, "x", seconds=SETTLED_AFTER_S)) == (StartNode(0, 2),)


def test_after_a_pause_a_node_is_started_once_unless_the_pool_ends() -> None:
    lost: list[ScalingEvent] = [Wanted(1), NodeReady(0, 0), NodeEnded(0, 0, "x"), NodeReady(0, 1), NodeEnded(0, 1, "x")]
    assert told(*lost) == (Pause(0, 2, RESTART_DELAY_S, "x"),)
    assert told(*lost, Paused(0, 2)) == (StartNode(0, 2),)
    assert told(*lost, Paused(0, 2), Paused(0, 2)) == ()
    assert told(*lost, Closing()) == (Sweep(),)
    assert told(*lost, Closing(), Paused(0, 2)) == ()


def looks(count: int, waiting: int, idle: dict[int, float] | None = None) -> list[ScalingEvent]:
    return [ScalingTick(waiting, 2, idle or {})] * count


OPEN: list[ScalingEvent] = [Wanted(1, 1, 4), NodeReady(0, 0)]


def test_an_elastic_pool_grows_when_batches_have_waited_for_a_while_by_what_they_need() -> None:
    assert told(*OPEN, *looks(SCALE_UP_CHECKS - 1, 3)) == ()
    assert told(*OPEN, *looks(SCALE_UP_CHECKS, 3)) == (StartNode(1, 0), StartNode(2, 0))
    assert told(*OPEN, *looks(SCALE_UP_CHECKS, 100)) == (StartNode(1, 0), StartNode(2, 0), StartNode(3, 0))
    assert told(*OPEN, *looks(SCALE_UP_CHECKS + 1, 3)) == ()
    assert told(*OPEN, *looks(SCALE_UP_CHECKS, 3), *looks(1, 6)) == (StartNode(3, 0),)
    assert told(*OPEN, *looks(SCALE_UP_CHECKS - 1, 3), *looks(1, 0), *looks(1, 3)) == ()


def test_a_pool_of_fixed_size_one_that_is_not_open_and_one_that_ends_do_not_grow() -> None:
    assert told(Wanted(1), NodeReady(0, 0), *looks(SCALE_UP_CHECKS, 3)) == ()
    assert told(Wanted(1, 1, 4), *looks(SCALE_UP_CHECKS, 3)) == ()
    assert told(*OPEN, Closing(), *looks(SCALE_UP_CHECKS, 3)) == ()


def test_nodes_that_are_idle_for_long_leave_but_for_those_that_are_needed() -> None:
    three: list[ScalingEvent] = [Wanted(3, 1, 4), *(NodeReady(number, 0) for number in range(3))]
    idle = {0: SCALE_DOWN_IDLE_S, 1: SCALE_DOWN_IDLE_S, 2: SCALE_DOWN_IDLE_S - 1}
    assert told(*three, *looks(1, 0, idle)) == (DrainNode(1), DrainNode(0))
    assert told(*three, *looks(2, 0, idle)) == ()
    assert told(*three, *looks(1, 1, idle)) == ()
    assert told(*three, *looks(1, 0, {0: SCALE_DOWN_IDLE_S, 1: SCALE_DOWN_IDLE_S, 2: SCALE_DOWN_IDLE_S})) == (
        DrainNode(2),
        DrainNode(1),
    )
    assert told(*three, *looks(1, 0, idle), NodeDrained(1)) == (Dismiss(1, 0),)
    assert told(*three, NodeDrained(1)) == ()


def test_a_node_that_has_left_is_not_replaced_and_its_number_is_used_again() -> None:
    two: list[ScalingEvent] = [
        Wanted(2, 1, 4),
        NodeReady(0, 0),
        NodeReady(1, 0),
        *looks(1, 0, {1: SCALE_DOWN_IDLE_S}),
        NodeDrained(1),
    ]
    assert told(*two, NodeEnded(1, 0, "dismissed")) == (ReportGivenUp(1, ""),)
    assert told(*two, NodeEnded(1, 0, "dismissed"), *looks(SCALE_UP_CHECKS, 1)) == (StartNode(1, 1),)


def test_a_node_that_is_about_to_be_taken_away_leaves_and_another_is_started_at_once() -> None:
    two: list[ScalingEvent] = [Wanted(2), NodeReady(0, 0), NodeReady(1, 0)]
    assert told(*two, Noticed(0, 0)) == (DrainNode(0), StartNode(2, 0))
    assert told(*two, Noticed(0, 0), Noticed(0, 0)) == ()
    assert told(*two, Noticed(0, 0), NodeEnded(0, 0, "gone")) == (ReportGivenUp(0, ""),)
    assert told(*two, Noticed(0, 0), NodeEnded(0, 0, "gone"), Noticed(1, 0)) == (DrainNode(1), StartNode(0, 1))
    assert told(*two, Noticed(0, 7)) == told(*two, Noticed(9, 0)) == told(*two, Closing(), Noticed(0, 0)) == ()


LEAVING: list[ScalingEvent] = [Wanted(1), NodeReady(0, 0), Noticed(0, 0)]
"""The only node is about to be taken away, and another is being started for it, as node 1."""


def failed(count: int, first: int = 0) -> list[ScalingEvent]:
    """Node 1 fails to start so many times."""
    return [event for n in range(first, first + count) for event in (NodeEnded(1, n, "full"), Paused(1, n + 1))]


def test_a_replacement_is_tried_until_the_one_that_leaves_is_gone_after_longer_and_longer_pauses() -> None:
    state, _ = step(Scaling(3), Wanted(1))
    seen: list[ScalingEffect] = []
    for event in [*LEAVING[1:], *failed(5)]:
        state, effects = step(state, event)
        seen += [effect for effect in effects if isinstance(effect, Pause | ReportGivenUp | ReportFailed)]
    assert seen == [Pause(1, n, RESTART_DELAY_S * 2.0 ** (n - 2), "full") for n in range(2, 6)]


def test_a_replacement_is_asked_for_again_when_the_one_that_leaves_is_gone_and_then_fails_the_pool() -> None:
    paused = [*LEAVING, *failed(4), NodeEnded(1, 4, "full")]
    gone = [*paused, NodeEnded(0, 0, "taken")]
    assert told(*paused) == (Pause(1, 5, RESTART_DELAY_S * 8, "full"),)
    assert told(*gone) == (ReportGivenUp(0, ""), StartNode(1, 5))
    assert told(*gone, Paused(1, 5)) == ()
    assert told(*gone, NodeEnded(1, 5, "full")) == (StartNode(1, 6),)
    assert told(*gone, NodeEnded(1, 5, "full"), NodeEnded(1, 6, "full")) == (ReportFailed(1, "full"),)
    assert told(*gone, NodeEnded(1, 5, "full", final=True)) == (ReportFailed(1, "full"),)


def test_a_replacement_is_tried_after_pauses_in_a_pool_that_is_not_open_yet_as_well() -> None:
    failed_twice = [NodeEnded(2, 0, "full"), NodeEnded(2, 1, "full")]
    assert told(Wanted(2), NodeReady(0, 0), Noticed(0, 0), *failed_twice) == (Pause(2, 2, RESTART_DELAY_S, "full"),)


def test_what_would_not_be_had_beside_one_that_leaves_waits_until_that_is_gone() -> None:
    refused = [*LEAVING, NodeEnded(1, 0, "too dear", final=True)]
    assert told(*refused) == (ReportWaiting(1, "too dear"),)
    assert told(*refused, NodeEnded(0, 0, "taken")) == (ReportGivenUp(0, ""), StartNode(1, 1))
    assert told(*refused, NodeEnded(0, 0, "taken"), NodeReady(1, 1), NodeEnded(1, 1, "x")) == (StartNode(1, 2),)
    assert told(*refused, Closing()) == (Dismiss(0, 0),)


def test_what_fails_just_after_one_has_left_may_have_failed_for_it_and_is_tried_again() -> None:
    gone = [*LEAVING, NodeEnded(0, 0, "taken")]
    refused = [*gone, NodeEnded(1, 0, "too dear", final=True)]
    assert told(*refused) == (StartNode(1, 1),)
    assert told(*refused, NodeEnded(1, 1, "too dear", final=True)) == (ReportFailed(1, "too dear"),)
    assert told(*gone, NodeReady(1, 0), NodeEnded(1, 0, "x"), NodeEnded(1, 1, "y", final=True)) == (
        ReportFailed(1, "y"),
    )


def test_one_that_pauses_as_it_was_lost_again_and_again_goes_on_pausing_when_another_leaves() -> None:
    lost: list[ScalingEvent] = [Wanted(2), NodeReady(0, 0), NodeReady(1, 0), NodeEnded(1, 0, "x"), NodeReady(1, 1)]
    paused: list[ScalingEvent] = [*lost, Noticed(0, 0), NodeReady(2, 0), NodeEnded(1, 1, "x")]
    assert told(*paused) == (Pause(1, 2, RESTART_DELAY_S, "x"),)
    assert told(*paused, NodeEnded(0, 0, "taken")) == (ReportGivenUp(0, ""),)


def test_no_node_leaves_for_another_that_is_not_ready() -> None:
    two: list[ScalingEvent] = [Wanted(2, 1, 4), NodeReady(0, 0), NodeReady(1, 0), NodeEnded(1, 0, "x")]
    assert told(*two, *looks(1, 0, {0: SCALE_DOWN_IDLE_S})) == ()
    assert told(*two, NodeReady(1, 1), *looks(1, 0, {0: SCALE_DOWN_IDLE_S})) == (DrainNode(0),)


def test_a_node_that_is_about_to_be_taken_away_before_it_is_ready_leaves_when_it_is() -> None:
    assert told(Wanted(1), Noticed(0, 0), NodeReady(0, 0)) == (DrainNode(0), ReportOpened())


def test_what_could_not_be_had_is_not_asked_for_again() -> None:
    grown = [*OPEN, *looks(SCALE_UP_CHECKS, 3), NodeEnded(1, 0, "full"), NodeEnded(1, 1, "full")]
    assert told(*grown) == (ReportGivenUp(1, "full"),)
    assert told(*grown, *looks(1, 100)) == ()


def test_a_node_that_does_not_start_is_tried_again_and_then_fails_the_pool() -> None:
    assert told(Wanted(1), NodeEnded(0, 0, "x")) == (StartNode(0, 1),)
    assert told(Wanted(1), NodeEnded(0, 0, "x"), NodeEnded(0, 1, "y")) == (ReportFailed(0, "y"),)


def test_an_open_pool_goes_on_without_a_node_that_cannot_be_replaced() -> None:
    opened = (Wanted(2), NodeReady(0, 0), NodeReady(1, 0), NodeEnded(0, 0, "x"), NodeEnded(0, 1, "y"))
    assert told(*opened, NodeEnded(0, 2, "z")) == (ReportGivenUp(0, "z"),)


def test_an_open_pool_pauses_between_starts_that_fail() -> None:
    opened: tuple[ScalingEvent, ...] = (Wanted(1), NodeReady(0, 0), NodeEnded(0, 0, "x"), NodeEnded(0, 1, "y"))
    assert told(*opened, NodeEnded(0, 2, "z"), attempts=3) == (Pause(0, 3, RESTART_DELAY_S, "z"),)
    assert told(Wanted(1), NodeEnded(0, 0, "x"), NodeEnded(0, 1, "y"), attempts=3) == (StartNode(0, 2),)


def test_a_number_that_was_given_up_is_not_started_from_its_first_generation() -> None:
    assert told(Wanted(1), NodeEnded(0, 0, "x"), Wanted(2), attempts=1) == (StartNode(1, 0),)


def test_a_pool_whose_last_node_cannot_be_replaced_fails() -> None:
    assert told(Wanted(1), NodeReady(0, 0), NodeEnded(0, 0, "x"), NodeEnded(0, 1, "y"), attempts=1) == (
        ReportFailed(0, "y"),
    )


def test_a_pool_is_open_when_as_many_nodes_are_ready_as_it_needs() -> None:
    assert told(Wanted(3, 2), NodeReady(0, 0)) == ()
    assert told(Wanted(3, 2), NodeReady(0, 0), NodeReady(2, 0)) == (ReportOpened(),)
    assert told(Wanted(3, 2), NodeReady(0, 0), NodeReady(2, 0), NodeReady(1, 0)) == ()


def test_a_node_that_is_not_needed_is_given_up_before_the_pool_is_open() -> None:
    dead = (Wanted(3, 2), NodeEnded(0, 0, "x"), NodeEnded(0, 1, "y"))
    assert told(*dead) == (ReportGivenUp(0, "y"),)
    assert told(*dead, NodeReady(1, 0), NodeReady(2, 0)) == (ReportOpened(),)
    assert told(*dead, NodeEnded(1, 0, "x"), NodeEnded(1, 1, "z")) == (ReportFailed(1, "z"),)


def test_a_node_that_would_always_fail_is_not_tried_again() -> None:
    assert told(Wanted(1), NodeEnded(0, 0, "x", final=True), attempts=9) == (ReportFailed(0, "x"),)
    assert told(Wanted(2, 1), NodeEnded(0, 0, "x", final=True), attempts=9) == (ReportGivenUp(0, "x"),)


def test_a_closing_pool_dismisses_its_nodes_and_sweeps_after_the_last() -> None:
    closing = (Wanted(2), NodeReady(0, 0), Closing())
    assert told(*closing) == (Dismiss(0, 0), Dismiss(1, 0))
    assert told(*closing, Closing()) == told(*closing, Wanted(5)) == told(*closing, NodeReady(1, 0)) == ()
    assert told(*closing, NodeEnded(0, 0, "x")) == ()
    assert told(*closing, NodeEnded(0, 0, "x"), NodeEnded(1, 0, "x")) == (Sweep(),)


def test_a_pool_without_nodes_sweeps_at_once() -> None:
    assert told(Closing()) == (Sweep(),)


def test_only_what_the_last_sweep_could_not_end_has_leaked() -> None:
    ended = (Wanted(1), Closing(), NodeEnded(0, 0, "no answer", leaked="i-1"))
    assert told(*ended, Swept(("i-2",))) == (ReportClosed(("i-2",)),)
    assert told(*ended, Swept(())) == (ReportClosed(()),)


def test_what_could_not_be_ended_has_leaked_where_nobody_could_be_asked() -> None:
    ended = (Wanted(1), Closing(), NodeEnded(0, 0, "no answer", leaked="i-1"))
    assert told(*ended, Swept(("i-1", "the rest"), asked=False)) == (ReportClosed(("i-1", "the rest")),)
