"""What ran, where and when, beside what the driver was answered: is it what the ledger promises?

Every task notes its beginning and its end (`work.noted`) in a file of the machine it runs on, which only a test reads.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import skyward as sky
from tests import work

SOON = 60.0
"""Seconds in which another answer has come, or never will."""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a task; it never ended when it was killed."""

    host: str
    pid: int
    began: float
    ended: float | None


class History:
    """The history of a pool's tasks.

    Parameters
    ----------
    file
        Where tasks leave their notes on the machines.
    notes
        What gives the notes of each machine, as far as there are any.
    """

    def __init__(self, file: object, *notes: Callable[[], str]) -> None:
        self.file = str(file)
        self._notes = notes
        self._right: dict[int, Any] = {}
        self._answers: dict[int, list[object]] = defaultdict(list)
        self._heard = threading.Condition()

    # ---------------------------------------------------------------- what is asked, and answered

    def ask(
        self,
        compute: sky.Compute,
        values: Iterable[Any],
        *more: object,
        function: Callable[..., Any] = work.noted,
        lost: bool = False,
    ) -> None:
        """Have the pool do one more task for each value, which is its answer; or, when all attempts die, none is."""
        for value in values:
            task = len(self._right)
            self._right[task] = sky.BatchLost if lost else value
            compute.submit(function, self.file, task, value, *more).add_done_callback(self._hear(task))

    def _hear(self, task: int) -> Callable[[futures.Future[Any]], None]:
        def hear(future: futures.Future[Any]) -> None:
            with self._heard:
                error = future.exception()
                self._answers[task].append(future.result() if error is None else error)
                self._heard.notify_all()

        return hear

    @property
    def answered(self) -> int:
        """How many answers there are."""
        return sum(map(len, self._answers.values()))

    def more(self, count: int = 1, seconds: float = SOON) -> None:
        """Wait for so many more answers."""
        with self._heard:
            wanted = self.answered + count
            assert self._heard.wait_for(lambda: self.answered >= wanted, seconds), f"{self.answered} of {wanted}"

    def all(self, seconds: float = SOON) -> None:
        """Wait for the rest of the answers; some have to come in so many seconds each time."""
        while (left := len(self._right) - self.answered) > 0:
            self.more(min(left, 10), seconds)

    # ---------------------------------------------------------------- what ran

    def runs(self) -> dict[int, list[Run]]:
        """Every execution of each task."""
        began: dict[tuple[str, ...], list[float]] = defaultdict(list)
        found: dict[int, list[Run]] = defaultdict(list)
        for line in (line for notes in self._notes for line in notes().splitlines()):
            what, *key, at = line.split()
            if what == "began":
                began[tuple(key)].append(float(at))
            else:
                found[int(key[0])].append(Run(key[1], int(key[2]), began[tuple(key)].pop(), float(at)))
        for (task, host, pid), times in began.items():
            found[int(task)] += [Run(host, int(pid), at, None) for at in times]
        return found

    # ---------------------------------------------------------------- whether that is right

    def check(self, report: sky.Report, *, again: bool, closed: float | None = None) -> None:
        """Hold it against the ledger, once the pool is gone, which it was from `closed` on.

        There is exactly one answer for each task, and the right one. Only if the fault is one that makes work go
        elsewhere (`again`) has any task run twice, and then the ledger tells of as many retries, each with its reason.
        Nothing ran when there was no pool any more.
        """
        closed = closed or time.time()
        assert {task: len(answers) for task, answers in self._answers.items()} == dict.fromkeys(self._right, 1)
        wrong = {task: answers for task, answers in self._answers.items() if not _fits(answers[0], self._right[task])}
        assert not wrong
        runs = self.runs()
        assert runs.keys() == self._right.keys()
        answered = [task for task, right in self._right.items() if right is not sky.BatchLost]
        assert all(any(run.ended for run in runs[task]) for task in answered)
        twice = {task: made for task, made in runs.items() if len(made) > 1}
        assert again or (not twice and not report.retries), (twice, report.retries)
        assert sum(len(made) - 1 for made in twice.values()) <= sum(report.retries.values()), twice
        assert all(report.retries)
        late = [run for made in runs.values() for run in made if max(run.began, run.ended or 0.0) > closed]
        assert not late


def _fits(answer: object, right: Any) -> bool:
    return isinstance(answer, right) if isinstance(right, type) else bool(answer == right)
