"""The contract of a plugin, and what a plugin sees of a pool.

A plugin is an adapter: it makes another library's API send calls to the pool, and prepares the nodes for them. Derive
from `Plugin` and define those of its four methods that you need; each does nothing by default.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from skyward.calls.task_groups import TaskGroup
    from skyward.config.image import Image
    from skyward.remote.context import InstanceInfo
    from skyward.remote.future import Future
    from skyward.remote.serialization.arrays import Mode


class Pool(Protocol):
    """What a plugin sees of the pool; the open `Compute` is one."""

    @property
    def slots(self) -> int:
        """Number of calls that can run at once."""
        ...

    @property
    def depth(self) -> float:
        """Number of calls to keep in flight for each slot, so that no slot waits for its next call."""
        ...

    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run a call on a slot."""
        ...

    def task_group(
        self,
        *,
        limit: int | None = None,
        blob_threshold: float | None = None,
        holds: Callable[..., int] | None = None,
        keep_results: bool = True,
        blob_mode: "Mode" = "r",
    ) -> "TaskGroup":
        """Return a group of calls with a common limit, which can be cancelled together and share their functions.

        `blob_threshold` is the size in bytes from which on an array is shared (None: as the pool's options say).
        `holds` says how many tasks a call holds, from its arguments, where that is not one: the pool's report tells it.
        `blob_mode` says what calls may do with shared arrays; see `TaskGroup`.
        With a budget, results are kept for `BudgetExceeded`, unless `keep_results` is false: for what may never end.
        """
        ...


class Plugin:
    """Base class of all plugins.

    `image` and `driver` run on the user's machine. A plugin that defines `worker` or `task` is pickled and sent to the
    nodes: it must be importable there, or its class must be defined in `__main__`.
    """

    def image(self, image: "Image", /) -> "Image":
        """Return the image with what this plugin needs on the nodes: `image.with_packages(...).with_preload(...)`."""
        return image

    def driver(self, pool: Pool, /) -> AbstractContextManager[object]:
        """Return a context manager that is entered when the pool is open, and left when its block is left, for whatever
        reason.

        The pool then waits for its calls, so the plugin must make no further calls.
        """
        return nullcontext()

    def worker(self, info: "InstanceInfo", /) -> AbstractContextManager[object]:
        """Return a context manager that each worker process of a node enters before its first task.

        With `executor="process"` that is each slot, with `"thread"` the only process of the node. It is left when the
        worker exits normally, not when it is killed. At the end of a pool, workers without a call have 5 seconds to
        leave it.
        """
        return nullcontext()

    def task(self, info: "InstanceInfo", /) -> AbstractContextManager[object]:
        """Return a context manager that is entered around each call, on its slot. The call raises what it raises."""
        return nullcontext()

    def has_node_hooks(self) -> bool:
        """Whether this plugin has code for the nodes, and must be sent there."""
        kind = type(self)
        return kind.worker is not Plugin.worker or kind.task is not Plugin.task

    def allows_new_workers(self) -> bool:
        """Whether a worker that has run nothing may be replaced by one that has imported what a call needs.

        The new worker enters `worker` after those imports, and the old one is killed. By default only a plugin without
        `worker` allows this, because what `worker` prepares may be expensive or required before the imports.
        """
        return type(self).worker is Plugin.worker
