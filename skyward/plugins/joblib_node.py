"""joblib's contract on a node: what a slot does with a batch, and with the `Parallel` calls inside its tasks."""

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from joblib import parallel as joblib_parallel
from joblib.parallel import ParallelBackendBase, SequentialBackend, ThreadingBackend

from skyward.remote import call_repr, fork_guard

BACKEND_NAME = "skyward"
"""The name of the backend, as in `Parallel(backend="skyward")`."""

type Tasks = list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]


def batch_shown(tasks: Tasks, level: int, first: int, threads: int | None) -> str:
    """Say which tasks of a `Parallel` call a batch holds."""
    shown = call_repr.call(*tasks[0])
    last = first + len(tasks) - 1
    return f"task {first}, {shown}" if last == first else f"tasks {first} to {last} (the first is {shown})"


def run_batch(tasks: Tasks, level: int, first: int, threads: int | None) -> list[Any]:
    """Run a batch on its slot.

    Parameters
    ----------
    tasks
        Functions with their arguments, as `joblib.delayed` gives them.
    level
        How deep in `Parallel` calls the tasks are.
    first
        The number of the first one in its `Parallel` call.
    threads
        How many threads numerical libraries may use meanwhile; None for the slot's share of the node's processors.
    """
    results: list[Any] = []
    process = fork_guard.process()
    try:
        with _Nested(level), _limits().to(threads):
            for function, args, kwargs in tasks:
                results.append(function(*args, **kwargs))
                fork_guard.end_if_forked(process, None)
    except BaseException as error:
        call_repr.noted(error, f"task {first + len(results)}, {call_repr.call(*tasks[len(results)])}")
        raise
    return results


run_batch.shows = batch_shown  # type: ignore[attr-defined]
run_batch.runs = lambda tasks, *_: tasks[0][0]  # type: ignore[attr-defined]
run_batch.steps = 4  # type: ignore[attr-defined] # from the call to an argument of a task: `args[0][2][1][0]`


def task(number: int, function: object) -> str:
    """What an error calls a task."""
    return f"task {number} ({call_repr.name_of(function)})"


def nested(nesting_level: int | None = None, **_: Any) -> ParallelBackendBase:
    """Return what `Parallel` calls in tasks use: threads, and below that nothing, as in loky."""
    kind = SequentialBackend if (nesting_level or 0) > 1 else ThreadingBackend
    return kind(nesting_level=nesting_level)


class _Nested:
    """Has the `Parallel` calls in a batch use `nested`: `joblib.parallel_config`, which takes 10 µs, in two of them."""

    __slots__ = ("_before", "_level")

    def __init__(self, level: int) -> None:
        self._level = level

    def __enter__(self) -> None:
        here = joblib_parallel._backend
        self._before = getattr(here, "config", joblib_parallel.default_parallel_config)
        here.config = {**self._before, "backend": nested(self._level), "n_jobs": None}

    def __exit__(self, *raised: object) -> None:
        joblib_parallel._backend.config = self._before


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Make the backend's name known in a worker: `Parallel(backend="skyward")` in a task runs in the slot."""
    joblib_parallel.BACKENDS[BACKEND_NAME] = nested
    try:
        yield
    finally:
        del joblib_parallel.BACKENDS[BACKEND_NAME]


class _ThreadPoolLimits:
    """Holds the thread pools of this process at a size for as long as a batch runs that asked for it.

    Thread slots share the process and its pools: the first of them that asks decides, the last one gives back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._undo: contextlib.ExitStack = contextlib.ExitStack()

    def to(self, threads: int | None) -> AbstractContextManager[None]:
        """Hold them at `threads`; None leaves them alone."""
        return contextlib.nullcontext() if threads is None else self._to(threads)

    @contextlib.contextmanager
    def _to(self, threads: int) -> Iterator[None]:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._undo.enter_context(_held(threads))
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._undo.close()


@functools.cache
def _limits() -> _ThreadPoolLimits:
    return _ThreadPoolLimits()


@contextlib.contextmanager
def _held(threads: int) -> Iterator[None]:
    """Set the variables, for libraries still to be loaded, and the pools of those that are."""
    names = ParallelBackendBase.MAX_NUM_THREADS_VARS
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:  # then the variables must do
        ThreadpoolController = None  # noqa: N806
    loaded = len(sys.modules)
    controller = ThreadpoolController and ThreadpoolController()
    try:
        with controller.limit(limits=threads) if controller else contextlib.nullcontext():
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if controller and len(sys.modules) > loaded:  # a library that came meanwhile keeps to the limit it met
            known = {library.filepath for library in controller.lib_controllers}
            for library in ThreadpoolController().lib_controllers:
                if library.filepath not in known:
                    library.set_num_threads(int(before["OMP_NUM_THREADS"] or 1))
