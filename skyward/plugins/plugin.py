"""The contract of a plugin, and what a plugin sees of a pool.

A plugin is an adapter: it makes somebody else's API send calls to the pool, and prepares the nodes for them. Derive
from `Plugin`, and define those of its four methods that are needed; each does nothing by default.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from skyward.image import Image
    from skyward.remote.arrays import Mode
    from skyward.remote.context import InstanceInfo
    from skyward.remote.future import Future
    from skyward.tasks import TaskGroup


class Pool(Protocol):
    """What a plugin sees of the pool; the open `Compute` is one."""

    @property
    def slots(self) -> int:
        """How many calls run at once."""
        ...

    @property
    def depth(self) -> float:
        """How many calls, for each slot, should be on their way so that none ever waits for its next one."""
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
        """Return a group for calls that belong together: with a limit, cancelled together, sharing what they need.

        `blob_threshold` is the size in bytes from which on an array is shared (None: as the pool's options say).
        `holds` says how many tasks a call holds, from its arguments, where that is not one: the pool's report tells it.
        `blob_mode` says what calls may do with shared arrays; see `TaskGroup`.
        With a budget, results are kept for `BudgetExceeded`, unless `keep_results` is false: for what may never end.
        """
        ...


class Plugin:
    """Base class of all plugins.

    `image` and `driver` run on the user's machine. A plugin that defines `worker` or `task` is pickled and sent to the
    nodes; it must be importable there, or be of a class in `__main__`.
    """

    def image(self, image: "Image", /) -> "Image":
        """Return the image with what the nodes need for this plugin: `image.with_packages(...).with_preload(...)`."""
        return image

    def driver(self, pool: Pool, /) -> AbstractContextManager[object]:
        """Return a context that is entered once the pool is open, and left as soon as its block is, in whatever way.

        The pool waits for its calls after that. A plugin that would go on making calls stops doing so.
        """
        return nullcontext()

    def worker(self, info: "InstanceInfo", /) -> AbstractContextManager[object]:
        """Return a context that each worker process of a node enters before its first task.

        With `executor="process"` that is each slot, with `"thread"` the one process of the node. It is left when the
        worker ends in order, not when it is killed.
        """
        return nullcontext()

    def task(self, info: "InstanceInfo", /) -> AbstractContextManager[object]:
        """Return a context that is entered around each call, on its slot. What it raises is what the call raises."""
        return nullcontext()

    def has_node_hooks(self) -> bool:
        """Whether this plugin does something on the nodes, and has to be sent there."""
        kind = type(self)
        return kind.worker is not Plugin.worker or kind.task is not Plugin.task

    def allows_new_workers(self) -> bool:
        """Whether a worker that has run nothing may be replaced by one that has imported what a call needs.

        It enters `worker` after those imports, and the old one is killed. By default only a plugin without `worker`
        allows that: what it prepares may cost much, or have to be there before the imports.
        """
        return type(self).worker is Plugin.worker
