"""The joblib plugin: inside the block, `joblib.Parallel` runs on the pool.

This module is light. joblib itself is imported by `joblib_backend`, when the block is entered.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from skyward.errors import MissingExtra
from skyward.plugins.plugin import Plugin, Pool

if TYPE_CHECKING:
    from skyward.spec import Image
    from skyward.tasks import TaskGroup


class JoblibPlugin(Plugin):
    """Makes the pool joblib's default backend for the length of the block; see `joblib`."""

    def image(self, image: "Image", /) -> "Image":
        """Have nodes import joblib once, before the slots are forked."""
        return image.with_packages("joblib").with_preload("skyward.plugins.joblib_backend")

    def driver(self, pool: Pool, /) -> AbstractContextManager[None]:
        """Register the backend, and restore joblib's default after the block."""
        return self._registered(pool)

    @contextmanager
    def _registered(self, pool: Pool) -> Iterator[None]:
        from skyward.plugins import joblib_backend

        with joblib_backend.registered(_Counting(pool)):
            yield


class _Counting:
    """The pool, knowing how many tasks are in a batch of joblib."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.submit = pool.submit

    @property
    def slots(self) -> int:
        return self._pool.slots

    def task_group(self, *, limit: int | None = None, holds: Callable[..., int] | None = None) -> "TaskGroup":
        return self._pool.task_group(limit=limit, holds=holds or _tasks)


def _tasks(tasks: Sized, *_: object) -> int:
    return len(tasks)


def joblib() -> JoblibPlugin:
    """Return the plugin that sends `joblib.Parallel` to the pool.

    Inside the block every `Parallel` call of this process goes to the pool, in every thread and inside libraries such
    as scikit-learn, unless it names another backend or requires shared memory (`require="sharedmem"`). A call that only
    prefers threads goes to the pool in the thread that entered the block, and stays here in others.
    `n_jobs=-1` is all slots of the pool; `n_jobs=k` runs at most `k` tasks at once. The backend's name is `"skyward"`.

    Raises
    ------
    MissingExtra
        joblib is not installed here.
    """
    if importlib.util.find_spec("joblib") is None:
        raise MissingExtra.of("joblib")
    return JoblibPlugin()
