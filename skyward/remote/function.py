"""`@remote`: a function that runs on the pool whose block it is called in.

Of nested blocks the innermost wins. A thread that entered no block of its own, such as one started inside a block, sees
the block entered last in the process.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Concatenate, Protocol, Self, cast, overload

from skyward.errors import InvalidArgument, NoCompute

if TYPE_CHECKING:
    from skyward.remote.future import Future


@dataclass(frozen=True, slots=True)
class Terms:
    """The conditions a call runs under.

    Attributes
    ----------
    timeout
        Seconds it may run, counted from its start on a slot; then it is stopped and raises `TimeoutError`.
    node
        The number of the only node it may run on.
    retries
        Attempts after the first when its slot or node dies; None for the pool's `Options.retries`.
    """

    timeout: float | None = None
    node: int | None = None
    retries: int | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:
            raise InvalidArgument(f"timeout={self.timeout!r}: must be more than 0 seconds; leave it out for no limit")
        if self.node is not None and (type(self.node) is not int or self.node < 0):
            raise InvalidArgument(f"node={self.node!r}: must be the number of a node, from 0; leave it out for any")
        if self.retries is not None and (type(self.retries) is not int or self.retries < 0):
            raise InvalidArgument(f"retries={self.retries!r}: must be at least 0; leave it out for the pool's default")


DEFAULT = Terms()
"""No timeout, any node, the pool's retries."""


class Pool(Protocol):
    """What a remote function asks of the open `Compute`."""

    def submit_under(
        self, terms: Terms, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], /
    ) -> "Future[Any]":
        """Run a call under terms."""
        ...

    def map_under(
        self,
        terms: Terms,
        fn: Callable[..., Any],
        iterables: Sequence[Iterable[Any]],
        timeout: float | None,
        chunksize: int,
        /,
    ) -> Iterator[Any]:
        """Run a call for each item."""
        ...


class _Blocks:
    """The open blocks of this process: those that each thread entered itself, and all of them."""

    def __init__(self) -> None:
        self.own: ContextVar[tuple[Pool, ...]] = ContextVar("skyward_blocks", default=())
        self.all: list[Pool] = []

    def innermost(self) -> Pool | None:
        for pool in reversed(self.own.get()):
            if pool in self.all:
                return pool
        return self.all[-1] if self.all else None


_blocks = _Blocks()


def enter(pool: Pool) -> None:
    """Make `pool` the one that remote functions run on."""
    _blocks.all.append(pool)
    _blocks.own.set((*_blocks.own.get(), pool))


def leave(pool: Pool) -> None:
    """Undo `enter`, in whatever thread and order."""
    _blocks.all.remove(pool)
    _blocks.own.set(tuple(each for each in _blocks.own.get() if each is not pool))


class Remote[**P, T]:
    """A function made remote by `@remote`.

    Called inside a block it runs on a slot of the pool and returns its value; called outside any block it runs here.
    On a slot it is the plain function.
    """

    def __init__(self, fn: Callable[P, T], terms: Terms) -> None:
        functools.update_wrapper(self, fn)
        self._fn, self._terms = fn, terms

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run on a slot and return the value, or run here when no block is open."""
        pool = _blocks.innermost()
        if pool is None:
            return self._fn(*args, **kwargs)
        return cast("T", _result(pool.submit_under(self._terms, self._fn, args, kwargs)))

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run on a slot and return the future of the value.

        Raises
        ------
        NoCompute
            No block is open.
        """
        return self._pool().submit_under(self._terms, self._fn, args, kwargs)

    def map(self, *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1) -> Iterator[T]:
        """Return an iterator over the values for the items of the iterables, in order; like `Compute.map`.

        Raises
        ------
        NoCompute
            No block is open.
        """
        return self._pool().map_under(self._terms, self._fn, iterables, timeout, chunksize)

    def options(self, *, timeout: float | None = None, node: int | None = None, retries: int | None = None) -> Self:
        """Return the same function under other terms; what is left out stays as it was.

        Parameters
        ----------
        timeout
            Seconds it may run on its slot; then it is stopped and `TimeoutError` is raised.
        node
            The number of the only node it may run on.
        retries
            Attempts after the first when its slot or node dies. What it raises itself is never tried again.
        """
        given = {"timeout": timeout, "node": node, "retries": retries}
        changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return type(self)(self._fn, replace(self._terms, **changed))

    def _pool(self) -> Pool:
        pool = _blocks.innermost()
        if pool is None:
            name = getattr(self._fn, "__name__", "the function")
            raise NoCompute(
                f"{name} needs an open pool: call it in `with sky.Compute(...):`, or call {name}(...) to run it here"
            )
        return pool

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__[S, **Q, R](
        self: "Remote[Concatenate[S, Q], R]", instance: S, owner: type | None = None
    ) -> "Remote[Q, R]": ...
    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind to an instance, as a function does that is defined in a class."""
        if instance is None:
            return self
        return type(self)(functools.partial(self._fn, instance), self._terms)  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return type(self), (self._fn, self._terms)


def call_each[T](fn: Callable[..., T], calls: Iterable[Sequence[Any]]) -> list[T]:
    """Call `fn` with each set of arguments: what a chunk of `map` does on its slot, which therefore finds it here."""
    return [fn(*args) for args in calls]


def _result(future: "Future[Any]") -> object:
    try:
        return future.result()
    except BaseException:  # Ctrl-C here, or what the call raised: nobody waits for it any more
        future.cancel()
        raise


@overload
def remote[**P, T](fn: Callable[P, T], /) -> Remote[P, T]: ...
@overload
def remote[**P, T](
    *, timeout: float | None = None, node: int | None = None, retries: int | None = None
) -> Callable[[Callable[P, T]], Remote[P, T]]: ...
def remote(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function run on the pool whose block it is called in.

    Bare (`@remote`), or with the terms of `Remote.options` (`@remote(timeout=60)`).
    """
    if fn is None:
        return lambda given: Remote(given, DEFAULT).options(**options)
    return Remote(fn, DEFAULT)
