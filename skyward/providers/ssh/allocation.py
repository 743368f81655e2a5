"""Which machine of a list is a node to have? Pure: no I/O, no clock, no luck.

The first that no node has; of several, one that did not fail before. One that failed is taken last.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class HostAllocator:
    """The machines of a list, by place.

    Attributes
    ----------
    taken
        The place that each node has.
    failures
        How often a place has failed.
    problems
        By pool, why each place could not be used when it was tried last.
    used
        The places at which something was done for a pool's nodes.
    untouched
        The nodes for which nothing has been done yet at their places.
    """

    taken: dict[str, int] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)
    problems: dict[str, dict[int, str]] = field(default_factory=dict)
    used: dict[str, set[int]] = field(default_factory=dict)
    untouched: set[str] = field(default_factory=set)

    def take(self, pool: str, node: str, places: int) -> int | None:
        """Return the place that the node has or now gets; None when all are taken."""
        if node not in self.taken:
            busy = set(self.taken.values())
            free = [place for place in range(places) if place not in busy]
            if not free:
                return None
            self.taken[node] = min(free, key=lambda place: (self.failures.get(place, 0), place))
            self.used.setdefault(pool, set())
            self.problems.setdefault(pool, {})
            self.untouched.add(node)
        return self.taken[node]

    def touch(self, pool: str, node: str) -> None:
        """Note that something is done for the node at its place."""
        self.untouched.discard(node)
        self.used.setdefault(pool, set()).add(self.taken[node])
        self.problems.setdefault(pool, {}).pop(self.taken[node], None)

    def spare(self, places: int) -> bool:
        """Whether there is a place that no node has and that did not fail."""
        return any(place not in self.failures for place in set(range(places)) - set(self.taken.values()))

    def fail(self, node: str) -> None:
        """Note that the node's place has failed."""
        if (place := self.taken.get(node)) is not None:
            self.failures[place] = self.failures.get(place, 0) + 1

    def note(self, pool: str, node: str, problem: str) -> None:
        """Note why the node's place cannot be used."""
        self.problems.setdefault(pool, {})[self.taken[node]] = problem

    def leave(self, node: str) -> None:
        """The node needs its place no more."""
        self.taken.pop(node, None)
        self.untouched.discard(node)
