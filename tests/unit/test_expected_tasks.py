"""What is yet to arrive is known by group."""

from skyward.events import TasksCounted
from skyward.view.expected_tasks import Expected


def said(group: int, tasks: int, *, final: bool = False) -> TasksCounted:
    return TasksCounted(0.0, group, tasks, final)


def test_nothing_is_expected_of_groups_of_which_nothing_was_said() -> None:
    expected = Expected()
    assert not expected.arrive(1, 5)
    assert (bool(expected), expected.known, expected.tasks) == (False, True, 0)


def test_a_group_that_was_counted_is_expected_until_all_of_it_has_arrived() -> None:
    expected = Expected()
    expected.count(said(1, 10))
    assert (bool(expected), expected.known, expected.tasks) == (True, True, 10)
    assert expected.arrive(1, 4)
    assert expected.tasks == 6
    expected.count(said(2, 3))
    assert expected.tasks == 9
    expected.arrive(1, 6)
    expected.arrive(2, 3)
    assert (bool(expected), expected.known, expected.tasks) == (False, True, 0)


def test_a_group_that_cannot_be_counted_yet_leaves_it_open() -> None:
    expected = Expected()
    expected.count(said(1, 10))
    expected.count(said(2, -1))
    expected.arrive(2, 4)
    assert (bool(expected), expected.known, expected.tasks) == (True, False, 10)
    expected.count(said(2, 7))
    assert (expected.known, expected.tasks) == (True, 13)


def test_a_group_that_is_larger_than_was_said_is_not_known_until_its_end() -> None:
    expected = Expected()
    expected.count(said(1, 3))
    expected.arrive(1, 5)
    assert (bool(expected), expected.known) == (True, False)
    expected.count(said(1, 6, final=True))
    assert (bool(expected), expected.known, expected.tasks) == (True, True, 1)
    expected.arrive(1, 1)
    assert not expected


def test_a_group_that_ends_early_is_not_waited_for() -> None:
    expected = Expected()
    expected.count(said(1, 10))
    expected.arrive(1, 4)
    expected.count(said(1, 4, final=True))
    assert (bool(expected), expected.known, expected.tasks) == (False, True, 0)
    assert not expected.arrive(1, 1)  # it is forgotten
