"""Groups of calls (`TaskGroup`), and the packing of calls."""

import contextlib
import math
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from skyward.calls.blob_store import BlobStore, BufferCache
from skyward.calls.completion import CompletionThreads, GroupState, PendingCall
from skyward.environment import imported_modules
from skyward.environment.user_modules import UserModules
from skyward.errors import InvalidArgument, NoCompute, NotPortable
from skyward.remote import blobs, call_repr, fork_guard
from skyward.remote.call_options import DEFAULT, CallOptions, whole_number
from skyward.remote.function import call_each, name_call
from skyward.remote.future import Future, wait_for_all
from skyward.remote.protocol import MAX_CALL_BYTES
from skyward.remote.serialization.arrays import Mode
from skyward.remote.serialization.packer import Packer

FORKED = "this process was forked from the one that opened this Compute; only that one can use it"


class TaskGroupPool(Protocol):
    """A pool, as groups use it.

    Attributes
    ----------
    numbers
        Numbers for calls and groups, each of which is used once.
    completion_threads
        The threads that complete the futures of its calls.
    blob_store
        The large buffers of its calls.
    blob_threshold
        Size in bytes from which a buffer is large, unless a group sets its own.
    sources
        The user's own modules, if nodes cannot import them by themselves.
    has_budget
        Whether calls may fail because the budget is spent, so that groups keep their results.
    """

    @property
    def numbers(self) -> Iterator[int]: ...
    @property
    def completion_threads(self) -> CompletionThreads: ...
    @property
    def blob_store(self) -> BlobStore: ...
    @property
    def blob_threshold(self) -> float: ...
    @property
    def sources(self) -> UserModules | None: ...
    def reloaded(self) -> tuple[str, ...]:
        """Return the names of bundles that tell nodes which modules to import again."""
        ...

    @property
    def has_budget(self) -> bool: ...

    def reaches(self, token: str) -> bool:
        """Return whether the nodes have the mount with this token (see `skyward.remote.mounts`)."""
        ...

    def send(self, entries: list[PendingCall]) -> None:
        """Run calls of one group with the same options."""
        ...

    def count(self, group: int, tasks: int, *, final: bool) -> None:
        """Set the total number of tasks of a group, -1 if it is not known yet. After `final`, no more will come."""
        ...

    def forget(self, batches: Iterable[int]) -> None:
        """Stop these calls: nobody waits for them any more."""
        ...

    def shown(self, batch: int) -> str:
        """Return a call that has not finished as one line, for an error."""
        ...


class TaskGroup:
    """A group of calls that can have a common limit, can be cancelled together, and share their functions.

    A function that nodes cannot import (one of `__main__`, a closure, a lambda) is pickled when the group first uses
    it, with what it refers to at that time, and sent to each node once.

    A large array that is used again, in this call or another one, is not sent again unless it has changed: for each
    call, the whole array is compared with what was sent. Calls see it read-only.

    Done-callbacks of the group's futures run in the group's own thread. Use it as a context manager: leaving it waits
    for the calls, or cancels them if an exception leaves it.

    Parameters
    ----------
    pool
        The pool that runs the calls.
    limit
        Number of calls that may be on nodes at once; None: no limit.
    terms
        The options of the calls.
    blob_threshold
        Size in bytes from which an array or `bytes` in the arguments is sent to each node once and shared by its slots.
        None: as the pool's `Options` set it; `math.inf`: never.
    holds
        Function that returns the number of tasks of a call from its arguments, for the pool's report. None: each call
        is one task. A call that holds several returns a list.
    keep_results
        Whether results are kept for `BudgetExceeded` if the pool has a budget. Turn it off for groups that may never
        end.
    blob_mode
        What calls may do with large arrays in their arguments: `"r"` read them; `"c"` write into them, each seeing its
        own changes only; `"r+"` write into one copy that all of them see, where all nodes are on this machine.
    """

    def __init__(
        self,
        pool: TaskGroupPool,
        *,
        limit: int | None = None,
        terms: CallOptions = DEFAULT,
        blob_threshold: float | None = None,
        holds: Callable[..., int] | None = None,
        keep_results: bool = True,
        blob_mode: Mode = "r",
    ) -> None:
        if limit is not None:
            limit = whole_number("limit", limit, 1, "leave it out for no limit")
            if terms.node is not None:
                raise InvalidArgument(f"limit={limit} and node={terms.node} do not go together; leave one of them out")
        number = next(pool.numbers)
        self._pool, self._terms, self._holds = pool, terms, holds
        self._seen = BufferCache(pool.blob_store)
        self._packer = make_packer(pool, self._seen.put, share=True, threshold=blob_threshold, mode=blob_mode)
        results: dict[int, Any] | None = {} if pool.has_budget and keep_results else None
        self._state = GroupState(number, limit, pool.completion_threads.acquire(), results, several=holds is not None)
        self._tasks = 0
        self._counted = False
        self._pending: set[Future[Any]] = set()
        self._closed = False
        self._process = os.getpid()
        # also if the group is never closed
        self._let_go = weakref.finalize(self, pool.completion_threads.release, self._state.completion)
        self._let_go.atexit = False

    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn(*args, **kwargs)` on a slot.

        Raises
        ------
        NotPortable
            Something in the call cannot be pickled; the text names it.
        NoCompute
            The group or the pool is closed.
        """
        self._check_open()
        future: Future[T] = make_future(self._pool)
        entry = self._pack(future, fn, args, kwargs)
        self._expect(future)
        try:
            self._pool.send([entry])
        except BaseException:
            self._pending.discard(future)
            raise
        return future

    def post[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Like `submit`, but pack and send the call from the group's thread, so that the caller does not wait.

        If the call cannot be sent, its future fails, from the group's thread.

        Raises
        ------
        NoCompute
            The group is closed.
        """
        self._check_open()
        future: Future[T] = make_future(self._pool)
        self._expect(future)
        self._state.completion.do(partial(self._send, future, fn, args, kwargs, time.monotonic_ns()))
        return future

    def count(self, tasks: int | None) -> None:
        """Set how many tasks the calls of the group will hold in total, for the display of the run.

        None: not known yet. It may be called again; closing the group means that no more tasks will come. If it is
        never called, the total is the number of tasks so far.

        Raises
        ------
        InvalidArgument
            `tasks` is not a whole number, or is negative.
        """
        if tasks is not None:
            tasks = whole_number("tasks", tasks, 0, "give None where it is not known")
        if self._closed:
            return
        self._counted = True
        self._pool.count(self._state.number, -1 if tasks is None else tasks, final=False)

    def reject(self, error: Exception) -> Future[Any]:
        """Return a future that fails with `error`, soon and in the group's thread; no call is sent.

        Raises
        ------
        NoCompute
            The group is closed.
        """
        self._check_open()
        future = make_future(self._pool)
        self._expect(future)
        self._state.completion.do(partial(_fail, future, error))
        return future

    def _check_open(self) -> None:
        if self._process != fork_guard.process():
            raise NoCompute(FORKED)
        if self._closed:
            raise NoCompute("this group is closed: make another one with compute.task_group()")

    def _expect(self, future: Future[Any]) -> None:
        self._pending.add(future)
        future.add_done_callback(self._ended)  # type: ignore[arg-type]

    def _pack(
        self, future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> PendingCall:
        entry = make_entry(self._state, self._packer, self._terms, future, fn, args, kwargs)
        if self._holds is not None:
            entry.tasks = self._holds(*args, **kwargs)
        entry.first = self._tasks
        self._tasks += entry.tasks
        return entry

    def _send(
        self, future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], posted: int
    ) -> None:
        if future not in self._pending:  # cancelled
            return
        try:
            with self._seen.handed_over(posted):
                entry = self._pack(future, fn, args, kwargs)
            self._pool.send([entry])
        except Exception as error:  # noqa: BLE001 - the caller has returned already
            _fail(future, error)
        if future not in self._pending and future.cancelled():  # before the pool knew of it
            self._pool.forget((future.batch,))

    @property
    def busy(self) -> bool:
        """Whether some calls have not finished. Its cost does not depend on their number."""
        return bool(self._pending)

    @property
    def pending(self) -> tuple[Future[Any], ...]:
        """The futures of the calls that have not finished."""
        return tuple(self._pending)

    def shown(self, future: Future[Any]) -> str:
        """Return a call that has not finished as one line, for an error."""
        return self._pool.shown(future.batch)

    def cancel(self) -> None:
        """Stop all calls that have not finished; the group accepts further calls."""
        pending = [future for future in self.pending if futures.Future.cancel(future)]
        for future in pending:
            with contextlib.suppress(futures.InvalidStateError, RuntimeError):
                future.set_running_or_notify_cancel()
        self._pool.forget([future.batch for future in pending])

    def close(self) -> None:
        """Release the pickled functions and the thread of the group. Calls that have not finished continue."""
        if self._counted and not self._closed:
            self._pool.count(self._state.number, self._tasks, final=True)
        self._closed = True
        self._end_if_over()

    def _ended(self, future: Future[Any]) -> None:
        self._pending.discard(future)
        if self._closed:
            self._end_if_over()

    def _end_if_over(self) -> None:
        if not self._pending:
            self._seen.clear()
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.cancel()
        wait_for_all(self.pending)
        self.close()


def results_in_order[T](
    group: TaskGroup, chunks: list[Future[list[T]]], timeout: float | None, end: float | None
) -> Iterator[T]:
    """Yield the results of the chunks of a `map`; cancel the rest at time `end`, or if the iterator is closed."""
    first = 0
    try:
        chunks.reverse()
        while chunks:
            chunk = chunks.pop()
            try:
                results = chunk.result(None if end is None else end - time.monotonic())
            except TimeoutError:
                if chunk.done():  # raised by the call itself
                    raise
                raise TimeoutError(call_repr.late("map", timeout or 0, f"task {first}, {group.shown(chunk)}")) from None
            first += len(results)
            yield from results
    finally:
        group.cancel()


def make_packer(
    pool: TaskGroupPool,
    put: Callable[[memoryview], blobs.Blob],
    *,
    share: bool,
    threshold: float | None = None,
    mode: Mode = "r",
) -> Packer:
    """Return a packer for the calls of a pool, which passes large buffers to `put`; the rest as in `TaskGroup`."""
    limit = pool.blob_threshold if threshold is None else threshold
    has_blobs = blobs.AVAILABLE and limit != math.inf
    return Packer(
        share=share,
        put=put if has_blobs else None,
        threshold=int(limit) if has_blobs else 0,
        bundles=None if pool.sources is None else pool.sources.needed,
        reloaded=pool.reloaded,
        reaches=pool.reaches,
        mode=mode if has_blobs else "r",
        imports=imported_modules.import_list,
    )


def _fail(future: Future[Any], error: Exception) -> None:
    with contextlib.suppress(futures.InvalidStateError):  # cancelled
        future.set_exception(error)


def make_future(pool: TaskGroupPool) -> Future[Any]:
    """Return the future of a new call."""
    return Future(next(pool.numbers), lambda batch: pool.forget((batch,)))


def check_function(fn: object) -> None:
    """Raise `InvalidArgument` for an object that cannot be called, such as the result of the intended function."""
    if not callable(fn):
        fix = "give the function first, without calling it, then its arguments: submit(f, x), map(f, xs)"
        raise InvalidArgument.of("fn", fn, "cannot be called", fix)


def make_entry(
    state: GroupState,
    packer: Packer,
    terms: CallOptions,
    future: Future[Any],
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> PendingCall:
    """Pack a call; raise `NotPortable` or `InvalidArgument` for one that cannot be sent."""
    check_function(fn)
    began = time.perf_counter()
    try:
        packed = packer.pack(fn, args, kwargs)
    except NotPortable as error:
        if fn is call_each:
            name_call(error, *args)
        raise
    size = len(packed.payload) + sum(map(len, packed.functions.values()))
    if size > MAX_CALL_BYTES:
        raise InvalidArgument(
            f"the arguments of {fn!r}, with the functions that are sent by value, are {size >> 20} MiB; "
            f"one call carries at most {MAX_CALL_BYTES >> 20} MiB beside its large arrays and bytes"
        )
    brought = len(packed.payload) + sum(blob.charge() for blob in packed.blobs)
    packing = time.perf_counter() - began
    return PendingCall(
        future, packed, terms, state, call_repr.function(fn, args), size=brought, began=began, packing=packing
    )
