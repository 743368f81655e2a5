"""Where a scenario runs: each backend opens a pool of one shape, and a pool can do two things.

Each library is imported when its backend is asked for, never before. What "100 workers" means differs: Skyward has
10 nodes of 10 slots, Dask 10 processes of 10 threads, loky and Ray 100 processes, threading 100 threads.
"""

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from bench.plan import BatchSize, Plan
from skyward.extras import installer

IDLE_WORKER_TIMEOUT = 300
"""Seconds after which an idle loky worker leaves: what joblib asks for."""


class NotInstalledError(Exception):
    """The library of a backend is not there; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Pool:
    """An open pool: `parallel(tasks, batch_size)` is joblib's, `submit(fn, *args)` the library's own.

    `submit` returns a function that waits for the result.
    """

    parallel: Callable[[Iterable[Any], BatchSize], list[Any]]
    submit: Callable[..., Callable[[], Any]]


@dataclass(frozen=True, slots=True)
class Backend:
    """One library: the modules and the requirement it needs, whose versions matter, and how a pool is opened."""

    modules: tuple[str, ...]
    requirement: str
    packages: tuple[str, ...]
    open: Callable[[Plan], AbstractContextManager[Pool]]

    def load(self) -> None:
        """Import what the backend needs, or say what is missing."""
        load("joblib", "joblib")
        for module in self.modules:
            load(module, self.requirement)


def load(module: str, requirement: str) -> Any:
    """Import a module, or say how to install it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name != module.partition(".")[0]:
            raise
        raise NotInstalledError(f"{missing.name} is not installed here: {installer()} {requirement}") from missing


def _parallel(tasks: Iterable[Any], batch_size: BatchSize, **how: Any) -> list[Any]:
    found: list[Any] = import_module("joblib").Parallel(batch_size=batch_size, **how)(tasks)
    return found


@contextmanager
def _skyward(plan: Plan) -> Iterator[Pool]:
    sky = import_module("skyward")
    with sky.Compute(
        provider=sky.Local(),
        nodes=plan.shape.nodes,
        worker=sky.Worker(concurrency=plan.shape.concurrency, executor=plan.executor),
        plugins=[sky.plugins.joblib()],
    ) as compute:
        yield Pool(
            parallel=lambda tasks, batch_size: _parallel(tasks, batch_size, n_jobs=-1),
            submit=lambda fn, *args: compute.submit(fn, *args).result,
        )


@contextmanager
def _threading(plan: Plan) -> Iterator[Pool]:
    with ThreadPoolExecutor(plan.shape.slots) as threads:
        yield Pool(
            parallel=lambda tasks, batch_size: _parallel(
                tasks, batch_size, n_jobs=plan.shape.slots, backend="threading"
            ),
            submit=lambda fn, *args: threads.submit(fn, *args).result,
        )


@contextmanager
def _loky(plan: Plan) -> Iterator[Pool]:
    loky = import_module("joblib.externals.loky")
    slots = plan.shape.slots

    def submit(fn: Callable[..., Any], *args: Any) -> Any:
        return loky.get_reusable_executor(max_workers=slots, timeout=IDLE_WORKER_TIMEOUT).submit(fn, *args).result

    try:
        yield Pool(
            parallel=lambda tasks, batch_size: _parallel(tasks, batch_size, n_jobs=slots, backend="loky"),
            submit=submit,
        )
    finally:
        running = import_module("joblib.externals.loky.reusable_executor")._executor
        if running is not None:
            running.shutdown(wait=True)


@contextmanager
def _dask(plan: Plan) -> Iterator[Pool]:
    joblib, distributed = import_module("joblib"), import_module("distributed")
    with ExitStack() as stack:
        cluster = stack.enter_context(
            distributed.LocalCluster(
                n_workers=plan.shape.nodes,
                threads_per_worker=plan.shape.concurrency,
                processes=True,
                dashboard_address=None,
                silence_logs=logging.ERROR,
            )
        )
        client = stack.enter_context(distributed.Client(cluster))
        stack.enter_context(joblib.parallel_config(backend="dask"))
        yield Pool(
            parallel=lambda tasks, batch_size: _parallel(tasks, batch_size, n_jobs=-1),
            # pure=False: otherwise the second call with the same argument is answered from memory
            submit=lambda fn, *args: client.submit(fn, *args, pure=False).result,
        )


@contextmanager
def _ray(plan: Plan) -> Iterator[Pool]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    joblib, ray = import_module("joblib"), import_module("ray")
    import_module("ray.util.joblib").register_ray()
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True))
        stack.callback(ray.shutdown)
        ray.init(
            address="local",
            num_cpus=plan.shape.slots,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=scratch,
        )
        stack.enter_context(joblib.parallel_config(backend="ray"))
        actors = _Managed(stack.enter_context(ExitStack()))
        yield Pool(parallel=actors.parallel, submit=_RemoteFunctions(ray, actors).submit)


class _Managed:
    """One `with Parallel(...)` kept open: a plain call would start and end one actor per slot each time."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._open: Any = None

    def parallel(self, tasks: Iterable[Any], batch_size: BatchSize) -> list[Any]:
        if self._open is None:
            self._open = self._stack.enter_context(import_module("joblib").Parallel(n_jobs=-1))
        self._open.batch_size = batch_size
        found: list[Any] = self._open(tasks)
        return found

    def close(self) -> None:
        self._stack.close()
        self._open = None


class _RemoteFunctions:
    """Ray's own calls. The actors of an open `Parallel` hold every CPU, so they have to go first."""

    def __init__(self, ray: Any, actors: _Managed) -> None:
        self._ray, self._actors = ray, actors
        self._known: dict[Callable[..., Any], Any] = {}

    def submit(self, fn: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        self._actors.close()
        if fn not in self._known:
            self._known[fn] = self._ray.remote(fn)
        reference = self._known[fn].remote(*args)
        return lambda: self._ray.get(reference)


BACKENDS = {
    "skyward": Backend((), "", ("skyward", "casty"), _skyward),
    "loky": Backend((), "joblib", ("joblib",), _loky),
    "ray": Backend(("ray", "ray.util.joblib"), "ray", ("ray",), _ray),
    "dask": Backend(("distributed",), "'dask[distributed]'", ("dask", "distributed"), _dask),
    "threading": Backend((), "joblib", ("joblib",), _threading),
}
"""Every backend by the name that `--backend` takes."""
