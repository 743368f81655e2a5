"""A run is folded from its events: how far it is, how fast, and what is not right."""

import pytest

from skyward.events import (
    BatchesArrived,
    BatchesCancelled,
    BatchesEnded,
    BatchesLate,
    BatchesReturned,
    BatchesSent,
    BatchLost,
    BatchRetried,
    DashboardOpened,
    Event,
    NodeChanged,
    NodeFacts,
    NodeGivenUp,
    NodeHeard,
    NodeNoticed,
    NodeSilent,
    NodeStep,
    Printed,
    Quoted,
    ResultsLost,
    RunEnded,
    RunStarted,
    Spent,
    TasksCounted,
)
from skyward.view.progress import LOST_NODE_SHOWN_S, LOW_MEMORY, PACE_WINDOW_S, Progress

GB = 1 << 30


def run(*events: Event, nodes: int = 1) -> Progress:
    """A run that began at 0, with nodes of two slots that are ready at 1, and what happened then."""
    progress = Progress()
    progress.add([RunStarted(0.0, "r", "local", nodes, nodes, 2, "process", "p.py", "1", "3.12")])
    progress.add([NodeChanged(1.0, node, 0, "ready", "", "i", f"host{node}", 2) for node in range(nodes)])
    progress.add(events)
    return progress


def ended(at: float, *statuses: str, node: int = 0, tasks: int = 1, seconds: float = 0.5) -> BatchesEnded:
    count = len(statuses)
    return BatchesEnded(at, node, (0,) * count, (0,) * count, (seconds,) * count, statuses, (tasks,) * count, 0)


def troubles(progress: Progress, now: float) -> list[tuple[int, str]]:
    return [(each.node.number, each.trouble) for each in progress.concerns(now)]


# ---------------------------------------------------------------- nodes


def test_a_node_goes_from_stage_to_stage_and_forgets_its_step() -> None:
    progress = run(NodeChanged(2.0, 3, 0, "booting", "", "i", "h"), NodeStep(3.0, 3, "packages"))
    assert (progress.nodes[3].stage, progress.nodes[3].step, progress.nodes[3].since) == ("booting", "packages", 2.0)
    assert [node.number for node in progress.coming] == [3]
    progress.add([NodeChanged(4.0, 3, 0, "ready", "", "i", "", 4)])
    node = progress.nodes[3]
    assert (node.stage, node.step, node.host, node.slots) == ("ready", "", "h", 4)
    assert progress.slots == 6


def test_a_pool_is_complete_when_all_that_were_asked_for_are_ready_or_given_up_and_stays_so() -> None:
    progress = run(nodes=2)
    assert progress.complete
    progress.add([NodeChanged(2.0, 1, 0, "ending", "gone"), NodeChanged(3.0, 1, 1, "launching")])
    assert progress.complete
    other = Progress()
    other.add([RunStarted(0.0, "r", "aws", 2, 2, 2, "process", "p.py", "1", "3.12")])
    other.add([NodeChanged(1.0, 0, 0, "ready", slots=2), NodeChanged(1.0, 1, 0, "launching")])
    assert not other.complete
    other.add([NodeGivenUp(2.0, 1, "no capacity")])
    assert other.complete


def test_what_machines_cost_and_how_the_run_ended_are_known() -> None:
    quote = Quoted(0.0, "2 x m", "m", 2, 0.2)
    progress = run(
        quote, Spent(5.0, 0.01, 0.2), DashboardOpened(6.0, "here"), RunEnded(9.0, "ValueError: no", ("i",), {})
    )
    assert progress.link == "here"
    assert (progress.quotes, progress.dollars, progress.hourly) == ([quote], 0.01, 0.2)
    assert (progress.ended, progress.error, progress.leaked) == (9.0, "ValueError: no", ("i",))


# ---------------------------------------------------------------- tasks


def test_slots_are_busy_with_what_was_sent_and_not_answered() -> None:
    progress = run(BatchesArrived(2.0, 10, 30), BatchesSent(2.0, 0, 4, 100))
    assert (progress.known, progress.busy, progress.slots, progress.open) == (30, 2, 2, True)
    progress.add([ended(3.0, "returned", "returned", tasks=3), BatchesReturned(3.0, 0, 1)])
    assert (progress.done, progress.busy, progress.counts.nodes[0].tasks) == (6, 1, 6)


def test_what_raised_is_done_and_what_was_lost_is_not() -> None:
    progress = run(BatchesArrived(2.0, 5, 5), ended(3.0, "returned", "raised", "overdue", "died", "killed"))
    assert (progress.done, progress.counts.raised, progress.open) == (3, 2, True)
    progress.add([BatchRetried(3.0, 4, "exit code 1"), ended(4.0, "died"), BatchLost(4.0, 4, ("a", "b"))])
    assert (progress.done, progress.known, progress.counts.raised, progress.counts.lost) == (3, 4, 2, 1)


def test_what_nobody_waits_for_is_not_to_come() -> None:
    progress = run(BatchesArrived(2.0, 4, 8), ended(3.0, "returned", tasks=2), BatchesCancelled(4.0, 2))
    assert (progress.known, progress.done) == (4, 2)
    progress.add([BatchesCancelled(4.0, 1)])
    assert (progress.known, progress.done, progress.open) == (2, 2, False)


def test_an_answer_that_comes_late_does_not_count() -> None:
    progress = run(BatchesArrived(2.0, 2, 2), BatchesCancelled(3.0, 1), ended(4.0, "returned"), BatchesLate(4.0, 0, 1))
    assert (progress.done, progress.open) == (0, True)
    progress.add([ended(5.0, "returned")])
    assert (progress.done, progress.open) == (1, False)
    progress.add([BatchesArrived(6.0, 2, 4), ended(7.0, "raised", tasks=3), BatchesLate(7.0, 0, 1, 3, 1)])
    assert (progress.done, progress.counts.raised, progress.open) == (1, 0, True)


def test_answers_that_cancelled_calls_got_are_not_waited_for() -> None:
    cancelled, answered = BatchesCancelled(5.0, 5), ended(5.0, "returned")
    for events in ((cancelled, answered), (answered, cancelled)):
        before = BatchesArrived(2.0, 10, 10), ended(4.0, *["returned"] * 5)
        progress = run(*before, *events, BatchesLate(5.0, 0, 1))
        assert (progress.done, progress.known, progress.open) == (5, 5, False)


def test_a_batch_whose_result_was_lost_is_waited_for_again() -> None:
    progress = run(BatchesArrived(2.0, 1, 2), ended(3.0, "returned", tasks=2), ResultsLost(4.0, 0, 1, 2, 0, 0.5))
    assert (progress.done, progress.known, progress.open) == (0, 2, True)
    progress.add([BatchRetried(4.0, 0, "its result was lost"), ended(5.0, "returned", tasks=2)])
    assert (progress.done, progress.known, progress.open) == (2, 2, False)


def test_a_lost_node_has_nothing_any_more() -> None:
    progress = run(BatchesArrived(2.0, 4, 4), BatchesSent(2.0, 0, 4, 1), NodeChanged(3.0, 0, 0, "ending", "gone"))
    assert (progress.busy, progress.slots) == (0, 0)
    progress.add([NodeChanged(3.0, 0, 1, "ready", slots=2), ended(4.0, "returned")])
    assert progress.busy == 0


def test_all_that_are_to_come_are_known_when_tasks_end_and_none_arrives() -> None:
    arrived = BatchesArrived(2.0, 10, 10)
    fed: list[Event] = [ended(2.1, "returned"), BatchesArrived(2.1, 1, 1)]
    several: list[list[Event]] = [[], [arrived], [arrived, *fed], [arrived, *fed, ended(2.7, "returned")]]
    assert [run(*events).settled for events in several] == [True, False, False, True]


def test_what_is_known_to_come_counts_before_it_arrives() -> None:
    progress = run(TasksCounted(2.0, 7, 100))
    assert (progress.open, progress.settled, progress.total, progress.worked) == (True, True, 100, 2.0)
    progress.add([BatchesArrived(2.1, 10, 10, 7), ended(4.0, *("returned",) * 10)])
    assert (progress.open, progress.settled, progress.total, progress.done, progress.worked) == (
        True,
        True,
        100,
        10,
        2.0,
    )
    assert progress.left(4.0) == pytest.approx(90 / 5)
    progress.add([BatchesArrived(4.0, 10, 90, 7), TasksCounted(4.0, 7, 100, True)])
    assert (progress.known, progress.total) == (100, 100)
    progress.add([ended(5.0, *("returned",) * 10, tasks=9)])
    assert (progress.open, progress.done, progress.total) == (False, 100, 100)


def test_while_the_end_of_a_call_is_not_known_nothing_is_settled() -> None:
    progress = run(TasksCounted(2.0, 7, -1), BatchesArrived(2.0, 4, 4, 7), ended(9.0, *("returned",) * 4))
    assert (progress.open, progress.settled, progress.left(9.0)) == (True, False, None)
    progress.add([TasksCounted(9.5, 7, 4, True)])
    assert (progress.open, progress.settled) == (False, True)


def test_calls_of_their_own_beside_a_call_that_is_counted_are_settled_as_before() -> None:
    progress = run(TasksCounted(2.0, 7, 9), BatchesArrived(2.0, 1, 1, 7), BatchesArrived(2.0, 1, 1))
    assert not progress.settled
    progress.add([ended(3.0, "returned")])
    assert (progress.settled, progress.total) == (True, 10)


def test_printed_lines_are_none_of_its_business() -> None:
    progress = run(Printed(2.0, 0, 0, "stdout", "hello\n"))
    assert (progress.open, progress.concerns(3.0)) == (False, [])


# ---------------------------------------------------------------- pace


def test_nothing_can_be_said_of_the_pace_before_a_task_has_ended() -> None:
    progress = run()
    assert (progress.rate(5.0), progress.left(5.0)) == (None, None)
    progress.add([BatchesArrived(2.0, 10, 10)])
    assert (progress.rate(5.0), progress.left(5.0)) == (None, None)
    progress.add([ended(2.5, "returned")])
    assert progress.rate(2.9) is None


def test_the_pace_is_that_of_the_last_seconds_and_tells_how_long_it_takes() -> None:
    progress = run(BatchesArrived(2.0, 200, 200))
    progress.add([ended(float(second), *("returned",) * 4) for second in range(2, 22)])
    progress.add([ended(float(second), *("returned",) * 2) for second in range(22, 32)])
    assert progress.rate(32.0) == pytest.approx(2.0)
    assert progress.left(32.0) == pytest.approx(50.0)


def test_the_pace_of_long_tasks_is_taken_over_a_longer_time() -> None:
    progress = run(BatchesArrived(0.0, 100, 100))
    progress.add([ended(at, *("returned",) * 10, seconds=20.0) for at in (20.0, 40.0, 60.0)])
    assert progress.rate(79.0) == pytest.approx(30 / 60)


def test_the_pace_forgets_what_is_long_ago_and_waiting_is_none() -> None:
    progress = run(BatchesArrived(2.0, 1, 1), ended(3.0, "returned"))
    assert progress.left(4.0) is None
    later = 3.0 + 2 * PACE_WINDOW_S[1]
    progress.add([BatchesArrived(later, 3, 3), ended(later + 1, "returned"), ended(later + 1, "returned")])
    assert progress.rate(later + 2) == pytest.approx(1.0)


# ---------------------------------------------------------------- what is not right


def test_a_lost_node_is_a_concern_until_another_has_been_there_for_a_while() -> None:
    progress = run(NodeChanged(2.0, 0, 0, "ending", "exit code 9"), NodeChanged(2.0, 0, 0, "ended", "exit code 9"))
    assert troubles(progress, 500.0) == [(0, "lost")]
    progress.add([NodeChanged(2.0, 0, 1, "launching"), NodeChanged(9.0, 0, 1, "ready", slots=2)])
    assert troubles(progress, 10.0) == [(0, "lost")]
    assert troubles(progress, 9.0 + LOST_NODE_SHOWN_S) == []


def test_a_node_that_was_to_leave_is_none() -> None:
    assert troubles(run(NodeChanged(2.0, 0, 0, "ending", "dismissed"), NodeGivenUp(3.0, 0, "")), 4.0) == []


def test_silent_leaving_full_and_given_up_nodes_are_concerns_the_worst_first() -> None:
    progress = run(
        NodeFacts(2.0, 0, 0, 0, 0.0, 10 * GB),
        NodeFacts(3.0, 0, 0, 0, 0.0, GB // 4),
        NodeNoticed(3.0, 1, "in two minutes"),
        NodeSilent(3.0, 2, 30.0),
        NodeGivenUp(3.0, 3, "no capacity"),
        NodeFacts(3.0, 4, 0, 0, 0.0, LOW_MEMORY[0] - 1),
        nodes=5,
    )
    assert troubles(progress, 4.0) == [(3, "gone"), (2, "silent"), (1, "leaving"), (0, "full"), (4, "full")]
    progress.add([NodeHeard(5.0, 2), NodeFacts(5.0, 0, 0, 0, 0.0, 9 * GB), NodeFacts(5.0, 4, 0, 0, 0.0, GB)])
    assert troubles(progress, 6.0) == [(3, "gone"), (1, "leaving")]


def test_a_node_is_slow_where_its_tasks_take_much_longer_than_those_of_the_others() -> None:
    progress = run(BatchesArrived(2.0, 100, 100), nodes=3)
    three = ("returned",) * 3
    progress.add([ended(9.0, *three, node=0, seconds=1.0), ended(9.0, *three, node=1, seconds=2.6)])
    assert [(each.node.number, each.figures) for each in progress.concerns(10.0)] == [(1, (2.6, 1.0))]
    progress.add([ended(9.0, "returned", node=2, seconds=60.0)])
    assert troubles(progress, 10.0) == [(1, "slow")]
    assert troubles(progress, 200.0) == []


def test_one_node_is_never_slow() -> None:
    assert troubles(run(ended(9.0, *("returned",) * 9, seconds=60.0)), 10.0) == []
