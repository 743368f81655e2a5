"""Choose a machine for each node: the first free one of those that failed least often. Pure: no I/O, no clock."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class HostAllocator:
    """The machines of a list, identified by their index (place), and their nodes, identified by name.

    Attributes
    ----------
    taken
        The place of each node.
    failures
        How often each place has failed.
    problems
        By pool, why each place could not be used when it was last tried.
    used
        By pool, the places whose machines have been contacted.
    untouched
        The nodes whose machines have not been contacted yet.
    """

    taken: dict[str, int] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)
    problems: dict[str, dict[int, str]] = field(default_factory=dict)
    used: dict[str, set[int]] = field(default_factory=dict)
    untouched: set[str] = field(default_factory=set)

    def take(self, pool: str, name: str, places: int) -> int | None:
        """Return the place of the node, which gets a free one if it has none; None when all are taken."""
        if name not in self.taken:
            busy = set(self.taken.values())
            free = [place for place in range(places) if place not in busy]
            if not free:
                return None
            self.taken[name] = min(free, key=lambda place: (self.failures.get(place, 0), place))
            self.used.setdefault(pool, set())
            self.problems.setdefault(pool, {})
            self.untouched.add(name)
        return self.taken[name]

    def touch(self, pool: str, name: str) -> None:
        """Note that the node's machine has been contacted."""
        self.untouched.discard(name)
        self.used.setdefault(pool, set()).add(self.taken[name])
        self.problems.setdefault(pool, {}).pop(self.taken[name], None)

    def spare(self, places: int) -> bool:
        """Whether there is a free place that has never failed."""
        return any(place not in self.failures for place in set(range(places)) - set(self.taken.values()))

    def fail(self, name: str) -> None:
        """Note that the node's place has failed."""
        if (place := self.taken.get(name)) is not None:
            self.failures[place] = self.failures.get(place, 0) + 1

    def note(self, pool: str, name: str, problem: str) -> None:
        """Note why the node's place cannot be used."""
        self.problems.setdefault(pool, {})[self.taken[name]] = problem

    def leave(self, name: str) -> None:
        """Free the place of the node."""
        self.taken.pop(name, None)
        self.untouched.discard(name)
