"""What a `Compute` becomes when it is pickled inside something else: a task has no pool.

Libraries keep the executor in objects whose methods they send: `self.pool = pool`, then `pool.map(self.evaluate, xs)`.
"""

from functools import partial
from typing import Any, NoReturn

from skyward.errors import NoCompute

POOL_METHODS = ("submit", "map", "broadcast", "task_group", "shutdown")


def refuse(name: str, *args: object, **kwargs: object) -> NoReturn:
    """Raise NoCompute: what a method of the pool does where there is none."""
    raise NoCompute(
        f"{name}: a Compute can only be used in the program that opened it, not in a task and not from a pickle; "
        "call the function itself, or make this call in the program"
    )


class PoolPlaceholder:
    """Stands for a `Compute` in a task. It can be kept and sent; its methods raise NoCompute when they are called."""

    __slots__ = ()

    def __getattr__(self, name: str) -> partial[NoReturn]:
        if name in POOL_METHODS:
            return partial(refuse, name)
        raise AttributeError(f"a Compute has no {name!r} in a task or in a pickle")

    def __reduce__(self) -> Any:
        return PoolPlaceholder, ()
