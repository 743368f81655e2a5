"""joblib's backend contract on a pool; `joblib_node` is its other end.

A `Parallel` call is a `TaskGroup`; a batch of joblib is one call of `run_batch`. Batches are sized by the time they
took on their slot, not by the time they spent in queues. Under joblib's lock a batch is only noted: it is packed and
sent by the thread of its group, which is also the one that gives joblib the results.
"""

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing import TimeoutError
from typing import Any, ClassVar

from joblib import parallel as joblib_parallel
from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
)

from skyward.calls.iterable_length import length_of
from skyward.errors import InvalidArgument, NoCompute, NotPortable, RemoteError
from skyward.plugins import joblib_names
from skyward.plugins.joblib_errors import name_task
from skyward.plugins.joblib_names import Block, processors
from skyward.plugins.joblib_node import BACKEND_NAME, batch_shown, nested, run_batch
from skyward.plugins.plugin import Pool
from skyward.plugins.side_effects import returns_nothing
from skyward.remote import call_repr
from skyward.remote.serialization.arrays import Mode
from skyward.remote.serialization.exceptions import contained

MAX_NBYTES = 1 << 20
"""What joblib gives as `max_nbytes` where the user gave nothing."""

IGNORED = frozenset(["context", "require", "temp_folder", "verbose"])
"""What joblib gives to every backend and this one has no use for: it shares memory, so nothing is written to a disk."""

PRE_DISPATCH = "2 * n_jobs"
"""What joblib has as `pre_dispatch` where the user gave nothing."""

MAX_DEPTH = 6
"""Batches for each job of a call, at most, that joblib is asked for ahead of its own default."""

DEPTH_CHECK_BATCHES = 64
"""Batches after which it is looked at again how many are worth having."""


class SkywardBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """joblib's end of a pool; `backend_of` makes a class of it for each pool, as joblib knows backends by class."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    default_n_jobs = -1
    pool: ClassVar[Pool]
    block: ClassVar[Block]

    def __init__(self, nesting_level: int | None = None, *, is_default: bool = False, **parameters: Any) -> None:
        super().__init__(nesting_level=nesting_level, **parameters)
        self.parallel: Any = None
        self._is_default = is_default
        self._prefers_threads = self._may_stay = False
        self._threads: futures.ThreadPoolExecutor | None = None
        self._group: Any = None
        self._limit: int | None = None
        self._threshold: float | None = None
        self._blob_mode: Mode = "r"
        self._jobs = 1
        self._seconds = 0.0
        self._ended = self._wanted = self._extra = 0
        self._counts_on = False
        self._over = threading.Event()
        self._asked: dict[Any, str] = {}  # joblib's trackers of the batches of a call with a timeout, and their tasks

    def __reduce__(self) -> Any:
        return nested, ((self.nesting_level or 0) + 1,)

    # ------------------------------------------------------------ how many

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the number of tasks that run at once: at most every slot; for joblib never 1 unless 1 was requested.

        joblib runs a call with one job in the caller; `_limit` keeps a call on a single slot to that slot.
        """
        if (other := self._elsewhere()) is not None:
            return int(other.effective_n_jobs(n_jobs))
        return 1 if n_jobs == 1 else max(2, self._slots_for(n_jobs))

    def _slots_for(self, n_jobs: int | None) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        slots = self.pool.slots
        if n_jobs is None:
            n_jobs = self.default_n_jobs
        return max(1, slots + 1 + n_jobs) if n_jobs < 0 else min(n_jobs, slots)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        max_nbytes: int | None = MAX_NBYTES,
        prefer: str | None = None,
        mmap_mode: str | None = "r",
        **others: Any,
    ) -> int:
        """Prepare for the calls of `parallel`; joblib passes on whatever the user gave it.

        `max_nbytes` is the size from which on an array is shared, as with loky; None for none: each task may write into
        its own. joblib's own default of it leaves that to the pool. `mmap_mode` says what tasks may do with those.

        A backend serves one `Parallel` object. `parallel_config`, and the block itself, offer the same one to all of
        them: each gets its own.
        """
        if (other := self._elsewhere()) is not None:
            raise FallbackToBackend(other)
        if self._is_default or (self.parallel is not None and self.parallel is not parallel):
            own = type(self)(
                self.nesting_level, inner_max_num_threads=self.inner_max_num_threads, **self.backend_kwargs
            )
            own._may_stay = self._is_default  # joblib ignores `prefer` where a backend is named
            raise FallbackToBackend(own)
        workers = self._slots_for(n_jobs)
        self.parallel = parallel
        self._prefers_threads = prefer == "threads"
        self._jobs = workers
        self._limit = None if workers >= self.pool.slots else workers
        self._threshold = None if max_nbytes in (MAX_NBYTES, None) else max_nbytes
        self._blob_mode = blob_mode(mmap_mode, max_nbytes)
        if unknown := {**self.backend_kwargs, **others}.keys() - IGNORED:
            names = ", ".join(f"{name}=" for name in sorted(unknown))
            warnings.warn(f"joblib's backend {BACKEND_NAME!r} does not know {names}; it is ignored", stacklevel=2)
        return self.effective_n_jobs(n_jobs)

    def _elsewhere(self) -> Any:
        """Return what joblib uses outside the block, in a process that was forked inside it; else None."""
        if self.block.process == os.getpid():
            return None
        return joblib_parallel.BACKENDS[joblib_parallel.DEFAULT_BACKEND](nesting_level=self.nesting_level)

    # ------------------------------------------------------------ one call of Parallel

    def start_call(self) -> None:
        """Open the group of this call."""
        self._group = self.pool.task_group(
            limit=self._limit,
            holds=lambda tasks, *_: len(tasks),
            blob_threshold=self._threshold,
            blob_mode=self._blob_mode,
            keep_results=not self.parallel.return_generator,
        )
        self._over.clear()
        self._asked = {}
        self._ended = self._wanted = self._extra = 0
        self._counts_on = True
        length = length_of(sys._getframe(1).f_locals.get("iterable"))  # nobody but joblib's own call has it
        self._group.count(getattr(self.parallel, "n_tasks", None) if length is None else length)

    def _threads_for(self, function: Callable[..., Any]) -> futures.ThreadPoolExecutor | None:
        """Return threads of this process for a call that prefers them, where its tasks have only side effects."""
        if not self._prefers_threads:
            return None
        name = call_repr.name_of(function)
        if self._may_stay and returns_nothing(function):
            self.block.warn_once(
                "stays in threads",
                'a Parallel call prefers threads (prefer="threads"), and %s returns nothing: such calls run in threads '
                "of this process, not on the pool, because all that they do is write into its objects. "
                'backend="skyward" runs them on the pool',
                name,
            )
            return futures.ThreadPoolExecutor(min(self._jobs, processors()), "skyward-joblib")
        self.block.warn_once(
            "prefers threads",
            'a Parallel call prefers threads (prefer="threads"): its tasks (%s) run on the pool. Their return '
            "values are kept, but what they write into objects of this program is lost. Calls with "
            'require="sharedmem" run in threads of this process',
            name,
        )
        return None

    def stop_call(self) -> None:
        """Close the group, and forget how long batches took."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None
        if self._group is not None:
            self._group.close()
            self._group = None
        self.reset_batch_stats()

    def terminate(self) -> None:
        """Do nothing: the pool stays open."""

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop queued and running calls; the pool and this backend stay usable."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._group is not None:
            self._group.cancel()

    def get_nested_backend(self) -> Any:
        """Nothing that travels with a batch: `run_batch` knows what to use."""
        return None, None

    def submit(self, func: Any, callback: Callable[[Any], None]) -> futures.Future[Any]:
        """Queue a batch, to be sent soon. Errors go to its future; they are never raised here."""
        group, tasks = self._group, func.items
        first = self.parallel.n_dispatched_tasks - len(tasks)
        level = (self.nesting_level or 0) + 1
        future: futures.Future[Any]
        call = run_batch, tasks, level, first, self.inner_max_num_threads
        try:
            functions = [each[0] for each in tasks]
        except TypeError:
            raise TypeError("Parallel takes calls made by delayed: write delayed(f)(x), not f(x)") from None
        if first == 0:
            self._threads = self._threads_for(functions[0])
            if self._threads is not None:
                self._counts_on = False
                group.count(0)
        completed = partial(self._completed, group, callback, first, functions)
        if self.parallel.timeout is not None:
            self._asked[callback] = batch_shown(tasks, level, first, None)
        if self._threads is not None:
            future = futures.Future()
            future.add_done_callback(completed)  # before it may end: never in this stack
            with contextlib.suppress(RuntimeError):  # the call was aborted meanwhile
                self._threads.submit(_run_here, future, call)
            return future
        if not self.block.open:
            future = group.reject(NoCompute("the block of the pool was left before this Parallel call had finished"))
        elif group.busy:
            future = group.post(*call)
        else:  # nobody else wants the lock now
            try:
                future = group.submit(*call)
            except Exception as error:  # noqa: BLE001 - the caller hears of it as of any other
                future = group.reject(error)
        future.add_done_callback(completed)
        return future

    def _completed(
        self,
        group: Any,
        callback: Callable[[Any], None],
        first: int,
        functions: Sequence[object],
        future: Any,
    ) -> None:
        error = None if future.cancelled() else future.exception()
        if self._asked:
            self._asked.pop(callback, None)
        if error is not None and isinstance(error, NotPortable):
            name_task(error, first, functions)
        callback(future)
        parallel = self.parallel
        if self._counts_on and parallel.pre_dispatch != "all":
            self._count(group)
        if error is not None and parallel._aborting:
            group.cancel()  # at once, and again when the caller has heard of it
        if parallel._aborting or not parallel._wait_retrieval():
            self._over.set()
        else:
            self._look_ahead()

    def _count(self, group: Any) -> None:
        """Say how many tasks there are, once joblib has taken all of them from the iterator."""
        if self._counts_on and group is self._group and self.parallel._original_iterator is None:
            self._counts_on = False
            group.count(self.parallel.n_dispatched_tasks)

    def _look_ahead(self) -> None:
        """Have joblib hand over one batch more, where two for each job do not last for the way to a node and back.

        Not where the user says how many are taken from the iterator, or joblib makes its batches as long as they
        should be.
        """
        parallel = self.parallel
        self._ended += 1
        if (
            self._ended % DEPTH_CHECK_BATCHES == 0
            and parallel.pre_dispatch == PRE_DISPATCH
            and parallel.batch_size != "auto"
        ):
            self._wanted = int((min(MAX_DEPTH, self.pool.depth) - 2) * self._jobs)
        if self._extra < self._wanted:
            with parallel._lock:
                if parallel._original_iterator is not None and not parallel._aborting:
                    self._extra += 1
                    parallel.dispatch_next()

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the results of a batch, and note how long it ran."""
        self._seconds = getattr(out, "duration", None) or 0.0
        try:
            return out.result()
        except BaseException as error:
            _check_that_joblib_can_hold(error)
            raise

    def batch_completed(self, batch_size: int, duration: float) -> None:
        """Let joblib size the next batches by the time this one ran, not by `duration`, which counts its queueing."""
        super().batch_completed(batch_size, self._seconds)

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Wait for the whole call before joblib begins to poll every 10 ms, unless joblib must poll.

        joblib's error for a call that takes longer than its timeout gets the name of the task.
        """
        self._count(self._group)  # with pre_dispatch="all" it has taken all by now
        if self.parallel.timeout is None and not self.parallel.return_generator:
            while self.parallel._wait_retrieval() and not self.parallel._aborting:
                self._over.wait(1.0)
        asked = self._asked
        try:
            yield
        except TimeoutError as error:
            late = [told for tracker, told in asked.items() if tracker.status == joblib_parallel.TASK_ERROR]
            if late and not error.args and error.__cause__ is None:  # else it is of a task
                error.args = (call_repr.late("Parallel", self.parallel.timeout, late[0]),)
            raise


def _run_here(future: futures.Future[Any], call: tuple[Any, ...]) -> None:
    """Run a batch in this thread, and put its results into its future."""
    run, *args = call
    try:
        future.set_result(run(*args))
    except BaseException as error:  # noqa: BLE001 - user code; the caller hears of it
        future.set_exception(contained(error))


def blob_mode(mmap_mode: str | None, max_nbytes: int | None) -> Mode:
    """Return what tasks may do with large arrays, for these arguments of `Parallel`.

    Raises
    ------
    InvalidArgument
        joblib knows no such `mmap_mode`.
    """
    match mmap_mode:
        case None | "c":
            return "c"
        case "r" | "r+" | "w+":
            return "c" if max_nbytes is None else "r" if mmap_mode == "r" else "r+"
        case _:
            raise InvalidArgument.of(
                "mmap_mode", mmap_mode, "joblib has no such mode", 'give "r", "r+", "w+", "c" or None'
            )


def _check_that_joblib_can_hold(error: BaseException) -> None:
    """Raise a `RemoteError` from what takes no attribute: joblib sets one, and hangs when that fails."""
    try:
        error.__traceback__ = error.__traceback__
    except Exception:  # noqa: BLE001 - a frozen dataclass, or a `__setattr__` of user code
        label = f"{type(error).__module__}.{type(error).__qualname__}"
        raise RemoteError(label, str(error)) from error


class _NotShared:
    """False, and says so once in the log. joblib asks for the truth of it only where a call requires shared memory."""

    def __init__(self, block: Block) -> None:
        self._block = block

    def __bool__(self) -> bool:
        self._block.warn_once(
            "shared memory",
            'a Parallel call requires shared memory (require="sharedmem"): '
            "such calls run in threads of this process, not on the pool",
        )
        return False


def block_of(pool: Pool) -> Block:
    """Return the block of a pool, with the class of its backends."""
    kind: Any = type(SkywardBackend.__name__, (SkywardBackend,), {"pool": pool, "__module__": __name__})
    # At least 2: joblib runs a call with one job in the caller.
    kind.block = block = Block(kind, max(2, pool.slots))
    kind.supports_sharedmem = _NotShared(block)
    return block


def registered(pool: Pool, take: tuple[str, ...] = ()) -> AbstractContextManager[None]:
    """Make the pool joblib's default backend for a block, and let the names in `take` refer to it as well."""
    return joblib_names.registered(block_of(pool), take)
