"""Where the slots' time goes, second by second."""

from collections.abc import Mapping
from dataclasses import astuple

import pytest

from skyward.actors.utilization import Utilization
from skyward.events import BatchesEnded, BatchesLate, BatchesSent
from skyward.telemetry.report import LostTime, Report

OFFSET = 1000.0
"""Seconds by which the clock of events is ahead."""


def ended(
    now: float, *calls: tuple[int, float], opening: tuple[float, ...] = (), imports: Mapping[str, float] | None = None
) -> BatchesEnded:
    """Node 0 has answered calls: the slot of each, and the seconds that it ran."""
    slots, seconds = zip(*calls, strict=True)
    rest = ("returned",) * len(calls), (1,) * len(calls), 5
    return BatchesEnded(
        now + OFFSET, 0, slots, slots, seconds, *rest, (), (), (), opening, {} if imports is None else imports
    )


@pytest.fixture
def ledger() -> Utilization:
    """That of a pool of two nodes with two slots each, at second 100."""
    made = Utilization()
    made.turn(100.0, 0, 0, open=False)
    made.come(0, 2)
    made.come(1, 2)
    made.turn(100.0, 0, 4, open=False)
    return made


def report(ledger: Utilization, now: float, held: Mapping[int, int] | None = None) -> Report:
    told = ledger.report(now, now + OFFSET, held or {}, 0)
    if told.capacity:
        assert told.efficiency + sum(astuple(told.lost)) == pytest.approx(1.0)
    return told


def lost(ledger: Utilization, now: float) -> LostTime:
    """The seconds of slots that were lost."""
    told = report(ledger, now)
    return LostTime(*(share * told.capacity for share in astuple(told.lost)))


def test_time_without_calls_does_not_count(ledger: Utilization) -> None:
    ledger.turn(150.0, 0, 4, open=False)
    assert report(ledger, 200.0).total == 0.0


def test_a_run_lasts_from_the_first_call_to_the_last_answer(ledger: Utilization) -> None:
    for begin in (110.0, 150.0):
        ledger.arrive(begin, begin + 1.0, 0.0)
        ledger.turn(begin + 1.0, 4, 4, open=True)
        ledger.turn(begin + 11.0, 0, 4, open=False)
    told = report(ledger, 200.0)
    assert (told.total, told.capacity) == (22.0, 88.0)


def test_slots_without_a_call_before_all_had_one_are_lost_to_the_start(ledger: Utilization) -> None:
    ledger.arrive(110.0, 110.0, 0.0)
    ledger.turn(110.0, 1, 4, open=True)
    ledger.arrive(112.0, 112.0, 0.0)
    ledger.turn(112.0, 4, 4, open=True)
    assert lost(ledger, 112.0).start == 6.0


def test_slots_without_a_call_between_two_arrivals_are_idle(ledger: Utilization) -> None:
    ledger.arrive(110.0, 110.0, 0.0)
    ledger.turn(110.0, 4, 4, open=True)
    ledger.turn(113.0, 2, 4, open=True)
    ledger.arrive(115.0, 115.0, 0.0)
    ledger.turn(115.0, 4, 4, open=True)
    assert lost(ledger, 115.0).idle == 4.0


def test_slots_without_a_call_while_the_caller_packs_are_lost_to_serialization(ledger: Utilization) -> None:
    ledger.arrive(110.0, 112.0, 2.0)
    ledger.turn(112.0, 4, 4, open=True)
    ledger.turn(114.0, 0, 4, open=True)
    ledger.packing += 0.5  # as when results are opened
    ledger.arrive(116.0, 116.0, 0.5)
    ledger.turn(116.0, 4, 4, open=True)
    told = lost(ledger, 116.0)
    assert told.serialization == 8.0 + 0.25 * 8.0
    assert (told.start, told.idle) == (0.0, 0.75 * 8.0)


def test_several_callers_that_pack_at_once_lose_no_more_than_there_is(ledger: Utilization) -> None:
    ledger.arrive(110.0, 112.0, 50.0)
    ledger.turn(112.0, 4, 4, open=True)
    assert lost(ledger, 112.0).serialization == 8.0


def test_slots_without_a_call_after_the_last_one_came_are_lost_to_the_tail(ledger: Utilization) -> None:
    ledger.arrive(110.0, 110.0, 0.0)
    ledger.turn(110.0, 4, 4, open=True)
    ledger.turn(115.0, 1, 4, open=True)
    assert lost(ledger, 116.0).tail == 3.0
    ledger.turn(117.0, 0, 4, open=False)
    assert lost(ledger, 117.0).tail == 6.0


def test_a_node_being_replaced_is_lost_to_the_start_and_one_given_up_does_not_count(ledger: Utilization) -> None:
    ledger.arrive(110.0, 110.0, 0.0)
    ledger.turn(110.0, 4, 4, open=True)
    ledger.turn(111.0, 2, 2, open=True)
    ledger.turn(113.0, 2, 2, open=True)
    assert lost(ledger, 113.0).start == 4.0
    ledger.go(1)
    ledger.turn(115.0, 0, 2, open=False)
    told = report(ledger, 115.0)
    assert told.capacity == 4.0 + 8.0 + 4.0
    assert [node.slots for node in told.nodes.values()] == [2, 0]


def test_a_slot_that_has_a_call_and_does_not_run_it_is_lost_to_the_link(ledger: Utilization) -> None:
    ledger.arrive(110.0, 110.0, 0.0)
    ledger.turn(110.0, 4, 4, open=True)
    ledger.counts.add(ended(114.0, (0, 4.0), (1, 4.0), (0, 3.0), (1, 3.0)))
    ledger.turn(114.0, 0, 4, open=False)
    told = report(ledger, 114.0)
    assert told.work == 14.0
    assert told.lost.link * told.capacity == 2.0


def test_opening_calls_is_neither_work_nor_lost_to_the_link(ledger: Utilization) -> None:
    ledger.arrive(110.0, 110.0, 0.0)
    ledger.turn(110.0, 4, 4, open=True)
    ledger.counts.add(ended(116.0, (0, 1.0), (1, 1.5), opening=(5.0, 4.0), imports={"a": 5.0, "b": 1.0}))
    told = report(ledger, 116.0, {1: 2})
    assert told.lost.opening * told.capacity == pytest.approx(9.0)
    assert told.work == 1.0 + 1.5 + 2 * 6.0
    assert told.lost.link * told.capacity == pytest.approx(0.5)
    assert told.imports == {"a": 5.0, "b": 1.0}


def test_opening_is_never_more_than_slots_had_calls(ledger: Utilization) -> None:
    ledger.arrive(110.0, 110.0, 0.0)
    ledger.turn(110.0, 1, 4, open=True)
    ledger.counts.add(ended(112.0, (0, 1.0), opening=(5.0,)))
    ledger.turn(112.0, 0, 4, open=False)
    told = report(ledger, 112.0)
    assert (told.lost.opening * told.capacity, told.work, told.lost.link) == (2.0, 0.0, 0.0)


def test_what_the_events_count_is_in_the_report(ledger: Utilization) -> None:
    ledger.counts.add(BatchesSent(120.0, 0, 4, 700))
    ledger.counts.add(ended(120.0, (0, 1.0), (1, 2.0), (0, 1.5), (-1, 0.0)))
    told = report(ledger, 120.0)
    assert (told.nodes[0].busy, told.nodes[0].calls) == ((2.5, 2.0), 3)
    assert (told.sent, told.received, told.tasks, told.calls) == (700, 5, 4, 4)


def test_a_replacement_goes_on_where_the_lost_node_ended(ledger: Utilization) -> None:
    ledger.counts.add(ended(120.0, (1, 2.0)))
    ledger.come(0, 3)
    assert report(ledger, 120.0).nodes[0].busy == (0.0, 2.0, 0.0)
    ledger.come(0, 1)
    told = report(ledger, 120.0)
    assert (told.nodes[0].busy, told.nodes[0].slots, told.slots) == ((0.0, 2.0, 0.0), 1, 3)


def test_in_mid_run_a_call_is_taken_to_run_since_its_slot_ended_the_one_before(ledger: Utilization) -> None:
    ledger.arrive(110.0, 110.0, 0.0)
    ledger.turn(110.0, 3, 4, open=True)
    ledger.counts.add(ended(112.0, (0, 2.0)))
    told = report(ledger, 114.0, {0: 3, 1: 1})
    assert told.work == 2.0 + (2.0 + 4.0) + 0.5 * (4.0 + 4.0)
    assert told.lost.link == 0.0
    assert told.lost.tail * told.capacity == 4.0


def test_large_buffers_count_for_each_node_that_has_them(ledger: Utilization) -> None:
    ledger.share(0, 500)
    ledger.share(1, 500)
    ledger.share(1, 200)
    ledger.fetch(1, 900)
    told = report(ledger, 120.0)
    assert ([node.shared for node in told.nodes.values()], told.shared) == ([500, 700], 1200)
    assert (told.sent, told.received) == (0, 900)


def test_attempts_are_answers_deaths_and_what_came_too_late(ledger: Utilization) -> None:
    ledger.counts.add(ended(119.0, (0, 1.0), (0, 1.0), (0, 1.0)))
    ledger.counts.add(BatchesLate(119.0, 0, 2, 2))
    told = ledger.report(120.0, 120.0 + OFFSET, {}, 3)
    assert (told.attempts, told.calls, told.late) == (6, 1, 2)
