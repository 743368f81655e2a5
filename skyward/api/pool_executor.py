"""The type, size and pickle that libraries expect of an executor, beyond its methods."""

from concurrent import futures
from typing import Any, Self

from skyward.remote.pool_placeholder import PoolPlaceholder


class PoolExecutor(futures.ProcessPoolExecutor):
    """Base class of `Compute`: an executor whose type, size and pickle are what libraries look for.

    It is a ProcessPoolExecutor because some libraries take no other executor (adaptive), or learn from the type that
    calls are pickled (kedro). Nothing of that class is used: neither its processes nor its `__init__`.
    """

    def __init__(self) -> None:
        raise NotImplementedError

    @property
    def slots(self) -> int:
        """How many calls run at once."""
        raise NotImplementedError

    # The names under which libraries look for the size: `_max_workers` is that of the executors of concurrent.futures
    # (nautilus, dask), `size` is that of pools for MPI (dynesty, schwimmbad). There is no `_processes`, which is a
    # number in multiprocessing.Pool and a dict in executors.

    @property
    def size(self) -> int:
        """The same as `slots`, under a name that libraries look for."""
        return self.slots

    @property
    def _max_workers(self) -> int:
        return self.slots

    # Libraries keep the executor in objects that they copy, or whose methods they send.

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> Any:
        return PoolPlaceholder, ()
