"""The meaning of joblib's backend names inside a block, in every thread; `joblib_backend` is the backend.

joblib has one table of backends, and a default for each parameter of `Parallel`. A block changes both for the whole
process and restores them. A process forked inside the block has them as they are outside.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import joblib
from joblib import parallel as joblib_parallel
from joblib.parallel import parallel_config

from skyward.plugins.joblib_node import BACKEND_NAME

log = logging.getLogger("skyward")

PROCESS_BACKENDS = ("loky", "multiprocessing")
"""joblib's backends that run tasks in other processes: what `take=` may name."""

SHARED_MEMORY = "skyward-sharedmem"
"""The name of the threads that run calls with `require="sharedmem"`."""


@dataclass(frozen=True, slots=True)
class Names:
    """What joblib uses: its table of backends, as far as a block changes it, and the defaults of its parameters."""

    backends: Mapping[str, Any]
    default_backend: str
    thread_backend: str
    backend: Any = None
    n_jobs: int | None = None

    @staticmethod
    def now() -> "Names":
        """Return what joblib uses now."""
        names = (BACKEND_NAME, SHARED_MEMORY, "threading", *PROCESS_BACKENDS)
        defaults = joblib_parallel.default_parallel_config
        return Names(
            {name: joblib_parallel.BACKENDS.get(name) for name in names},
            joblib_parallel.DEFAULT_BACKEND,
            joblib_parallel.DEFAULT_THREAD_BACKEND,
            defaults["backend"].default_value,
            defaults["n_jobs"].default_value,
        )

    def set(self) -> None:
        """Make joblib use this."""
        for name, kind in self.backends.items():
            if kind is None:
                joblib_parallel.BACKENDS.pop(name, None)
            else:
                joblib_parallel.BACKENDS[name] = kind
        joblib_parallel.DEFAULT_BACKEND = self.default_backend
        joblib_parallel.DEFAULT_THREAD_BACKEND = self.thread_backend
        defaults = joblib_parallel.default_parallel_config
        # The marker of a parameter that was not given holds its default. Parallel and get_active_backend read it in
        # every thread; parallel_config is for one thread only. Markers are frozen, as joblib itself never changes them.
        object.__setattr__(defaults["backend"], "default_value", self.backend)
        object.__setattr__(defaults["n_jobs"], "default_value", self.n_jobs)


@dataclass(eq=False)
class Block:
    """An open block: the pool's backend, and what joblib's names mean meanwhile.

    Attributes
    ----------
    n_jobs
        What libraries are told when they ask joblib for the number of jobs, and what a call without `n_jobs=` gets.
    """

    kind: Any
    n_jobs: int
    open: bool = True
    process: int = field(default_factory=os.getpid)
    _warned: set[str] = field(default_factory=set)

    def warn_once(self, key: str, message: str, *args: object) -> None:
        """Log a warning, unless this block has logged one with the same key."""
        if key not in self._warned:
            self._warned.add(key)
            log.warning(message, *args)


def processors() -> int:
    """Return how many processors of this machine this process may use."""
    return max(1, int(joblib.cpu_count()))


class _LocalBackend:
    """One of joblib's own backends, as a call inside a block finds it under its name."""

    block: ClassVar[Block]
    name: ClassVar[str]
    original: ClassVar[Any]

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Say how many jobs run at once: for the number of the pool's slots, at most one for each local processor.

        joblib hands a call without `n_jobs=` the number that it has for the block, whatever backend it names.
        """
        jobs = int(super().effective_n_jobs(n_jobs))  # type: ignore[misc]
        return min(jobs, processors()) if jobs == self.block.n_jobs else jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Get ready for a call that runs in processes of this machine, and say once that it does."""
        workers = int(super().configure(n_jobs=n_jobs, parallel=parallel, **options))  # type: ignore[misc]
        if self.name in PROCESS_BACKENDS:
            self.block.warn_once(
                "local processes",
                'a Parallel call names backend="%s": such calls run in processes of this machine, not on the pool. '
                'To run them on the pool, use sky.plugins.joblib(take=("%s",))',
                self.name,
                self.name,
            )
        return workers

    def __reduce__(self) -> Any:
        return self.original, (), self.__dict__


class _SharedMemory(_LocalBackend):
    """Threads for calls that require shared memory: at most as many as this machine has processors.

    Libraries take `n_jobs` for such calls from the size of the pool.
    """

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        return min(super().effective_n_jobs(n_jobs), processors())


_lock = threading.Lock()
_open_blocks: list[tuple[Block, Names]] = []
"""The open blocks; the last one counts, in whatever order they are left."""
_outside: list[Names] = []
"""What joblib used before the first of them."""


def _restore_in_child() -> None:
    _lock.__init__()  # another thread may have held it
    _open_blocks.clear()
    while _outside:
        _outside.pop().set()


os.register_at_fork(after_in_child=_restore_in_child)


@contextlib.contextmanager
def registered(block: Block, take: tuple[str, ...]) -> Iterator[None]:
    """Make the block's backend joblib's default in every thread, and `take` other names for it; then restore them.

    In the thread that enters, the backend is also set by `parallel_config`, in case one is in force there.
    """
    with _lock:
        if not _open_blocks:
            _outside[:] = [Names.now()]
        names = _names(block, take, _outside[0].backends)
        _open_blocks.append((block, names))
        names.set()
    config = parallel_config(backend=block.kind(is_default=True))
    thread = threading.get_ident()
    try:
        yield
    finally:
        if threading.get_ident() == thread:
            config.unregister()
        with _lock:
            block.open = False
            _open_blocks[:] = [each for each in _open_blocks if each[0] is not block]
            (_open_blocks[-1][1] if _open_blocks else _outside.pop()).set()


def _names(block: Block, take: tuple[str, ...], originals: Mapping[str, Any]) -> Names:
    """Return what joblib uses inside a block."""
    backends: dict[str, Any] = {BACKEND_NAME: block.kind}
    for name in ("threading", *PROCESS_BACKENDS):
        original = originals[name]
        backends[name] = block.kind if name in take else original and _kind(_LocalBackend, block, name, original)
    backends[SHARED_MEMORY] = _kind(_SharedMemory, block, SHARED_MEMORY, originals["threading"])
    return Names(backends, BACKEND_NAME, SHARED_MEMORY, block.kind(nesting_level=0, is_default=True), block.n_jobs)


def _kind(role: type[_LocalBackend], block: Block, name: str, original: Any) -> type:
    own = {"block": block, "name": name, "original": original, "__module__": __name__}
    return type(original.__name__, (role, original), own)
