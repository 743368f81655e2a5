"""Calls on their way: `TaskGroup` for those that belong together, and what stands for one until it is answered."""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Protocol, Self

from skyward.errors import InvalidArgument, NoCompute
from skyward.remote import blobs, wire
from skyward.remote.function import call_each
from skyward.remote.future import Future
from skyward.remote.packer import Packed, Packer
from skyward.remote.protocol import LARGEST, Outcome
from skyward.remote.terms import DEFAULT, Terms, whole
from skyward.shelf import Seen, Shelf

log = logging.getLogger("skyward")


@dataclass(frozen=True, slots=True)
class Answer:
    """An outcome, the node that it came from, and its result if that is large."""

    outcome: Outcome
    node: int
    result: memoryview | None = None

    def parts(self) -> list[blobs.Buffer]:
        """Return the result as `wire.execute` gave it."""
        if self.result is None:
            return [self.outcome.payload]
        return [*blobs.parted(self.result, self.outcome.sizes)]


type Ended = list[tuple[Entry, Answer | BaseException]]


class Delivery:
    """A thread that opens outcomes and completes futures, so that user code never runs on the pool's event loop.

    Done-callbacks run here, one after the other.

    Attributes
    ----------
    opening
        Seconds spent on opening outcomes; `opened` is how much of it the pool has taken note of.
    """

    def __init__(self, name: str) -> None:
        self.opening = self.opened = 0.0
        self._queue: SimpleQueue[Ended | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, ended: Ended) -> None:
        """Complete the futures of these entries, soon."""
        self._queue.put(ended)

    def close(self) -> None:
        """End the thread after what was put before."""
        self._queue.put(None)

    def join(self) -> None:
        """Wait until it has ended, unless this is a done-callback."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while (ended := self._queue.get()) is not None:
            for entry, answer in ended:
                try:
                    self.opening += entry.complete(answer)
                except BaseException:  # a done-callback of the user; `sys.exit` there must not end this thread
                    log.exception("a done-callback failed")
            del ended, entry, answer  # nothing of them is held while this thread waits


@dataclass(slots=True, eq=False)
class Entry:
    """A call on its way: what the router's numbers stand for.

    It holds so many `tasks`. The caller began to pack it at `began`, which took `packing` seconds.
    """

    future: Future[Any]
    packed: Packed
    functions: dict[str, bytes]
    terms: Terms
    group: "GroupState"
    name: str = "the call"
    tasks: int = 1
    began: float = 0.0
    packing: float = 0.0

    def complete(self, answer: Answer | BaseException) -> float:
        """Give the caller the outcome; one who has cancelled gets nothing. Return the seconds that opening it took."""
        opening = 0.0
        future = self.future
        error: BaseException | None
        value: object = None
        if isinstance(answer, BaseException):
            error = answer
        else:
            outcome = answer.outcome
            future.duration, future.node, future.slot = outcome.seconds, answer.node, outcome.slot
            if outcome.status == "overdue":
                error = TimeoutError(
                    f"{self.name} ran for more than {self.terms.timeout:g} s on its slot and was stopped"
                )
            else:
                began = time.perf_counter()
                value, error = wire.open_outcome("raised" if outcome.status == "raised" else "returned", answer.parts())
                opening = time.perf_counter() - began
        with contextlib.suppress(futures.InvalidStateError):
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
        return opening


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
    shelf
        The large buffers of its calls.
    blob_threshold
        Bytes from which on a buffer is large, unless a group says otherwise.
    """

    @property
    def numbers(self) -> Iterator[int]: ...
    @property
    def shelf(self) -> Shelf: ...
    @property
    def blob_threshold(self) -> float: ...

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

    A large array that comes again, in this call or another one, is not sent again: it is taken as it was when the group
    first met it, unless it is seen to have changed (see `skyward.shelf.Seen`). Calls find it read-only.

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
    blob_threshold
        Bytes from which on an array or `bytes` in the arguments is sent to each node once, and shared by its slots;
        None for what the pool's `Options` say, `math.inf` for never.
    holds
        Says how many tasks a call holds, from its arguments, for the pool's report; None: each is one.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        limit: int | None = None,
        terms: Terms = DEFAULT,
        blob_threshold: float | None = None,
        holds: Callable[..., int] | None = None,
    ) -> None:
        if limit is not None:
            limit = whole("limit", limit, 1, "leave it out for no limit")
            if terms.node is not None:
                raise InvalidArgument(f"limit={limit} and node={terms.node} do not go together; leave one of them out")
        number = next(pool.numbers)
        self._pool, self._terms, self._holds = pool, terms, holds
        self._seen = Seen(pool.shelf)
        self._packer = make_packer(pool, self._seen.put, share=True, threshold=blob_threshold)
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
        NoCompute
            The group or the pool is closed.
        """
        if self._closed:
            raise NoCompute("this group is closed: make another one with compute.task_group()")
        entry = make_entry(self._pool, self._state, self._packer, self._terms, fn, args, kwargs)
        if self._holds is not None:
            entry.tasks = self._holds(*args, **kwargs)
        future = entry.future
        self._pending.add(future)
        future.add_done_callback(self._ended)  # type: ignore[arg-type]
        try:
            self._pool.send([entry])
        except BaseException:
            self._pending.discard(future)
            raise
        return future

    def reject(self, error: BaseException) -> Future[Any]:
        """Return the future of a call that cannot be sent: it fails with `error`, soon and from the group's thread."""
        future: Future[Any] = Future(next(self._pool.numbers), lambda _: None)
        entry = Entry(future, Packed(b"", ()), {}, self._terms, self._state)
        self._state.delivery.put([(entry, error)])
        return future

    def cancel(self) -> None:
        """Stop everything that has not ended; the group takes further calls."""
        pending = [future for future in tuple(self._pending) if futures.Future.cancel(future)]
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
            self._seen.clear()
            self._state.delivery.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.cancel()
        futures.wait(tuple(self._pending))
        self.close()


def make_packer(
    pool: Pool, put: Callable[[memoryview], blobs.Blob], *, share: bool, threshold: float | None = None
) -> Packer:
    """Return a packer for calls of a pool, whose large buffers go to `put`; `threshold` as in `TaskGroup`."""
    limit = pool.blob_threshold if threshold is None else threshold
    if not blobs.AVAILABLE or limit == math.inf:
        return Packer(share=share)
    return Packer(share=share, put=put, threshold=int(limit))


def make_entry(
    pool: Pool,
    state: GroupState,
    packer: Packer,
    terms: Terms,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Entry:
    """Pack a call; raise `NotPortable` or `InvalidArgument` for one that cannot be sent."""
    began = time.perf_counter()
    packed = packer.pack(fn, args, kwargs)
    size = len(packed.payload) + sum(len(packer.functions[name]) for name in packed.functions)
    if size > LARGEST:
        raise InvalidArgument(
            f"the arguments of {fn!r}, with the functions that travel by value, are {size >> 20} MiB; "
            f"one call carries at most {LARGEST >> 20} MiB beside its large arrays and bytes"
        )
    future: Future[Any] = Future(next(pool.numbers), lambda batch: pool.forget((batch,)))
    called = args[0] if fn is call_each else fn
    name = str(getattr(called, "__qualname__", "the call"))
    packing = time.perf_counter() - began
    return Entry(future, packed, packer.functions, terms, state, name, began=began, packing=packing)
