"""Which machine of a list a node is to have."""

from skyward.providers.ssh.allocation import HostAllocator


def test_each_node_has_a_machine_of_its_own_in_the_order_of_the_list() -> None:
    hosts = HostAllocator()

    assert [hosts.take("p", f"p-{number}", 3) for number in range(4)] == [0, 1, 2, None]
    assert hosts.untouched == {"p-0", "p-1", "p-2"}


def test_a_machine_counts_as_used_once_something_is_done_there() -> None:
    hosts = HostAllocator()
    for number in range(2):
        hosts.take("p", f"p-{number}", 2)
    assert hosts.used == {"p": set()}
    hosts.touch("p", "p-1")

    assert hosts.used == {"p": {1}}
    assert hosts.untouched == {"p-0"}


def test_a_node_that_asks_again_keeps_its_machine() -> None:
    hosts = HostAllocator()

    assert hosts.take("p", "p-0", 2) == hosts.take("p", "p-0", 2) == 0


def test_a_machine_that_was_left_is_taken_again() -> None:
    hosts = HostAllocator()
    hosts.take("p", "p-0", 1)
    hosts.leave("p-0")
    hosts.leave("p-0")

    assert hosts.take("q", "q-0", 1) == 0
    assert hosts.untouched == {"q-0"}


def test_a_machine_that_failed_is_taken_last() -> None:
    hosts = HostAllocator()
    hosts.take("p", "p-0-0", 3)
    hosts.fail("p-0-0")
    hosts.leave("p-0-0")

    assert [hosts.take("p", f"p-{number}-1", 3) for number in range(3)] == [1, 2, 0]


def test_a_node_without_a_machine_cannot_fail() -> None:
    hosts = HostAllocator()
    hosts.fail("p-0")

    assert not hosts.failures


def test_a_machine_is_spare_that_no_node_has_and_that_did_not_fail() -> None:
    hosts = HostAllocator()
    hosts.take("p", "p-0", 2)
    assert hosts.spare(2)
    hosts.fail("p-0")
    hosts.leave("p-0")
    hosts.take("p", "p-1", 2)

    assert not hosts.spare(2)


def test_why_a_machine_cannot_be_used_is_kept_by_pool_until_it_can() -> None:
    hosts = HostAllocator()
    for number in range(2):
        hosts.take("p", f"p-{number}", 2)
        hosts.note("p", f"p-{number}", f"no {number}")
    assert hosts.problems == {"p": {0: "no 0", 1: "no 1"}}
    hosts.touch("p", "p-1")

    assert hosts.problems == {"p": {0: "no 0"}}
