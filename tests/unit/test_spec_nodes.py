"""How many nodes a user asks for, and how many are needed to begin."""

import re

import pytest

import skyward as sky
from skyward.spec import check


def test_all_nodes_are_needed_unless_less_is_said() -> None:
    assert check({"provider": sky.Local(), "nodes": 3}).nodes.needed == sky.Nodes(count=3).needed == 3
    assert check({"provider": sky.Local(), "nodes": sky.Nodes(count=10, min=8)}).nodes.needed == 8


def test_more_nodes_than_there_are_cannot_be_needed() -> None:
    with pytest.raises(sky.InvalidArgument, match=r"^min=3: must be at most count, which is 2; give how many must be"):
        sky.Nodes(count=2, min=3)


def test_a_minimum_alone_says_nothing() -> None:
    with pytest.raises(sky.InvalidArgument, match="Nodes needs count; give the number of machines"):
        sky.Nodes(min=3)
    with pytest.raises(sky.InvalidArgument, match=r"no argument 'min'; it goes into nodes: nodes=sky.Nodes\(min=...\)"):
        sky.Compute(min=3)


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
        ({"min": 3, "max": 2}, "max=2: must be at least count, which is 3"),
        ({"count": 2, "start": 2}, "start=2: is for a pool that grows; give max= as well, or count= alone"),
        ({"count": 2, "start": 3, "max": 9}, "start=3: is another name of count, which is 2; give one of them"),
        ({"start": "x", "max": 9}, "start='x': must be a whole number"),
    ],
)
def test_bounds_that_do_not_go_together_are_explained(given: dict[str, object], text: str) -> None:
    with pytest.raises(sky.InvalidArgument, match=re.escape(text)):
        sky.Nodes(**given)


def test_a_pair_that_is_no_pair_of_bounds_is_explained() -> None:
    with pytest.raises(sky.InvalidArgument, match="max=2: must be at least count, which is 10"):
        check({"provider": sky.Local(), "nodes": (10, 2)})
