"""How many nodes a user asks for, and how many are needed to begin."""

import re
from typing import Any

import pytest

import skyward as sky
from skyward.config.spec import check


def test_all_nodes_are_needed_unless_less_is_said() -> None:
    assert check({"provider": sky.Local(), "nodes": 3}).nodes.needed == sky.Nodes(count=3).needed == 3
    assert check({"provider": sky.Local(), "nodes": sky.Nodes(count=10, min=8)}).nodes.needed == 8


def test_more_nodes_than_there_are_cannot_be_needed() -> None:
    with pytest.raises(sky.InvalidArgument, match=r"^min=3: must be at most count, which is 2; write min=2$"):
        sky.Nodes(count=2, min=3)


def test_a_minimum_alone_says_nothing() -> None:
    with pytest.raises(sky.InvalidArgument, match="Nodes needs count; give the number of machines"):
        sky.Nodes(min=3)
    with pytest.raises(sky.InvalidArgument, match=r"no argument 'min'; it goes into nodes: nodes=sky.Nodes\(min=...\)"):
        sky.Compute(min=3)  # type: ignore[arg-type]


def test_a_pool_that_grows_begins_with_what_it_needs_or_what_is_said() -> None:
    nodes = check({"provider": sky.Local(), "nodes": (2, 10)}).nodes
    assert (nodes.count, nodes.needed, nodes.max, nodes.elastic) == (2, 2, 10, True)
    begun = sky.Nodes(min=2, max=10, start=4)
    assert (begun.count, begun.needed, begun.elastic) == (4, 2, True)
    assert (sky.Nodes(max=3).count, sky.Nodes(max=3).needed) == (1, 1)
    assert not sky.Nodes(count=3, max=3).elastic
    assert not sky.Nodes(count=3).elastic


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"min": 3, "max": 2}, "max=2: must be at least min, which is 3; write max=3"),
        ({"count": 4, "max": 2}, "max=2: must be at least count, which is 4; write max=4"),
        ({"start": 4, "max": 2}, "max=2: must be at least start, which is 4; write max=4"),
        ({"start": 4, "min": 5, "max": 9}, "min=5: must be at most start, which is 4; write min=4"),
        ({"count": 2, "start": 2}, "start=2: is for a pool that grows; give max= as well, or count= alone"),
        ({"count": 2, "start": 3, "max": 9}, "start=3: is another name for count, which is 2; give one of them"),
        ({"start": "x", "max": 9}, "start='x': must be a whole number"),
    ],
)
def test_bounds_that_do_not_go_together_are_explained(given: dict[str, object], text: str) -> None:
    with pytest.raises(sky.InvalidArgument, match=re.escape(text)):
        sky.Nodes(**given)


def test_a_list_of_two_numbers_is_the_pair_that_it_means() -> None:
    assert check({"provider": sky.Local(), "nodes": [2, 10]}).nodes == sky.Nodes(min=2, max=10)


MACHINES = "give the number of machines, for example nodes=1"
PAIR = "write nodes=(2, 10) for 2 to 10 machines"


@pytest.mark.parametrize(
    ("nodes", "text"),
    [
        (0, f"nodes=0: must be at least 1; {MACHINES}"),
        (10_001, f"nodes=10001: must be at most 10000; {MACHINES}"),
        (True, f"nodes=True: must be a whole number; {MACHINES}"),
        (2.0, "nodes=2.0: must be a whole number; write nodes=2"),
        ("3", "nodes='3': must be a whole number; write nodes=3"),
        ("3.5", f"nodes='3.5': must be a whole number; {MACHINES}"),
        ((10, 2), "nodes=(10, 2): the smaller number comes first; write nodes=(2, 10)"),
        ([0, 2], "nodes=[0, 2]: both must be from 1 to 10000; write nodes=(1, 2)"),
        ((1, "x"), f"nodes=(1, 'x'): must be two whole numbers; {PAIR}"),
        ([3], f"nodes=[3]: must be a number or a pair of numbers; {PAIR}"),
        ({"min": 2}, "nodes={'min': 2}: must be a whole number; write nodes=sky.Nodes(min=2)"),
        (sky.Nodes, "nodes=sky.Nodes: is a class; call it: sky.Nodes(count=10)"),
        (None, f"nodes=None: must be a whole number; {MACHINES}"),
    ],
)
def test_a_wrong_number_is_answered_with_what_to_write(nodes: Any, text: str) -> None:
    with pytest.raises(sky.InvalidArgument) as raised:
        sky.Compute(nodes=nodes)
    assert str(raised.value) == text
