"""joblib's backend contract on a pool: the only module that imports joblib.

A `Parallel` call is a `TaskGroup`; a batch of joblib is one call of `run_batch`. Batches are sized by the time they
took on their slot, not by the time they spent in queues.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

from joblib import parallel as joblib_parallel
from joblib.parallel import (
    AutoBatchingMixin,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
    parallel_config,
    register_parallel_backend,
)

from skyward.plugins.plugin import Pool

NAME = "skyward"
"""The name of the backend, as in `Parallel(backend="skyward")`."""

type _Tasks = list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]


def run_batch(tasks: _Tasks, nesting_level: int) -> list[Any]:
    """Run a batch on its slot. `Parallel` calls in the tasks use threads, and below that nothing, as in loky."""
    with parallel_config(backend=_nested(nesting_level), n_jobs=None):
        return [function(*args, **kwargs) for function, args, kwargs in tasks]


@functools.cache
def _nested(level: int) -> ParallelBackendBase:
    kind = ThreadingBackend if level <= 1 else SequentialBackend
    return kind(nesting_level=level)


class SkywardBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """joblib's end of a pool."""

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self, pool: Pool, nesting_level: int | None = None, **parameters: Any) -> None:
        super().__init__(nesting_level=nesting_level, **parameters)
        self.pool = pool
        self.parallel: Any = None
        self._group: Any = None
        self._limit: int | None = None
        self._seconds = 0.0
        self._over = threading.Event()

    # ------------------------------------------------------------ how many

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many tasks run at once: at most every slot; for joblib never 1 unless 1 was asked for.

        joblib runs a call with one job in the caller; `_limit` keeps a call on a single slot to that slot.
        """
        return 1 if n_jobs == 1 else max(2, self._workers(n_jobs))

    def _workers(self, n_jobs: int | None) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        slots = self.pool.slots
        if n_jobs is None:
            n_jobs = self.default_n_jobs
        return max(1, slots + 1 + n_jobs) if n_jobs < 0 else min(n_jobs, slots)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Get ready for the calls of `parallel`; joblib passes on whatever the user gave it."""
        self.parallel = parallel
        workers = self._workers(n_jobs)
        self._limit = None if workers >= self.pool.slots else workers
        return self.effective_n_jobs(n_jobs)

    # ------------------------------------------------------------ one call of Parallel

    def start_call(self) -> None:
        """Open the group of this call."""
        self._group = self.pool.task_group(limit=self._limit, holds=lambda tasks, _: len(tasks))
        self._over.clear()

    def stop_call(self) -> None:
        """Close the group, and forget how long batches took."""
        if self._group is not None:
            self._group.close()
            self._group = None
        self.reset_batch_stats()

    def terminate(self) -> None:
        """Nothing: the pool goes on."""

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop what waits and what runs; the pool and this backend stay usable."""
        if self._group is not None:
            self._group.cancel()

    def get_nested_backend(self) -> Any:
        """Nothing that travels with a batch: `run_batch` knows what to use."""
        return None, None

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> futures.Future[Any]:
        """Send a batch. What goes wrong is in the future, never raised: joblib would not hear of it in a callback."""
        try:
            future: futures.Future[Any] = self._group.submit(run_batch, func.items, (self.nesting_level or 0) + 1)
        except Exception as error:  # noqa: BLE001 - it reaches the caller through the future
            future = self._group.reject(error)
        if callback is not None:
            future.add_done_callback(lambda done: self._completed(callback, done))
        return future

    def _completed(self, callback: Callable[[Any], None], future: Any) -> None:
        callback(future)
        if self.parallel._aborting or not self.parallel._wait_retrieval():
            self._over.set()

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the results of a batch, and note how long it ran."""
        self._seconds = out.duration or 0.0
        return out.result()

    def batch_completed(self, batch_size: int, duration: float) -> None:
        """Let joblib size the next batches by the time this one ran, not by `duration`, which counts its queueing."""
        super().batch_completed(batch_size, self._seconds)

    @contextlib.contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Wait for the whole call before joblib begins to look every 10 ms; not where it must look itself."""
        if self.parallel.timeout is None and not self.parallel.return_generator:
            while self.parallel._wait_retrieval() and not self.parallel._aborting:
                self._over.wait(1.0)
        yield


class _Factory:
    """What joblib calls for a backend of this pool. It remembers what it replaced."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.open = pool, True
        self.default = joblib_parallel.DEFAULT_BACKEND
        self.replaced = joblib_parallel.BACKENDS.get(NAME)

    def __call__(self, **parameters: Any) -> SkywardBackend:
        return SkywardBackend(self.pool, **parameters)


@contextlib.contextmanager
def registered(pool: Pool) -> Iterator[None]:
    """Make the pool joblib's default backend, in every thread; then restore what was there, also when blocks overlap.

    In the thread that enters, the backend is also set by `parallel_config`, which is stronger: there it wins over
    `prefer="threads"`.
    """
    factory = _Factory(pool)
    register_parallel_backend(NAME, factory, make_default=True)
    config = parallel_config(backend=NAME)
    thread = threading.get_ident()
    try:
        yield
    finally:
        if threading.get_ident() == thread:
            config.unregister()
        factory.open = False
        while isinstance(current := joblib_parallel.BACKENDS.get(NAME), _Factory) and not current.open:
            if joblib_parallel.DEFAULT_BACKEND == NAME:
                joblib_parallel.DEFAULT_BACKEND = current.default
            if current.replaced is None:
                del joblib_parallel.BACKENDS[NAME]
            else:
                joblib_parallel.BACKENDS[NAME] = current.replaced
