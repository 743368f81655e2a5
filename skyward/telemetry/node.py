"""`Node`: a node of a pool, as `Compute.nodes` returns it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """A ready node of the pool: its number, the provider's id of its machine, its host name, its slots."""

    number: int
    instance: str
    host: str
    slots: int
