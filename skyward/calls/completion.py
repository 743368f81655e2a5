"""Complete the futures of calls: a `PendingCall` is a call, and a `CompletionThread` gives it its answer."""

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

MAX_IDLE_THREADS = 8
"""Idle threads that are kept for further groups."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An outcome, the node that it came from, the number of its tasks, and its result if it is large."""

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
    """A thread that unpickles outcomes and completes futures, so that user code never runs on the pool's event loop.

    Done-callbacks run here, one after the other. Work of `do` waits until all outcomes have been processed.

    Attributes
    ----------
    opening
        Seconds spent on unpickling outcomes; `opened` is the part of it that the pool has counted.
    path
        `sys.path` when the pool was opened.
    """

    def __init__(self, name: str, path: Sequence[str] = ()) -> None:
        self.path = path
        self.opening = self.opened = 0.0
        self._ended: deque[Completions] = deque()
        self._work: deque[Callable[[], None]] = deque()
        self._turns: SimpleQueue[bool] = SimpleQueue()  # True for each item of the queues above, False to stop
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, ended: Completions) -> None:
        """Complete the futures of these calls, soon."""
        self._ended.append(ended)
        self._turns.put(True)

    def do(self, work: Callable[[], None]) -> None:
        """Run this when no outcomes are waiting."""
        self._work.append(work)
        self._turns.put(True)

    def close(self) -> None:
        """Stop the thread after the work that was queued before."""
        self._turns.put(False)

    def join(self) -> None:
        """Wait until the thread has stopped, unless called from it, as by a done-callback."""
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
                log.exception("could not deliver a result")

    def _complete(self, ended: Completions) -> None:
        for entry, answer in ended:
            try:
                self.opening += entry.complete(answer)
            except BaseException:  # a done-callback of the user; `sys.exit` there must not end this thread
                log.exception("a done-callback failed")


class CompletionThreads:
    """The completion threads of a pool, one per group. Idle ones are reused, as starting a thread takes time."""

    def __init__(self, name: str) -> None:
        self._name, self._path = name, tuple(sys.path)
        self._numbers = itertools.count(1)
        self._idle: deque[CompletionThread] = deque()
        self._closed = False

    def acquire(self) -> CompletionThread:
        """Return a thread that no other group uses."""
        try:
            return self._idle.pop()
        except IndexError:
            return CompletionThread(f"{self._name}-{next(self._numbers)}", self._path)

    def release(self, thread: CompletionThread) -> None:
        """Allow reuse of a thread, once it has finished its work."""
        thread.do(partial(self._keep, thread))

    def close(self) -> None:
        """Stop the idle threads, and each of the others when it is released."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _keep(self, thread: CompletionThread) -> None:
        if self._closed or len(self._idle) >= MAX_IDLE_THREADS:
            thread.close()
        else:
            self._idle.append(thread)


@dataclass(slots=True, eq=False)
class PendingCall:
    """A call that has not finished.

    Attributes
    ----------
    terms
        Its options.
    name
        The name of its function.
    tasks, first
        The number of its tasks, and the index of the first one in its group, if the group counts tasks.
    attempt
        Which attempt this is, from 1.
    size
        Bytes that it adds to those of earlier calls.
    began, packing
        When packing it began, and the seconds that it took.
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
        """The call as events name it, without its arguments: `train, task 17`."""
        return label(self.future.batch, self.name, self.first, self.tasks)

    def shown(self) -> str:
        """Return the call as one line, for an error."""
        text = "" if self.packed.blobs else call_codec.shown_call(self.packed.payload, self.packed.functions)
        return text or self.label

    def place(self, error: BaseException, answer: Answer) -> None:
        """Add a note that says where the call raised."""
        again = f", attempt {self.attempt}" if self.attempt > 1 else ""
        with contextlib.suppress(Exception):  # `add_note` may be user code
            error.add_note(f"That was on node {answer.node}, slot {answer.outcome.slot}{again}.")

    def complete(self, answer: Answer | BaseException) -> float:
        """Complete the future, unless it was cancelled. Return the seconds that unpickling the outcome took."""
        began = time.perf_counter()
        try:
            value, error = self._open(answer)
        except BaseException as wrong:  # noqa: BLE001 - user code, whose error is the outcome
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
            return None, BatchLost.after(answer.causes, self.shown(), self.tasks)
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
                late := missing_modules.found_since(error, self.group.completion.path)
            ):
                error.add_note(late)
            if isinstance(error, FileNotFoundError) and (here := missing_modules.found_here(error)):
                error.add_note(here)
        elif self.group.results is not None:
            self.group.keep(self, value)
        return value, error


@dataclass(slots=True, eq=False)
class GroupState:
    """What the calls of a group share.

    `results` are those so far, by the index of the task, or None if they are not kept. If `several`, each call returns
    a list with the results of its tasks.
    """

    number: int
    limit: int | None
    completion: CompletionThread
    results: dict[int, Any] | None = None
    several: bool = False
    interruption: BudgetExceeded | None = None

    def keep(self, entry: PendingCall, value: Any) -> None:
        """Store the result of a call."""
        assert self.results is not None
        self.results |= dict(enumerate(value, entry.first)) if self.several else {entry.first: value}

    def interrupted(self, error: BudgetExceeded) -> BudgetExceeded:
        """Return the error of the group's calls when the budget is spent, with the results so far."""
        if self.interruption is None:
            self.interruption = BudgetExceeded(str(error), self.results)
        return self.interruption
