import socket
import threading
from collections.abc import Sequence
from concurrent import futures
from typing import Any, Self

import numpy as np
import pytest

from skyward.errors import InvalidArgument
from skyward.remote import context
from skyward.remote.context import InstanceInfo, instance_info, shard


def place(node: int, nodes: int) -> InstanceInfo:
    return InstanceInfo(node=node, slot=0, nodes=nodes, slots=1, host="h")


def share[T](data: Sequence[T], node: int, nodes: int) -> Any:
    """What `shard` gives on a node; in a thread of its own, so that it is forgotten."""

    def there() -> Any:
        context.enter(place(node, nodes))
        return shard(data)

    with futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(there).result(60)


def shares(data: Any, nodes: int) -> list[Any]:
    return [share(data, node, nodes) for node in range(nodes)]


class Frame:
    """A data frame as far as it matters: its slices go through `iloc`."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> Self:
        raise KeyError(column)

    @property
    def iloc(self) -> "Rows":
        return Rows(self.rows)


class Rows:
    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def __getitem__(self, share: slice) -> Frame:
        return Frame(self.rows[share])


def test_a_node_that_came_later_has_no_share() -> None:
    with pytest.raises(InvalidArgument, match=r"node 2 has no share, as the pool began with nodes 0 to 1; cut the"):
        share([1, 2, 3], 2, 2)


def test_outside_a_task_this_process_is_the_only_slot_of_the_only_node() -> None:
    assert instance_info() == InstanceInfo(node=0, slot=0, nodes=1, slots=1, host=socket.gethostname())


def test_outside_a_task_the_share_is_everything() -> None:
    assert shard([1, 2, 3]) == [1, 2, 3]


def test_node_0_is_the_head() -> None:
    assert [place(node, 3).head for node in range(3)] == [True, False, False]


def test_a_place_holds_for_its_own_thread_only() -> None:
    places: list[int] = []

    def there(node: int) -> None:
        context.enter(place(node, 9))
        meet.wait(60)
        places.append(instance_info().node)

    meet = threading.Barrier(2)
    threads = [threading.Thread(target=there, args=(node,)) for node in (4, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(places) == [4, 7]
    assert instance_info().node == 0


@pytest.mark.parametrize("nodes", [1, 2, 3, 7, 10, 13])
@pytest.mark.parametrize("size", [0, 1, 9, 10, 100])
def test_the_shares_of_all_nodes_in_order_are_the_data(size: int, nodes: int) -> None:
    assert [item for each in shares(list(range(size)), nodes) for item in each] == list(range(size))


@pytest.mark.parametrize("nodes", [1, 2, 3, 7, 10, 13])
def test_shares_differ_by_one_item_at_most(nodes: int) -> None:
    sizes = {len(each) for each in shares(range(10), nodes)}

    assert max(sizes) - min(sizes) <= 1


def test_a_share_of_more_nodes_than_items_may_be_empty() -> None:
    assert shares([1], 3) == [[], [], [1]]


@pytest.mark.parametrize("data", [[1, 2, 3], (1, 2, 3), "abc", b"abc", range(3)])
def test_a_share_is_of_the_type_that_slicing_gives(data: Sequence[Any]) -> None:
    assert [type(each) for each in shares(data, 2)] == [type(data)] * 2


def test_an_array_is_cut_along_its_first_axis() -> None:
    data = np.arange(20).reshape(5, 4)
    first, second = shares(data, 2)

    assert (first.shape, second.shape) == ((2, 4), (3, 4))
    assert np.array_equal(np.concatenate([first, second]), data)


def test_a_share_of_an_array_is_a_view_of_it() -> None:
    data = np.arange(10)

    assert share(data, 1, 2).base is data  # type: ignore[arg-type]


def test_a_data_frame_is_cut_by_rows() -> None:
    assert [each.rows for each in shares(Frame([1, 2, 3, 4, 5]), 2)] == [[1, 2], [3, 4, 5]]


@pytest.mark.parametrize("data", [{"a": 1}, {1, 2}, iter([1]), 5])
def test_what_has_no_order_or_no_length_cannot_be_shared(data: object) -> None:
    with pytest.raises(InvalidArgument, match="cannot be cut into shares"):
        shard(data)
