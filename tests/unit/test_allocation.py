"""Which machine of a list a node is to have."""

from skyward.providers.ssh.allocation import HostAllocator


def test_each_node_has_a_machine_of_its_own_in_the_order_of_the_list() -> None:
    seats = HostAllocator()

    assert [seats.take("p", f"p-{number}", 3) for number in range(4)] == [0, 1, 2, None]
    assert seats.untouched == {"p-0", "p-1", "p-2"}


def test_a_machine_counts_as_used_once_something_is_done_there() -> None:
    seats = HostAllocator()
    for number in range(2):
        seats.take("p", f"p-{number}", 2)
    assert seats.used == {"p": set()}
    seats.touch("p", "p-1")

    assert seats.used == {"p": {1}}
    assert seats.untouched == {"p-0"}


def test_a_node_that_asks_again_keeps_its_machine() -> None:
    seats = HostAllocator()

    assert seats.take("p", "p-0", 2) == seats.take("p", "p-0", 2) == 0


def test_a_machine_that_was_left_is_taken_again() -> None:
    seats = HostAllocator()
    seats.take("p", "p-0", 1)
    seats.leave("p-0")
    seats.leave("p-0")

    assert seats.take("q", "q-0", 1) == 0
    assert seats.untouched == {"q-0"}


def test_a_machine_that_failed_is_taken_last() -> None:
    seats = HostAllocator()
    seats.take("p", "p-0-0", 3)
    seats.fail("p-0-0")
    seats.leave("p-0-0")

    assert [seats.take("p", f"p-{number}-1", 3) for number in range(3)] == [1, 2, 0]


def test_a_node_without_a_machine_cannot_fail() -> None:
    seats = HostAllocator()
    seats.fail("p-0")

    assert not seats.failures


def test_a_machine_is_spare_that_no_node_has_and_that_did_not_fail() -> None:
    seats = HostAllocator()
    seats.take("p", "p-0", 2)
    assert seats.spare(2)
    seats.fail("p-0")
    seats.leave("p-0")
    seats.take("p", "p-1", 2)

    assert not seats.spare(2)


def test_why_a_machine_cannot_be_used_is_kept_by_pool_until_it_can() -> None:
    seats = HostAllocator()
    for number in range(2):
        seats.take("p", f"p-{number}", 2)
        seats.note("p", f"p-{number}", f"no {number}")
    assert seats.problems == {"p": {0: "no 0", 1: "no 1"}}
    seats.touch("p", "p-1")

    assert seats.problems == {"p": {0: "no 0"}}
