"""What is known of the nodes of a pool."""

from typing import Any

import pytest

import skyward as sky
from skyward.actors.node_table import NodeTable
from skyward.providers.provider import LeftToLease

CLIENT: Any = object()


def node(number: int) -> sky.Node:
    return sky.Node(number, f"i-{number}", "host", 2)


@pytest.fixture
def table() -> NodeTable:
    """Nodes 0 to 2, of which 2 is ready, then 0."""
    table = NodeTable()
    for number in range(3):
        table.request(number)
    table.up(node(2), frozenset({"/data"}), CLIENT)
    table.up(node(0), frozenset(), CLIENT)
    return table


def test_ready_nodes_are_told_by_number(table: NodeTable) -> None:
    assert table.ready() == table.known() == (node(0), node(2))
    assert table.numbers(ready=True) == [0, 2]
    assert table.numbers(ready=False) == [0, 1, 2]
    assert table.mounts() == [frozenset(), frozenset({"/data"})]
    assert table.clients() == {0: CLIENT, 2: CLIENT}


def test_a_node_that_is_down_is_known_until_it_is_given_up(table: NodeTable) -> None:
    table.down(0)

    assert (table.ready(), table.known()) == ((node(2),), (node(0), node(2)))
    assert table.client(0) is None
    assert table.numbers(ready=False) == [0, 1, 2]
    table.give_up(0)
    assert table.known() == (node(2),)


def test_a_node_that_drains_takes_calls_but_is_not_among_the_numbers(table: NodeTable) -> None:
    table.drain(0)

    assert table.client(0) is CLIENT
    assert table.ready() == (node(0), node(2))
    assert table.numbers(ready=False) == [1, 2]
    assert table.numbers(ready=True) == [2]


def test_the_steps_of_the_last_start_are_told_with_their_seconds(table: NodeTable) -> None:
    for at, step in enumerate(("launching", "ready", "launching", "reaching", "booting")):
        table.note_step(1, step, at * 1.5)
    table.note_step(0, "launching", 0.0)

    assert table.starts() == {0: (), 1: (("launching", 1.5), ("reaching", 1.5))}


def test_the_error_of_a_node_is_its_last_problem(table: NodeTable) -> None:
    assert str(table.error(0, "it ended")) == "node 0: it ended"
    refused, bug = sky.Denied("no permission"), ValueError("a bug")
    table.note_problem(0, refused)
    assert table.error(0, "it ended") is refused
    table.note_problem(0, bug)
    failed = table.error(0, "it ended")
    assert (type(failed), str(failed), failed.__cause__) == (sky.PoolFailed, "node 0: it ended", bug)


def test_a_machine_that_was_left_is_told_until_it_is_terminated_after_all(table: NodeTable) -> None:
    table.leave("i-1", LeftToLease("no answer"), 60.0)
    table.leave("i-1", LeftToLease("no answer"), 3600.0)  # what counts is when it was left first

    (seconds,) = table.left().values()
    assert 0.0 < seconds <= 60.0
    table.terminated("i-1")
    assert table.left() == {}
