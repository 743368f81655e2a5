"""How many nodes a user asks for, and how many are needed to begin."""

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
        sky.Nodes(min=3)  # type: ignore[call-arg]
    with pytest.raises(sky.InvalidArgument, match=r"no argument 'min'; it goes into nodes: nodes=sky.Nodes\(min=...\)"):
        sky.Compute(min=3)
