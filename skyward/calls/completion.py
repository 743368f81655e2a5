"""How outcomes reach their callers: `PendingCall` is a call, and `CompletionThread` passes it the answer."""

import contextlib
import itertools
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

from skyward.errors import BatchLost, BudgetExceeded
from skyward.events import NOT_COUNTED, label
from skyward.remote import blobs, missing_modules
from skyward.remote.call_options import CallOptions
from skyward.remote.future import Future
from skyward.remote.protocol import Outcome
from skyward.remote.serialization import call_codec
from skyward.remote.serialization.packer import Packed

log = logging.getLogger("skyward")

IDLE = 8
"""Threads that are kept for groups to come."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An outcome, the node that it came from, the number of its tasks, and its result if that is large."""

    outcome: Outcome
    node: int
    tasks: int = 1
    result: memoryview | None = None

    def parts(self) -> list[blobs.Buffer]:
        """Return the result as `call_codec.execute` gave it."""
        if self.result is None:
            return [self.outcome.payload]
        return [*blobs.parted(self.result, self.outcome.sizes)]


type Completions = list[tuple[PendingCall, Answer | BaseException]]


class CompletionThread:
    """A thread that opens outcomes and completes futures, so that user code never runs on the pool's event loop.

    Done-callbacks run here, one after the other. What else is to be done comes after the outcomes that are there.

    Attributes
    ----------
    opening
        Seconds spent on opening outcomes; `opened` is how much of it the pool has taken note of.
    path
        What `sys.path` was when the pool began.
    """

    def __init__(self, name: str, path: Sequence[str] = ()) -> None:
        self.path = path
        self.opening = self.opened = 0.0
        self._ended: deque[Completions] = deque()
        self._work: deque[Callable[[], None]] = deque()
        self._turns: SimpleQueue[bool] = SimpleQueue()  # True for each of the above, False at the end
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, ended: Completions) -> None:
        """Complete the futures of these entries, soon."""
        self._ended.append(ended)
        self._turns.put(True)

    def do(self, work: Callable[[], None]) -> None:
        """Do this when there are no outcomes to be given."""
        self._work.append(work)
        self._turns.put(True)

    def close(self) -> None:
        """End the thread after what was put before."""
        self._turns.put(False)

    def join(self) -> None:
        """Wait until it has ended, unless this is a done-callback."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while self._turns.get():
            try:
                if self._ended:
                    self._complete(self._ended.popleft())
                else:
                    self._work.popleft()()
            except BaseException:
                log.exception("a result could not be given to its caller")

    def _complete(self, ended: Completions) -> None:
        for entry, answer in ended:
            try:
                self.opening += entry.complete(answer)
            except BaseException:  # a done-callback of the user; `sys.exit` there must not end this thread
                log.exception("a done-callback failed")


class CompletionThreads:
    """The deliveries of a pool: one for each group, used again when it is idle, as starting a thread takes its time."""

    def __init__(self, name: str) -> None:
        self._name, self._path = name, tuple(sys.path)
        self._numbers = itertools.count(1)
        self._idle: deque[CompletionThread] = deque()
        self._closed = False

    def lend(self) -> CompletionThread:
        """Return one that nobody else uses."""
        try:
            return self._idle.pop()
        except IndexError:
            return CompletionThread(f"{self._name}-{next(self._numbers)}", self._path)

    def give_back(self, delivery: CompletionThread) -> None:
        """Take one back, once it has done what it was given."""
        delivery.do(partial(self._keep, delivery))

    def close(self) -> None:
        """End the idle ones, and each of the others when it is given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _keep(self, delivery: CompletionThread) -> None:
        if self._closed or len(self._idle) >= IDLE:
            delivery.close()
        else:
            self._idle.append(delivery)


@dataclass(slots=True, eq=False)
class PendingCall:
    """A call on its way: what the router's numbers stand for.

    It runs the function `name`, for the `attempt`th time. It holds so many `tasks`, the first of which is number
    `first` of its group, if that counts them. It brings `size` bytes that the pool's calls before it did not. The
    caller began to pack it at `began`, which took `packing` seconds.
    """

    future: Future[Any]
    packed: Packed
    terms: CallOptions
    group: "GroupState"
    name: str = "the call"
    tasks: int = 1
    first: int = NOT_COUNTED
    attempt: int = 1
    size: int = 0
    began: float = 0.0
    packing: float = 0.0

    @property
    def label(self) -> str:
        """The call as events name it, without a look at its arguments: `train, task 17`."""
        return label(self.future.batch, self.name, self.first, self.tasks)

    def shown(self) -> str:
        """Return the call in a line, for an error."""
        text = "" if self.packed.blobs else call_codec.shown_call(self.packed.payload, self.packed.functions)
        return text or self.name

    def place(self, error: BaseException, answer: Answer) -> None:
        """Say in a note where a call raised."""
        again = f", attempt {self.attempt}" if self.attempt > 1 else ""
        with contextlib.suppress(Exception):  # an exception may refuse
            error.add_note(f"That was on node {answer.node}, slot {answer.outcome.slot}{again}.")

    def complete(self, answer: Answer | BaseException) -> float:
        """Give the caller the outcome; one who has cancelled gets nothing. Return the seconds that opening it took."""
        began = time.perf_counter()
        try:
            value, error = self._open(answer)
        except BaseException as wrong:  # noqa: BLE001 - an answer, too; opening it runs user code
            value, error = None, wrong
        opening = time.perf_counter() - began
        with contextlib.suppress(futures.InvalidStateError):
            if error is None:
                self.future.set_result(value)
            else:
                self.future.set_exception(error)
        return opening

    def _open(self, answer: Answer | BaseException) -> tuple[object, BaseException | None]:
        if isinstance(answer, BudgetExceeded):
            return None, self.group.interrupted(answer)
        if isinstance(answer, BatchLost):
            return None, BatchLost.after(answer.causes, self.shown())
        if isinstance(answer, BaseException):
            return None, answer
        future, outcome = self.future, answer.outcome
        future.duration, future.node, future.slot = outcome.seconds, answer.node, outcome.slot
        if outcome.status == "overdue":
            return None, TimeoutError(
                f"{self.shown()} ran for more than {self.terms.timeout:g} s on slot {outcome.slot} of node "
                f"{answer.node} and was stopped; give it a longer timeout=, or see where it hangs: compute.stacks()"
            )
        value, error = call_codec.open_outcome("raised" if outcome.status == "raised" else "returned", answer.parts())
        if error is not None:
            self.place(error, answer)
            if isinstance(error, ModuleNotFoundError) and (
                late := missing_modules.found_since(error, self.group.delivery.path)
            ):
                error.add_note(late)
            if isinstance(error, FileNotFoundError) and (here := missing_modules.found_here(error)):
                error.add_note(here)
        elif self.group.results is not None:
            self.group.keep(self, value)
        return value, error


@dataclass(slots=True, eq=False)
class GroupState:
    """What the entries of a group share.

    With a budget, `results` are those that there are so far, by the index of the task; None if they are not kept. If
    `several`, each call returns a list of those of its tasks.
    """

    number: int
    limit: int | None
    delivery: CompletionThread
    results: dict[int, Any] | None = None
    several: bool = False
    interruption: BudgetExceeded | None = None

    def keep(self, entry: PendingCall, value: Any) -> None:
        """Keep a result, or those of several tasks."""
        assert self.results is not None
        self.results |= dict(enumerate(value, entry.first)) if self.several else {entry.first: value}

    def interrupted(self, error: BudgetExceeded) -> BudgetExceeded:
        """Return what the group's callers are told when the money is used up: with the results so far."""
        if self.interruption is None:
            self.interruption = BudgetExceeded(str(error), self.results)
        return self.interruption
