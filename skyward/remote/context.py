"""What a task can ask about the slot that it runs on."""

import socket
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, overload

from skyward.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """Where a task runs.

    Attributes
    ----------
    node
        Number of the node, from 0. A node that replaces a lost one takes its number. A node that replaces a machine
        about to be reclaimed, or by which the pool has grown, has a new number.
    slot
        Number of the slot on its node, from 0.
    nodes
        Number of nodes that the pool began with.
    slots
        Number of slots of this node.
    host
        Host name of the machine.
    head
        Whether this is node 0, which can do what must be done only once.
    """

    node: int
    slot: int
    nodes: int
    slots: int
    host: str

    @property
    def head(self) -> bool:
        return self.node == 0


_here: ContextVar[InstanceInfo | None] = ContextVar("skyward_instance", default=None)


def instance_info() -> InstanceInfo:
    """Return where this task runs. Outside a task, this process counts as the only slot of the only node."""
    return _here.get() or InstanceInfo(node=0, slot=0, nodes=1, slots=1, host=socket.gethostname())


def inside() -> bool:
    """Whether this is a task."""
    return _here.get() is not None


def number() -> int:
    """Return the slot of this task; outside one it is -1."""
    here = _here.get()
    return -1 if here is None else here.slot


def enter(info: InstanceInfo) -> None:
    """Say where the tasks of this thread run from now on."""
    _here.set(info)


@overload
def shard(data: str) -> str: ...
@overload
def shard[T](data: list[T]) -> list[T]: ...
@overload
def shard[T](data: tuple[T, ...]) -> tuple[T, ...]: ...
@overload
def shard[T](data: Sequence[T]) -> Sequence[T]: ...
@overload
def shard(data: Any) -> Any: ...
def shard(data: Any) -> Any:
    """Return this node's share of `data`: one contiguous piece, as long as the others to within one item.

    Parameters
    ----------
    data
        Anything with `len` and slices: a list, an array of shape `(n, ...)`, a data frame (by rows, through `iloc`).

    Returns
    -------
    The items from `node * n // nodes` up to `(node + 1) * n // nodes`, of the type that slicing gives. The shares of
    all nodes, in order, are `data`. Outside a task it is all of `data`.

    Raises
    ------
    InvalidArgument
        `data` has no length or no order (a set, a dictionary, an iterator), or this node joined later, with a new
        number.
    """
    here = instance_info()
    if here.node >= here.nodes:
        raise InvalidArgument(
            f"shard: node {here.node} has no share, as the pool began with nodes 0 to {here.nodes - 1}; "
            "cut the data before the call, and give each call its part"
        )
    items = getattr(data, "iloc", data)
    if isinstance(data, Mapping) or not (hasattr(data, "__len__") and hasattr(items, "__getitem__")):
        raise InvalidArgument.of("data", data, "cannot be cut into shares", "give a list, an array or a data frame")
    size = len(data)
    return items[here.node * size // here.nodes : (here.node + 1) * size // here.nodes]
