"""Calls of slots, laid one after the other and merged when there are many."""

import itertools

import pytest

from skyward.view.timeline_bins import SEVERAL, STATUSES, TICKS, Bins, TimelineBins, Usage, packed

SECOND = TICKS


def laid(cells: TimelineBins) -> dict[tuple[int, int, str], list[tuple[int, ...]]]:
    """What is drawn, unpacked: begin, end, ran, calls, tasks, first call, function, first task."""
    told = {}
    for node, slot, status, flat in cells.all():
        assert isinstance(flat, list)
        assert isinstance(status, int)
        begin = batch = 0
        lane = []
        for start, length, idle, calls, tasks, first, *of in zip(*[iter(flat)] * 8, strict=True):
            begin, batch = begin + start, batch + first
            lane.append((begin, begin + length, length - idle, calls, tasks, batch, *of))
        assert isinstance(node, int)
        assert isinstance(slot, int)
        told[node, slot, STATUSES[status]] = lane
    return told


def add(
    cells: TimelineBins, at: int, seconds: tuple[float, ...], slot: int = 0, status: str = "returned", first: int = 1
) -> None:
    many = len(seconds)
    same, numbers = (0,) * many, range(first, first + many)
    cells.add(at, 0, numbers, (slot,) * many, seconds, (status,) * many, (2,) * many, same, same)


def test_calls_of_one_message_are_laid_backwards_from_it() -> None:
    cells = TimelineBins()
    cells.add(
        10 * SECOND, 3, (7, 8, 9), (0, 1, 0), (1.0, 4.0, 2.0), ("returned",) * 3, (1, 5, 1), (0, 1, 2), (4, -1, 6)
    )
    assert laid(cells) == {
        (3, 0, "returned"): [
            (7 * SECOND, 8 * SECOND, SECOND, 1, 1, 7, 0, 4),
            (8 * SECOND, 10 * SECOND, 2 * SECOND, 1, 1, 9, 2, 6),
        ],
        (3, 1, "returned"): [(6 * SECOND, 10 * SECOND, 4 * SECOND, 1, 5, 8, 1, -1)],
    }


def test_a_call_is_on_its_slot_while_it_is_opened_and_runs_after_that() -> None:
    cells = TimelineBins()
    cells.add(10 * SECOND, 0, (7, 8), (0, 0), (1.0, 2.0), ("returned",) * 2, (1, 1), (0, 0), (0, 1), (5.0, 0.0))
    assert laid(cells)[0, 0, "returned"] == [
        (2 * SECOND, 8 * SECOND, SECOND, 1, 1, 7, 0, 0),
        (8 * SECOND, 10 * SECOND, 2 * SECOND, 1, 1, 8, 0, 1),
    ]


def test_calls_of_a_slot_never_overlap() -> None:
    cells = TimelineBins()
    add(cells, 2 * SECOND, (1.0,))
    add(cells, 2 * SECOND + 10, (0.5, 0.5), first=2)
    ((_, first, *_), (second, second_end, *_), (third, *_)) = laid(cells)[0, 0, "returned"]
    assert first == second
    assert second_end == third


def test_nothing_is_laid_before_the_run() -> None:
    cells = TimelineBins()
    add(cells, SECOND, (3.0,))
    assert laid(cells)[0, 0, "returned"] == [(0, 3 * SECOND, 3 * SECOND, 1, 2, 1, 0, 0)]


def test_one_that_never_began_is_left_out() -> None:
    cells = TimelineBins()
    add(cells, SECOND, (0.0,), slot=-1, status="died")
    assert laid(cells) == {}


def test_each_way_to_end_is_a_lane_of_its_own_and_an_unknown_one_is_a_death() -> None:
    cells = TimelineBins()
    for number, status in enumerate((*STATUSES, "vanished")):
        add(cells, (number + 1) * SECOND, (0.5,), status=status)
    told = laid(cells)
    assert set(told) == {(0, 0, status) for status in STATUSES}
    assert len(told[0, 0, "died"]) == 2


def test_calls_that_begin_in_the_same_grain_are_one_cell() -> None:
    cells = TimelineBins()
    add(cells, SECOND + cells.grain - 1, (0.0002,) * 3)
    assert laid(cells)[0, 0, "returned"] == [(SECOND + 3, SECOND + 9, 6, 3, 6, 1, 0, 0)]


def test_a_cell_has_the_function_of_its_calls_if_it_is_the_same() -> None:
    cells = TimelineBins()
    for slot, functions in enumerate(((7, 7), (7, 8))):
        same = (1, 1)
        cells.add(SECOND, 0, (1, 2), (slot, slot), (0.0002, 0.0002), ("returned",) * 2, same, functions, same)
    assert [lane[0][6] for lane in laid(cells).values()] == [7, SEVERAL]


@pytest.mark.parametrize("most", [10, 100])
def test_many_calls_are_few_cells_that_hold_as_much(most: int) -> None:
    cells = TimelineBins(most)
    for number in range(1000):
        add(cells, (number + 1) * 100, (0.008,), slot=number % 2, first=number)
    told = laid(cells)
    drawn = [cell for lane in told.values() for cell in lane]
    assert 0 < len(drawn) <= most
    assert sum(cell[3] for cell in drawn) == 1000
    assert sum(cell[4] for cell in drawn) == 2000
    assert sum(cell[2] for cell in drawn) == 1000 * 80
    for lane in told.values():
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(lane))


def test_it_gives_up_merging_where_there_are_more_lanes_than_cells() -> None:
    cells = TimelineBins(1)
    add(cells, SECOND, (0.5,), slot=0)
    add(cells, SECOND, (0.5,), slot=1)
    assert len(laid(cells)) == 2


def test_news_are_what_has_changed_since() -> None:
    cells = TimelineBins(3)
    assert cells.news() == []
    add(cells, SECOND, (0.5,))
    assert cells.news() == [[0, 0, 0, [SECOND // 2, SECOND // 2, 0, 1, 2, 1, 0, 0]]]
    assert cells.news() == []
    add(cells, 2 * SECOND, (0.5,), slot=1, first=2)
    assert cells.news() == [[0, 1, 0, [3 * SECOND // 2, SECOND // 2, 0, 1, 2, 2, 0, 0]]]


def test_news_are_everything_after_cells_were_merged() -> None:
    cells = TimelineBins(3)
    add(cells, SECOND, (0.1,) * 10)
    assert cells.news() is None
    assert cells.news() == []


def test_packed_numbers_are_distances() -> None:
    cells = [[100, 150, 40, 2, 3, 7, 0, 5], [200, 210, 10, 1, 1, 9, 1, -1]]
    assert packed(cells) == [100, 50, 10, 2, 3, 7, 0, 5, 100, 10, 0, 1, 1, 2, 1, -1]


def test_bins_double_their_width_when_there_are_too_many() -> None:
    bins = Bins(4)
    width = bins.width
    for at, amount in ((0, 1), (width, 2), (2 * width, 4), (5 * width, 8)):
        bins.add(at, amount)
    assert bins.width == 2 * width
    assert bins.amounts == [3, 4, 8]


def test_bins_keep_what_they_held() -> None:
    bins = Bins(10)
    for at in range(0, 1_000_000, 777):
        bins.add(at, 1)
    assert len(bins.amounts) <= 10
    assert sum(bins.amounts) == len(range(0, 1_000_000, 777))


def test_usage_is_kept_in_percent() -> None:
    usage = Usage()
    usage.add(5, 0.504, 0.25)
    usage.add(7, 1.0, 0.999)
    assert usage.samples == [[5, 50, 25], [7, 100, 100]]


def test_of_very_many_samples_the_highest_ones_are_kept() -> None:
    usage = Usage(most=10)
    for number in range(1000):
        usage.add(number * SECOND, 1.0 if number == 300 else 0.1, 0.9 if number == 707 else 0.2)
    assert 5 <= len(usage.samples) <= 10
    assert usage.samples[0][0] == 0
    assert max(sample[1] for sample in usage.samples) == 100
    assert max(sample[2] for sample in usage.samples) == 90
    assert all(before[0] < after[0] for before, after in itertools.pairwise(usage.samples))
    (cpu,), (memory,) = ([at for at, *shares in usage.samples if max(shares) == most] for most in (100, 90))
    assert cpu <= 300 * SECOND
    assert cpu < memory <= 707 * SECOND
