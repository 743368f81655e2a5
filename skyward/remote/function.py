"""`@remote`: a function that runs on the pool whose block it is called in.

With nested blocks, the innermost one is used. A thread that entered no block of its own, such as one started inside a
block, uses the block that was entered last in the process. A process that was forked inside a block is outside of it.
"""

import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Never, Protocol, Self, cast, overload

from skyward.errors import InvalidArgument, NoCompute, NotPortable, short_repr
from skyward.remote import call_repr, context, fork_guard
from skyward.remote.call_options import DEFAULT, CallOptions

if TYPE_CHECKING:
    from skyward.remote.future import Future


class OpenPool(Protocol):
    """What a remote function asks of the open `Compute`."""

    def submit_under(
        self, terms: CallOptions, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], /
    ) -> "Future[Any]":
        """Run a call under terms."""
        ...

    def map_under(
        self,
        terms: CallOptions,
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
        self.own: ContextVar[tuple[OpenPool, ...]] = ContextVar("skyward_blocks", default=())
        self.all: list[OpenPool] = []

    def innermost(self) -> OpenPool | None:
        for pool in reversed(self.own.get()):
            if pool in self.all:
                return pool
        return self.all[-1] if self.all else None

    def forget(self) -> None:
        self.own.set(())
        self.all.clear()


_blocks = _Blocks()
os.register_at_fork(after_in_child=_blocks.forget)


def enter(pool: OpenPool) -> None:
    """Make `pool` the one that remote functions run on."""
    _blocks.all.append(pool)
    _blocks.own.set((*_blocks.own.get(), pool))


def leave(pool: OpenPool) -> None:
    """Undo `enter`, in whatever thread and order. A pool that did not enter is no error."""
    if pool in _blocks.all:
        _blocks.all.remove(pool)
    _blocks.own.set(tuple(each for each in _blocks.own.get() if each is not pool))


class Remote[**P, T]:
    """A function made remote by `@remote`.

    Called inside a block it runs on a slot of the pool and returns its value; called outside any block it runs here.
    On a slot it is the plain function.
    """

    exist: ClassVar[bool] = False
    """Whether this process has any."""

    def __init__(self, fn: Callable[P, T], terms: CallOptions) -> None:
        Remote.exist = True
        _check(fn)
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

    def options(
        self, *, timeout: float | None = None, node: int | None = None, retries: int | None = None, **unknown: Never
    ) -> Self:
        """Return the same function with other settings; settings that are left out keep their value.

        Parameters
        ----------
        timeout
            Seconds that a call may run on its slot. After that it is stopped, and `TimeoutError` is raised.
        node
            The number of the only node it may run on.
        retries
            Attempts after the first, when the slot or node of a call dies. A call that raises an exception is never
            retried.
        """
        _check_names("options", unknown)
        given = {"timeout": timeout, "node": node, "retries": retries}
        changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return type(self)(self._fn, replace(self._terms, **changed))

    def _pool(self) -> OpenPool:
        pool = _blocks.innermost()
        if pool is None:
            name = getattr(self._fn, "__name__", "the function")
            if context.inside():
                raise NoCompute(f"there is no pool inside a task: call {name}(...), which runs right here")
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
        if found_under_its_name(self):
            return self.__qualname__  # type: ignore[attr-defined]
        return type(self), (self._fn, self._terms)

    def __repr__(self) -> str:
        return f"<remote function {getattr(self._fn, '__qualname__', self._fn)}>"


def found_under_its_name(value: Any) -> bool:
    """Whether importing what `value` says of itself gives `value` and nothing else."""
    found: object = sys.modules.get(getattr(value, "__module__", None) or "")
    for name in getattr(value, "__qualname__", "").split("."):
        found = getattr(found, name, None)
    return found is value


_TERMS = {
    "timeout": "time_limit deadline max_time seconds timeout_s",
    "node": "on node_id host machine place",
    "retries": "retry max_retries attempts max_attempts tries",
}
"""The terms of a call, and what others call them."""


def _check_names(owner: str, names: Iterable[str]) -> None:
    for name in names:
        raise InvalidArgument.unknown(owner, name, tuple(_TERMS), _TERMS)


def _check(fn: object) -> None:
    """Refuse at once what cannot run on a slot as a function does."""
    name = getattr(fn, "__name__", None) or repr(fn)
    if isinstance(fn, staticmethod | classmethod):
        raise InvalidArgument(f"{name} is a {type(fn).__name__}: write @sky.remote below @{type(fn).__name__}")
    if not callable(fn):
        raise InvalidArgument(f"@sky.remote: {short_repr(fn)} is not a function; write `@sky.remote` above a function")
    if inspect.iscoroutinefunction(fn):
        raise InvalidArgument(
            f"{name} is a coroutine function, which is not supported: make it a plain one that calls asyncio.run(...)"
        )
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise InvalidArgument(f"{name} is a generator function, and what it yields cannot be sent back: return a list")


def _chunk(fn: Callable[..., Any], calls: Sequence[Sequence[Any]]) -> str:
    """Say which calls a chunk holds."""
    first = call_repr.call(fn, tuple(calls[0]), {})
    return first if len(calls) == 1 else f"{first} and {len(calls) - 1} more"


def call_each[T](fn: Callable[..., T], calls: Iterable[Sequence[Any]]) -> list[T]:
    """Call `fn` with each set of arguments: what a chunk of `map` does on its slot, which therefore finds it here."""
    results: list[T] = []
    process = fork_guard.process()
    for args in calls:
        try:
            results.append(fn(*args))
            fork_guard.end_if_forked(process, None)
        except BaseException as error:
            call_repr.noted(error, call_repr.call(fn, tuple(args), {}))
            raise
    return results


call_each.shows = _chunk  # type: ignore[attr-defined]
call_each.runs = lambda fn, calls: fn  # type: ignore[attr-defined]
call_each.steps = 3  # type: ignore[attr-defined] # from the call to an argument of `fn`: `args[1][2][0]`


_IN_A_CHUNK = re.compile(r"(?:args\[1\]|result)\[(\d+)\](?P<rest>.*)")


def name_call(error: NotPortable, fn: Callable[..., Any], calls: Sequence[Sequence[Any]]) -> None:
    """Have an error about a chunk of `map` name the call in it: `args[1][2][0].conn` is `args[0].conn` of the third."""
    found = _IN_A_CHUNK.fullmatch(error.path)
    name, path = call_repr.name_of(fn), error.path
    if found is not None and int(found[1]) < len(calls):
        name, path = call_repr.call(fn, tuple(calls[int(found[1])]), {}), path.partition("[")[0] + found["rest"]
    elif path.startswith("args[0]"):
        path = "fn" + path.removeprefix("args[0]")
    text = str(error).replace(call_each.__name__, name, 1)
    error.args = (text.replace(error.path, path, 1) if path else text,)
    error.path = path


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

    Use it bare (`@remote`), or with the arguments of `Remote.options` (`@remote(timeout=60)`).
    """
    if fn is None:
        _check_names("remote", options.keys() - _TERMS.keys())
        CallOptions(**options)
        return lambda given: Remote(given, DEFAULT).options(**options)
    return Remote(fn, DEFAULT)
