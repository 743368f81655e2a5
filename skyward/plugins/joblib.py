"""The joblib plugin: inside the block, `joblib.Parallel` runs on the pool.

This module is light. joblib itself is imported by `joblib_backend`, when the block is entered, and on nodes by
`joblib_node`.
"""

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from skyward.errors import MissingExtra
from skyward.plugins.plugin import Plugin, Pool

if TYPE_CHECKING:
    from skyward.remote.context import InstanceInfo
    from skyward.spec import Image


class JoblibPlugin(Plugin):
    """Makes the pool joblib's default backend for the length of the block; see `joblib`."""

    def image(self, image: "Image", /) -> "Image":
        """Have nodes import joblib once, before the slots are forked."""
        return image.with_packages("joblib").with_preload("skyward.plugins.joblib_node")

    def driver(self, pool: Pool, /) -> AbstractContextManager[None]:
        """Register the backend, and restore joblib's default after the block."""
        return self._registered(pool)

    def worker(self, info: "InstanceInfo", /) -> AbstractContextManager[None]:
        """Make the name of the backend known to tasks, where it means their own slot."""
        from skyward.plugins import joblib_node

        return joblib_node.registered()

    @contextmanager
    def _registered(self, pool: Pool) -> Iterator[None]:
        from skyward.plugins import joblib_backend

        with joblib_backend.registered(pool):
            yield


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
