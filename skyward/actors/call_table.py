"""The calls of a pool that have not been answered, and the answers on their way to the callers.

The router decides what becomes of a call, and carries it out here. Callers add and cancel calls from their own threads;
everything else runs in the pool's event loop.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any

from skyward.actors import routing
from skyward.actors.router_state import PoolLoad, RouterState
from skyward.actors.utilization import Utilization
from skyward.calls.completion import Answer, Completions, CompletionThread, PendingCall
from skyward.errors import BatchLost as LostError
from skyward.errors import BudgetExceeded, NoCompute, PoolFailed
from skyward.events import BatchesArrived, BatchesCancelled, BatchesLate, BatchLost, BatchRetried, Event
from skyward.telemetry.event_log import EventLog, now
from skyward.telemetry.report import Report

CLOSED = "the pool was closed before this call was answered"


class CallTable:
    """The calls that have not been answered, by number.

    Parameters
    ----------
    prefetch
        As in `Options`.
    retries
        How often a call is tried again whose own options do not say.
    record
        Where it is noted what becomes of calls.

    Attributes
    ----------
    get
        Returns the call with this number, or None when it has been answered or cancelled.
    used
        Whether a call was ever added.
    """

    def __init__(self, prefetch: int | None, retries: int, record: EventLog) -> None:
        self._state = RouterState(prefetch)
        self._usage = Utilization()
        self.used = False
        self._retries, self._record = retries, record
        self._calls: dict[int, PendingCall] = {}
        self.get: Callable[[int], PendingCall | None] = self._calls.get
        self._answers: dict[int, Answer] = {}
        # for each `Submitted` on its way to the router: when its first call began to be packed, and how long all took
        self._arrivals: deque[tuple[float, float]] = deque()
        self._lock = threading.Lock()  # no call is added after the pool has failed or begun to close
        self._failure: BaseException | None = None
        self._closing = False

    # ------------------------------------------------------------ from any thread

    def add(self, calls: list[PendingCall], send: Callable[[list[PendingCall]], None]) -> None:
        """Take these calls, and `send` them to the event loop; they have one group and the same options."""
        with self._lock:
            if isinstance(self._failure, BudgetExceeded):
                raise BudgetExceeded(str(self._failure))
            if self._failure is not None:
                raise PoolFailed(f"the pool has failed: {self._failure}") from self._failure
            if self._closing:
                raise NoCompute(CLOSED)
            try:
                for call in calls:
                    self._calls[call.future.batch] = call
                send(calls)
                self.used = True
            except BaseException:  # Ctrl-C: the caller will not hold these futures
                for call in calls:
                    self._calls.pop(call.future.batch, None)
                raise

    def forget(self, numbers: Iterable[int]) -> tuple[int, ...]:
        """Remove calls that nobody waits for any more; return the numbers of those that had not been answered."""
        return tuple(number for number in numbers if self._calls.pop(number, None) is not None)

    def futures(self) -> list[Future[Any]]:
        """Return the futures of the calls that have not been answered."""
        return [call.future for call in list(self._calls.values())]

    def refuse(self) -> None:
        """Take no more calls."""
        with self._lock:
            self._closing = True

    def close(self) -> None:
        """Fail the calls that were added while the pool closed."""
        self._fail_all(NoCompute(CLOSED))

    # ------------------------------------------------------------ on the event loop

    def fail(self, error: BaseException) -> None:
        """End all work: who waits for a call, now or later, gets `error`."""
        with self._lock:
            self._failure = error
        self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        for number in tuple(self._calls):
            if (call := self._calls.pop(number, None)) is not None:
                call.group.completion.put([(call, error)])

    def arrive(self, calls: Sequence[PendingCall]) -> routing.Submitted:
        """Return what the router is told of calls that were added; they have one group and the same options."""
        first = calls[0]
        group, options = first.group, first.terms
        retries = self._retries if options.retries is None else options.retries
        self._arrivals.append((first.began, sum([call.packing for call in calls])))
        numbers = tuple([call.future.batch for call in calls])
        sizes = tuple([call.size for call in calls])
        self._record.put(BatchesArrived(now(), len(calls), sum([call.tasks for call in calls]), group.number))
        return routing.Submitted(numbers, group.number, group.limit, options.node, retries, sizes)

    def decide(self, event: routing.RoutingEvent) -> tuple[routing.RoutingEffect, ...]:
        """Return what the router does at an event."""
        return routing.step(self._state, event)

    def load(self) -> PoolLoad:
        """Return what waits for slots, and who has nothing to do."""
        return self._state.load()

    def depth(self) -> float:
        """Return how many calls there should be for each slot."""
        return self._state.depth()

    def note(self, event: Event) -> None:
        """Note and count an event."""
        self._usage.counts.add(event)
        self._record.put(event)

    def count_shared(self, node: int, size: int) -> None:
        """Count a large buffer of so many bytes that a node has now, for all its slots."""
        self._usage.share(node, size)

    def count_fetched(self, node: int, size: int) -> None:
        """Count a large result of so many bytes that has come from a node."""
        self._usage.fetch(node, size)

    def keep(self, answers: dict[int, Answer]) -> None:
        """Keep answers until the router says what becomes of them."""
        self._answers.update(answers)

    def settle(self, numbers: Iterable[int]) -> None:
        """Give the callers their answers."""
        ended: dict[CompletionThread, Completions] = {}
        for number in numbers:
            call = self._calls.pop(number, None)
            answer = self._answers.pop(number, None)
            if answer is None:
                continue
            if call is None:  # it was cancelled a moment ago
                self._note_late(answer.node, 1, answer.tasks, [answer])
                continue
            ended.setdefault(call.group.completion, []).append((call, answer))
        for completion, pairs in ended.items():
            self._usage.packing += (opening := completion.opening) - completion.opened
            completion.opened = opening
            completion.put(pairs)

    def discard_late(self, node: int, numbers: Sequence[int]) -> None:
        """Discard the answers of this node to calls that were answered or cancelled before."""
        known = [self._answers[number] for number in numbers if number in self._answers]
        tasks = len(numbers) - len(known) + sum(answer.tasks for answer in known)
        answers = [self._answers.pop(answer.outcome.batch) for answer in known if answer.node == node]
        self._note_late(node, len(numbers), tasks, answers)

    def _note_late(self, node: int, calls: int, tasks: int, answers: Sequence[Answer]) -> None:
        raised = sum(answer.outcome.status != "returned" for answer in answers)
        seconds = round(sum(answer.outcome.seconds for answer in answers), 6)
        self.note(BatchesLate(now(), node, calls, tasks, raised, seconds))

    def retry(self, number: int, cause: str, node: int) -> None:
        """Note that a call is tried again after it died on a node."""
        label = ""
        if (call := self.get(number)) is not None:
            call.attempt += 1
            label = call.label
        self.note(BatchRetried(now(), number, cause, node, label))

    def lose(self, number: int, causes: Sequence[str]) -> None:
        """Tell the caller that the call is lost."""
        if (call := self._calls.pop(number, None)) is not None:
            self.note(BatchLost(now(), number, tuple(causes), call.tasks, call.label))
            call.group.completion.put([(call, LostError.after(causes))])

    def account(self, event: routing.RoutingEvent) -> None:
        """Account for what the router has just been told."""
        usage, state, clock = self._usage, self._state, time.perf_counter()
        match event:
            case routing.Submitted():
                began, packing = self._arrivals.popleft()
                usage.arrive(began, clock, packing)
            case routing.NodeUp(node, slots):
                usage.come(node, slots)
            case routing.NodeRemoved(node):
                usage.go(node)
            case routing.Cancelled(numbers):
                self.note(BatchesCancelled(now(), len(numbers)))
            case _:
                pass
        usage.turn(clock, state.filled, state.slots, open=bool(state.items))

    def stop_accounting(self) -> None:
        """Count no more time: what has not been answered now will not be."""
        self._usage.turn(time.perf_counter(), 0, 0, open=False)

    def report(self) -> Report:
        """Return what was done so far."""
        held = {number: len(node.held) for number, node in self._state.nodes.items()}
        return self._usage.report(time.perf_counter(), now(), held, self._state.deaths)
