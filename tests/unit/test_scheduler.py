"""What is queued, running and finished on a node."""

from skyward.remote.node.scheduler import (
    MAX_TOGETHER,
    AnswerCollect,
    Asked,
    BatchesAssigned,
    BatchesFinished,
    BatchesRefused,
    CollectTimedOut,
    Forget,
    GiveBack,
    NodeQueue,
    NoteKilled,
    RecallBatches,
    RecallTick,
    Rest,
    Rested,
    ScheduleRecall,
    SchedulerEffect,
    SchedulerEvent,
    SlotClosed,
    SlotOpened,
    StartBatches,
    StopBatch,
    Withdrawn,
    step,
)


def told(desk: NodeQueue, *events: SchedulerEvent) -> list[SchedulerEffect]:
    return [effect for event in events for effect in step(desk, event)]


def test_batches_start_in_their_order_on_free_slots() -> None:
    assert told(NodeQueue(), SlotOpened(0), BatchesAssigned((1, 2))) == [StartBatches(0, (1,))]


def test_a_batch_waits_for_a_slot() -> None:
    assert told(NodeQueue(), BatchesAssigned((1,)), SlotOpened(0)) == [StartBatches(0, (1,))]


def test_the_slot_that_ran_last_is_used_first() -> None:
    assert told(NodeQueue(), SlotOpened(0), SlotOpened(1), BatchesAssigned((1,))) == [StartBatches(1, (1,))]


def test_a_slot_opened_twice_counts_once() -> None:
    desk = NodeQueue()
    told(desk, SlotOpened(0), SlotOpened(0), BatchesAssigned((1,)), SlotOpened(0))
    assert desk.free == []


def test_a_closed_slot_gets_nothing() -> None:
    desk = NodeQueue()
    assert told(desk, SlotOpened(0), SlotClosed(0), SlotClosed(0), BatchesAssigned((1,))) == []


def test_a_slot_that_is_free_again_starts_the_next_batch() -> None:
    assert told(NodeQueue(), SlotOpened(0), BatchesAssigned((1, 2)), BatchesFinished(0, (1,), free=True))[1:] == [
        StartBatches(0, (2,))
    ]


def test_a_slot_that_starts_anew_gets_nothing_yet() -> None:
    assert told(NodeQueue(), SlotOpened(0), BatchesAssigned((1, 2)), BatchesFinished(0, (1,), free=False))[1:] == []


def test_an_end_heard_twice_counts_once() -> None:
    desk = NodeQueue()
    told(
        desk,
        SlotOpened(0),
        BatchesAssigned((1,)),
        BatchesFinished(0, (1,), free=True),
        BatchesFinished(0, (1,), free=True),
    )
    assert list(desk.outbox) == [1]
    assert desk.free == [0]


def test_a_refused_batch_is_the_next_to_start() -> None:
    desk = NodeQueue()
    assert told(
        desk, SlotOpened(0), BatchesAssigned((1, 2)), BatchesRefused(0, (1,)), BatchesRefused(0, (1,)), SlotOpened(0)
    ) == [
        StartBatches(0, (1,)),
        StartBatches(0, (1,)),
    ]


def test_an_ask_is_answered_as_soon_as_there_is_an_outcome() -> None:
    desk = NodeQueue()
    assert told(desk, SlotOpened(0), BatchesAssigned((1,)), Asked(0, 1), BatchesFinished(0, (1,), free=True))[1:] == [
        AnswerCollect(1, (1,)),
        Rest(),
    ]


def test_outcomes_gather_after_an_answer_while_the_node_has_plenty_to_do() -> None:
    desk = NodeQueue()
    told(desk, SlotOpened(0), BatchesAssigned((1, 2, 3, 4, 5)), Asked(0, 1), BatchesFinished(0, (1,), free=True))
    assert told(desk, Asked(1, 2), BatchesFinished(0, (2,), free=True)) == [Forget((1,)), StartBatches(0, (3,))]
    assert told(desk, Rested()) == [AnswerCollect(2, (2,)), Rest()]


def test_outcomes_do_not_gather_when_a_slot_might_come_to_idle() -> None:
    desk = NodeQueue()
    told(desk, SlotOpened(0), BatchesAssigned((1, 2)), Asked(0, 1), BatchesFinished(0, (1,), free=True))
    assert told(desk, Asked(1, 2), BatchesFinished(0, (2,), free=True)) == [Forget((1,)), AnswerCollect(2, (2,))]


def test_outcomes_do_not_gather_while_a_slot_idles() -> None:
    """A group with a limit has nothing queued here: what has ended makes room for the next one."""
    desk = NodeQueue()
    told(
        desk,
        *(SlotOpened(slot) for slot in range(3)),
        BatchesAssigned((1, 2, 3)),
        Asked(0, 1),
        BatchesFinished(2, (1,), free=True),
    )
    assert told(desk, Asked(1, 2), BatchesFinished(1, (2,), free=True)) == [Forget((1,)), AnswerCollect(2, (2,))]


def test_an_outcome_stays_until_it_is_acknowledged() -> None:
    desk = NodeQueue()
    told(desk, SlotOpened(0), BatchesAssigned((1,)), BatchesFinished(0, (1,), free=True))
    assert told(desk, Asked(0, 1)) == [AnswerCollect(1, (1,)), Rest()]
    assert told(desk, Asked(0, 2), Rested())[0] == AnswerCollect(1, (1,))
    assert told(desk, Asked(1, 3)) == [Forget((1,))]


def test_a_batch_that_is_sent_again_has_its_outcome_acknowledged_with_all_before_it() -> None:
    desk = NodeQueue()
    told(desk, SlotOpened(0), BatchesAssigned((1, 2, 3)))
    told(desk, *(BatchesFinished(0, (batch,), free=batch < 3) for batch in (1, 2, 3)))
    assert told(desk, BatchesAssigned((4, 2))) == [Forget((1, 2))]
    assert told(desk, Asked(2, 1))[0] == AnswerCollect(3, (3,))


def test_an_ask_that_has_waited_long_enough_is_answered_with_nothing() -> None:
    assert told(NodeQueue(), Asked(0, 1), CollectTimedOut(1), CollectTimedOut(1)) == [AnswerCollect(0, ())]


def test_the_deadline_of_an_earlier_ask_changes_nothing() -> None:
    assert told(NodeQueue(), Asked(0, 1), Asked(0, 2), CollectTimedOut(1)) == []


def test_what_has_not_started_is_given_back() -> None:
    desk = NodeQueue()
    assert told(desk, SlotOpened(0), BatchesAssigned((1, 2, 3)), Withdrawn((1, 3), kill=False))[1:] == [GiveBack((3,))]
    assert list(desk.queue) == [2]


def test_what_runs_is_stopped_when_it_is_to_be_killed() -> None:
    desk = NodeQueue()
    assert told(desk, SlotOpened(0), BatchesAssigned((1,)), Withdrawn((1, 9), kill=True))[1:] == [
        GiveBack(()),
        StopBatch(0, 1),
    ]


def test_a_batch_to_be_stopped_that_its_slot_refused_never_starts() -> None:
    desk = NodeQueue()
    told(desk, SlotOpened(0), BatchesAssigned((1,)), Withdrawn((1,), kill=True), Asked(0, 1))
    assert told(desk, BatchesRefused(0, (1,)), SlotOpened(0)) == [NoteKilled(1), AnswerCollect(1, (1,)), Rest()]
    assert desk.stopping == set()


QUICK = (SlotOpened(0), BatchesAssigned((1,)), BatchesFinished(0, (1,), free=True, seconds=0.0001))
"""A slot, and a first batch that took no time."""


def test_batches_that_take_no_time_are_given_to_a_slot_together() -> None:
    desk = NodeQueue()
    told(desk, *QUICK)
    assert told(desk, BatchesAssigned((2, 3, 4))) == [StartBatches(0, (2, 3, 4)), ScheduleRecall()]
    assert (
        told(desk, BatchesAssigned((5,)), BatchesFinished(0, (2,), free=False), BatchesFinished(0, (3,), free=False))
        == []
    )
    assert told(desk, BatchesFinished(0, (4,), free=True)) == [StartBatches(0, (5,))]


def test_no_more_are_given_together_than_a_slot_does_in_the_time() -> None:
    desk = NodeQueue()
    told(desk, *QUICK)
    assert told(desk, BatchesAssigned(tuple(range(2, 20))))[0] == StartBatches(0, tuple(range(2, 2 + MAX_TOGETHER)))
    slower = NodeQueue()
    told(slower, SlotOpened(0), BatchesAssigned((1,)), BatchesFinished(0, (1,), free=True, seconds=0.001))
    assert told(slower, BatchesAssigned((2, 3, 4)))[0] == StartBatches(0, (2, 3))


def test_batches_that_take_their_time_are_given_one_by_one() -> None:
    desk = NodeQueue()
    told(desk, SlotOpened(0), BatchesAssigned((1,)), BatchesFinished(0, (1,), free=True, seconds=0.01))
    assert told(desk, BatchesAssigned((2, 3))) == [StartBatches(0, (2,))]


def test_one_that_was_only_kept_from_its_processor_does_not_count_for_much() -> None:
    desk = NodeQueue()
    told(desk, *QUICK, BatchesAssigned((2,)), BatchesFinished(0, (2,), free=True, seconds=0.02))
    assert told(desk, BatchesAssigned((3, 4)))[0] == StartBatches(0, (3, 4))


def test_what_is_to_run_alone_does() -> None:
    desk = NodeQueue()
    told(desk, *QUICK)
    assert told(desk, BatchesAssigned((2, 3, 4), frozenset({3})))[0] == StartBatches(0, (2,))
    assert told(desk, BatchesFinished(0, (2,), free=True)) == [StartBatches(0, (3,))]
    assert told(desk, BatchesFinished(0, (3,), free=True)) == [StartBatches(0, (4,))]
    assert desk.alone == set()


def test_a_node_of_threads_gives_one_by_one() -> None:
    desk = NodeQueue(max_together=1)
    told(desk, *QUICK)
    assert told(desk, BatchesAssigned((2, 3))) == [StartBatches(0, (2,))]


def test_what_waits_behind_one_that_is_late_is_asked_back_and_started_elsewhere() -> None:
    desk = NodeQueue()
    told(desk, *QUICK, BatchesAssigned((2, 3, 4)))
    assert told(desk, RecallTick()) == [ScheduleRecall()]
    assert told(desk, RecallTick()) == [RecallBatches(0)]
    assert told(desk, BatchesRefused(0, (3, 4))) == []
    assert told(desk, SlotOpened(1))[0] == StartBatches(1, (3, 4))


def test_what_was_over_in_time_is_not_asked_back() -> None:
    desk = NodeQueue()
    told(desk, *QUICK, BatchesAssigned((2, 3)), RecallTick())
    told(desk, BatchesFinished(0, (2,), free=False), BatchesFinished(0, (3,), free=True))
    assert told(desk, RecallTick()) == []


def test_one_look_serves_all_slots() -> None:
    desk = NodeQueue()
    told(desk, *QUICK, SlotOpened(1))
    assert told(desk, BatchesAssigned(tuple(range(2, 14)))).count(ScheduleRecall()) == 1


def test_outcomes_gather_while_there_is_plenty_to_do_behind_others() -> None:
    desk = NodeQueue()
    told(desk, *QUICK, Asked(0, 1), Asked(1, 2), BatchesAssigned((2, 3, 4, 5)))
    assert told(desk, BatchesFinished(0, (2,), free=False)) == []
    assert told(desk, BatchesFinished(0, (3,), free=False)) == [AnswerCollect(3, (2, 3))]


def test_a_withdrawn_batch_that_was_to_run_alone_leaves_nothing() -> None:
    desk = NodeQueue()
    told(desk, BatchesAssigned((1,), frozenset({1})), Withdrawn((1,), kill=False))
    assert desk.alone == set()
