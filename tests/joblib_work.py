"""What the tests of the joblib plugin run on nodes: like `tests.work`, a light module."""

import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
from joblib import Parallel, delayed

from tests import work


def be_late() -> None:
    raise multiprocessing.TimeoutError


def peak(marks: Path, number: int) -> int:
    """Note that this task runs, and count those that do."""
    work.touch(marks, str(number))
    work.sleep(0.05)
    running = len(list(marks.iterdir()))
    (marks / str(number)).unlink()
    return running


def batch_mates() -> int:
    """Count the tasks of this one's batch up to it: those that the same frame of the plugin has called."""
    frame = sys._getframe(1)
    return len(frame.f_locals["results"]) + 1


def who(**options: Any) -> tuple[int, set[int], set[int]]:
    """This process, and the processes and threads that ran the tasks of a nested call."""
    places = Parallel(**options)(delayed(place)() for _ in range(8))
    return os.getpid(), {pid for pid, _ in places}, {thread for _, thread in places}


def place() -> tuple[int, int]:
    work.sleep(0.02)
    return os.getpid(), threading.get_ident()


def deep(levels: int) -> list[Any]:
    tasks = [delayed(deep)(levels - 1)] * 2 if levels > 1 else [delayed(work.square)(x) for x in range(3)]
    return list(Parallel(n_jobs=2, backend="skyward")(tasks))


def pools() -> list[int]:
    """How many threads each pool of numerical libraries has, BLAS among them."""
    import numpy as np
    import threadpoolctl

    np.ones((64, 64)) @ np.ones((64, 64))
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]


def late_pools() -> tuple[list[int], str]:
    """The same, with libraries that no node has loaded before."""
    import sklearn.cluster._kmeans  # noqa: F401 - brings OpenMP

    return pools(), os.environ["OMP_NUM_THREADS"]


def accept(*parts: object, **named: object) -> None: ...


def nested(depth: int) -> dict[str, list[Any]]:
    tree: list[Any] = []
    for _ in range(depth):
        tree = [tree]
    return {"tree": tree}


def from_os() -> None:
    from os import nothing_of_that_name  # type: ignore[attr-defined]  # noqa: F401


def warned_under(filters: list[Any]) -> list[tuple[str, str]]:
    with warnings.catch_warnings():
        for action, kind in reversed(filters):
            warnings.simplefilter(action, kind)
        warnings.warn("no filter is for this one", ResourceWarning, stacklevel=1)
    return [(action, f"{kind.__module__}.{kind.__name__}") for action, kind in filters]


def mine(kinds: list[type]) -> list[bool]:
    return [kind is work.OldWarning for kind in kinds]


def closure(factor: int) -> Callable[[int], int]:
    return lambda x: factor * x


class Multiplier:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def times(self, x: int) -> int:
        return self.factor * x

    __call__ = times


def note_square(file: Path, x: int) -> int:
    work.note(file, str(x))
    return x * x


def cached(folder: Path, x: int) -> int:
    return int(joblib.Memory(folder, verbose=0).cache(note_square)(folder / "lines", x))


def fail_when_told(port: int) -> None:
    raise LookupError(work.ring(port))


def kin() -> tuple[int, int]:
    """This process, and the one that started it."""
    return os.getpid(), os.getppid()


def backend_named(name: str) -> str:
    """Which class a name means to joblib here."""
    kind = type(Parallel(n_jobs=2, backend=name)._backend)
    return f"{kind.__module__}.{kind.__qualname__}"
