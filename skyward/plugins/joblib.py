"""The joblib plugin: inside the block, `joblib.Parallel` runs on the pool.

This module is light. joblib itself is imported by `joblib_backend`, when the block is entered, and on nodes by
`joblib_node`.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Never

from skyward import extras
from skyward.errors import InvalidArgument
from skyward.plugins.plugin import Plugin, Pool

if TYPE_CHECKING:
    from skyward.config.spec import Image
    from skyward.remote.context import InstanceInfo


TAKEN = ("loky", "multiprocessing")
"""The names of joblib's process backends, which `take=` may give to the pool."""

SYNONYMS = {
    "take": "backend backends names",
    "it is an argument of Parallel: Parallel(n_jobs=...)": "n_jobs jobs workers",
}


class JoblibPlugin(Plugin):
    """Makes the pool joblib's default backend for the length of the block; see `joblib`."""

    def __init__(self, take: tuple[str, ...] = ()) -> None:
        self._take = take

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

    def allows_new_workers(self) -> bool:
        """Say yes: the name of the backend costs nothing."""
        return True

    @contextmanager
    def _registered(self, pool: Pool) -> Iterator[None]:
        from skyward.plugins import joblib_backend

        with joblib_backend.registered(pool, self._take):
            yield


def joblib(*unnamed: Never, take: Sequence[str] = (), **unknown: Never) -> JoblibPlugin:
    """Return the plugin that sends `joblib.Parallel` to the pool.

    Inside the block every `Parallel` call of this process goes to the pool, in every thread and inside libraries such
    as scikit-learn, unless it names another backend, requires shared memory (`require="sharedmem"`), or prefers threads
    for tasks that return nothing (`prefer="threads"`). `n_jobs=-1` is all slots of the pool; `n_jobs=k` runs at most
    `k` tasks at once. The backend's name is `"skyward"`.

    Parameters
    ----------
    take
        Backends of joblib whose calls go to the pool too, for libraries that name one: `"loky"`, `"multiprocessing"`.

    Raises
    ------
    InvalidArgument
        `take` holds something else.
    MissingExtra
        joblib is not installed here.
    """
    extras.require("joblib", "joblib")
    if unnamed:
        raise InvalidArgument('joblib takes keyword arguments only, for example take=("loky",)')
    for name in unknown:
        raise InvalidArgument.unknown("joblib", name, ("take",), SYNONYMS)
    if isinstance(take, str) or not isinstance(take, Sequence):
        fix = f"write take=({take!r},)" if take in TAKEN else 'write take=("loky",)'
        raise InvalidArgument.of("take", take, "must be a tuple of names", fix)
    for name in take:
        if name not in TAKEN:
            raise InvalidArgument.of("take", take, f"cannot take {name!r}", 'give "loky", "multiprocessing", or both')
    return JoblibPlugin(tuple(take))
