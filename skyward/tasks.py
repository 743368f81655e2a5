"""Calls on their way: `TaskGroup` for those that belong together, and what stands for one until it is answered."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Protocol, Self

from skyward.errors import InvalidArgument
from skyward.remote import wire
from skyward.remote.function import DEFAULT, Terms
from skyward.remote.future import Future
from skyward.remote.protocol import LARGEST, Outcome


class Delivery:
    """A thread that opens outcomes and completes futures, so that user code never runs on the pool's event loop.

    Done-callbacks run here, one after the other. What else is to be done comes after the outcomes that are there.
    """

    def __init__(self, name: str) -> None:
        self._ended: deque[list[tuple[Entry, Outcome | BaseException, int | None]]] = deque()
        self._work: deque[Callable[[], None]] = deque()
        self._turns: SimpleQueue[bool] = SimpleQueue()  # True for each of the above, False at the end
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, ended: list[tuple["Entry", Outcome | BaseException, int | None]]) -> None:
        """Complete the futures of these entries, soon, each with the outcome and the node it came from."""
        self._ended.append(ended)
        self._turns.put(True)

    def do(self, work: Callable[[], None]) -> None:
        """Do this when there are no outcomes to be given. It never raises."""
        self._work.append(work)
        self._turns.put(True)

    def close(self) -> None:
        """End the thread after what was put before."""
        self._turns.put(False)

    def _run(self) -> None:
        while self._turns.get():
            if self._ended:
                _complete(self._ended.popleft())
            else:
                self._work.popleft()()


def _complete(ended: list[tuple["Entry", Outcome | BaseException, int | None]]) -> None:
    for entry, outcome, node in ended:
        entry.complete(outcome, node)


@dataclass(slots=True, eq=False)
class Entry:
    """A call on its way: what the router's numbers stand for."""

    future: Future[Any]
    packed: wire.Packed
    functions: dict[str, bytes]
    terms: Terms
    group: "GroupState"

    def complete(self, outcome: Outcome | BaseException, node: int | None) -> None:
        """Give the caller the outcome. One who has cancelled gets nothing."""
        future = self.future
        error: BaseException | None
        value: object = None
        if isinstance(outcome, BaseException):
            error = outcome
        else:
            future.duration, future.node, future.slot = outcome.seconds, node, outcome.slot
            if outcome.status == "overdue":
                error = TimeoutError(f"the call ran for more than {self.terms.timeout:g} s on its slot and was stopped")
            else:
                value, error = wire.open_outcome(
                    "raised" if outcome.status == "raised" else "returned", outcome.payload
                )
        with contextlib.suppress(futures.InvalidStateError):
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)


@dataclass(slots=True, eq=False)
class GroupState:
    """What the entries of a group share."""

    number: int
    limit: int | None
    delivery: Delivery


class Pool(Protocol):
    """The end of a pool that groups talk to.

    Attributes
    ----------
    numbers
        Gives a number that the pool has not used for a call or a group.
    """

    @property
    def numbers(self) -> Iterator[int]: ...

    def send(self, entries: list[Entry]) -> None:
        """Run these; they have one group and the same terms."""
        ...

    def forget(self, batches: Iterable[int]) -> None:
        """Nobody waits for these any more."""
        ...

    def drop(self, functions: Iterable[str]) -> None:
        """No call will need these functions again."""
        ...


class TaskGroup:
    """Calls that belong together: they may have a limit, are cancelled together, and share their functions.

    A function that nodes cannot import (of `__main__`, a closure, a lambda) is pickled the first time that the group
    meets it, and sent to each node once: what it refers to is taken as it was then.

    Done-callbacks of the group's futures run in a thread of the group's own. Use it as a context manager: leaving it
    waits for the calls, or, when left by an exception, cancels them.

    Parameters
    ----------
    pool
        Where the calls go.
    limit
        How many of the calls may be on nodes at once; None for no limit.
    terms
        What they run under.
    """

    def __init__(self, pool: Pool, *, limit: int | None = None, terms: Terms = DEFAULT) -> None:
        if limit is not None and limit < 1:
            raise InvalidArgument(f"limit={limit!r}: must be at least 1; leave it out for no limit")
        number = next(pool.numbers)
        self._pool, self._terms = pool, terms
        self._packer = wire.Packer()
        self._state = GroupState(number, limit, Delivery(f"skyward-results-{number}"))
        self._pending: set[Future[Any]] = set()
        self._closed = self._finished = False
        self._lock = threading.Lock()

    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn(*args, **kwargs)` on a slot.

        Raises
        ------
        NotPortable
            Something in the call cannot be pickled; the text names it.
        """
        future: Future[T] = make_future(self._pool)
        entry = make_entry(self._state, self._packer, self._terms, future, fn, args, kwargs)
        self._pending.add(future)
        future.add_done_callback(self._ended)  # type: ignore[arg-type]
        self._pool.send([entry])
        return future

    def post[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do what `submit` does, but pack and send the call from the group's thread, which costs the caller nothing.

        It never raises: a call that cannot be sent fails its future, from the group's thread.
        """
        future: Future[T] = make_future(self._pool)
        self._pending.add(future)
        future.add_done_callback(self._ended)  # type: ignore[arg-type]
        self._state.delivery.do(partial(self._send, future, fn, args, kwargs))
        return future

    def reject(self, error: Exception) -> Future[Any]:
        """Return the future of a call that is not made: it fails with `error`, soon and from the group's thread."""
        future = make_future(self._pool)
        self._pending.add(future)
        future.add_done_callback(self._ended)  # type: ignore[arg-type]
        self._state.delivery.do(partial(_fail, future, error))
        return future

    def _send(self, future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if future.done():
            return
        try:
            self._pool.send([make_entry(self._state, self._packer, self._terms, future, fn, args, kwargs)])
        except Exception as error:  # noqa: BLE001 - nobody above would hear of it
            _fail(future, error)
        if future.cancelled():  # meanwhile, when the pool did not know of it yet
            self._pool.forget((future.batch,))

    @property
    def pending(self) -> tuple[Future[Any], ...]:
        """The futures of the calls that have not ended."""
        return tuple(self._pending)

    def cancel(self) -> None:
        """Stop everything that has not ended; the group takes further calls."""
        pending = [future for future in self.pending if futures.Future.cancel(future)]
        for future in pending:
            with contextlib.suppress(futures.InvalidStateError, RuntimeError):
                future.set_running_or_notify_cancel()
        self._pool.forget([future.batch for future in pending])

    def close(self) -> None:
        """Let go of the group's functions and thread. Calls that have not ended go on."""
        self._closed = True
        self._finish_if_over()

    def _ended(self, future: Future[Any]) -> None:
        self._pending.discard(future)
        if self._closed:
            self._finish_if_over()

    def _finish_if_over(self) -> None:
        with self._lock:
            over = self._closed and not self._finished and not self._pending
            self._finished = self._finished or over
        if over:
            self._pool.drop(self._packer.functions)
            self._state.delivery.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.cancel()
        futures.wait(self.pending)
        self.close()


def _fail(future: Future[Any], error: Exception) -> None:
    with contextlib.suppress(futures.InvalidStateError):  # it was cancelled
        future.set_exception(error)


def make_future(pool: Pool) -> Future[Any]:
    """Return what stands for a call with the pool's next number."""
    return Future(next(pool.numbers), lambda batch: pool.forget((batch,)))


def make_entry(
    state: GroupState,
    packer: wire.Packer,
    terms: Terms,
    future: Future[Any],
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Entry:
    """Pack a call; raise `NotPortable` or `InvalidArgument` for one that cannot be sent."""
    packed = packer.pack(fn, args, kwargs)
    if len(packed.payload) > LARGEST:
        size, limit = len(packed.payload) >> 20, LARGEST >> 20
        raise InvalidArgument(f"the arguments of {fn!r} are {size} MiB; one call carries at most {limit} MiB")
    return Entry(future, packed, packer.functions, terms, state)
