"""The number of tasks that are still to arrive, as far as it is known. Pure: no I/O, no clock, no actor."""

from dataclasses import dataclass, field

from skyward.events import TasksCounted


@dataclass(slots=True)
class _GroupTasks:
    """Tasks of one group: those that have arrived, and all of them; -1 where that is not known."""

    arrived: int = 0
    tasks: int = -1
    final: bool = False


@dataclass(slots=True)
class Expected:
    """The groups of which more tasks may arrive."""

    _groups: dict[int, _GroupTasks] = field(default_factory=dict)

    def count(self, event: TasksCounted) -> None:
        """Note the expected number of tasks of a group."""
        group = self._groups.setdefault(event.group, _GroupTasks())
        group.tasks, group.final = event.tasks, event.final
        self._forget(event.group, group)

    def arrive(self, number: int, tasks: int) -> bool:
        """Note that tasks of a group have arrived; return whether a number was expected of it."""
        group = self._groups.get(number)
        if group is None:
            return False
        group.arrived += tasks
        self._forget(number, group)
        return True

    @property
    def known(self) -> bool:
        """Whether it is known how many are yet to come."""
        return all(group.arrived <= group.tasks for group in self._groups.values())

    @property
    def tasks(self) -> int:
        """How many are known to be yet to come."""
        return sum(max(0, group.tasks - group.arrived) for group in self._groups.values())

    def __bool__(self) -> bool:
        """Whether any may be yet to come."""
        return any(group.arrived != group.tasks for group in self._groups.values())

    def _forget(self, number: int, group: _GroupTasks) -> None:
        if group.final and group.arrived >= group.tasks:
            del self._groups[number]
