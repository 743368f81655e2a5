"""The namespace of a batch on its slot: its functions by value, and the `__main__` of the user's script."""

import io
import pickle
import threading
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import cloudpickle

from skyward.remote.blobs import Buffer, Ref, view

MAKE_FUNCTION = cloudpickle.cloudpickle._make_function
"""The function with which cloudpickle makes functions."""


class _Main(ModuleType):
    """The `__main__` of a batch. It hides its file: a spawned child must not run the user's script again."""

    @property
    def __file__(self) -> NoReturn:  # type: ignore[override]
        raise AttributeError("__file__")


class _CurrentMain(threading.local):
    """The `__main__` of the batch that runs in this thread."""

    main: ModuleType | None = None


CURRENT = _CurrentMain()


class Mains(_Main):
    """The `__main__` of a process whose threads run batches: each thread sees the `__main__` of its own batch."""

    def __getattr__(self, name: str) -> Any:
        if CURRENT.main is None:
            raise AttributeError(f"module '__main__' has no attribute {name!r}")
        return getattr(CURRENT.main, name)


class Scope:
    """The functions and classes by value of one batch, by name, and the `__main__` of those that are from a script.

    Where batches run at the same time in one process, each is `apart`: it has its own classes, by their identity in
    `classes`. Otherwise (None) batches share classes, so that objects that outlive a batch keep their class.
    """

    def __init__(self, *, apart: bool = False) -> None:
        self.objects: dict[str, Any] = {}
        self.main: ModuleType | None = None
        self.classes: dict[str, type] | None = {} if apart else None

    def load(self, body: Buffer, buffers: Iterable[Buffer], blobs: Mapping[str, Ref]) -> Any:
        """Load a pickle that may refer to objects of this scope, and to large `bytes` among the blobs."""
        outer, _current.scope = _current.scope, self
        try:
            if not blobs:
                return pickle.loads(body, buffers=buffers)
            return _Unpickler(body, buffers, blobs).load()
        finally:
            _current.scope = outer

    def in_main(self, name: str, make: Callable[..., Any], *args: Any) -> Any:
        """Make a function or class of the user's script, and add it to `__main__` by its qualified name.

        The name is empty if it is not found by that in the script.
        """
        if self.main is None:
            self.main = _Main("__main__")
        namespace = self.main.__dict__
        if make is MAKE_FUNCTION:
            code, own, *rest = args
            namespace.update(own)
            args = code, namespace, *rest
        made = make(*args)
        if name:
            _put(namespace, name, made)
        return made


class _Around(SimpleNamespace):
    """Stands in `__main__` for a class that was not sent, around a nested class that was."""


def _put(space: dict[str, Any], name: str, made: Any) -> None:
    *around, last = name.split(".")
    for each in around:
        outer = space.setdefault(each, _Around())
        if not isinstance(outer, _Around):
            return  # it was sent, with everything in it
        space = vars(outer)
    if isinstance(space.get(last, _Around()), _Around):
        space[last] = made


class _CurrentScope(threading.local):
    """The scope that this thread loads something in."""

    scope: Scope | None = None


_current = _CurrentScope()


def own_classes() -> dict[str, type] | None:
    """Return the classes of the batch that this thread is loading, if it has its own."""
    return None if _current.scope is None else _current.scope.classes


def shared(name: str) -> Any:
    """Return the function or class of that name in the current scope. Pickles contain calls of this."""
    if _current.scope is None:
        raise pickle.UnpicklingError(
            f"function {name} is not in this pickle; it is opened by skyward.remote.serialization.loader"
        )
    return _current.scope.objects[name]


def in_main(name: str, make: Callable[..., Any], *args: Any) -> Any:
    """Make a function or class of a script, in the `__main__` of the current scope, if any."""
    return make(*args) if _current.scope is None else _current.scope.in_main(name, make, *args)


class _Unpickler(pickle.Unpickler):
    def __init__(self, body: Buffer, buffers: Iterable[Buffer], blobs: Mapping[str, Ref]) -> None:
        super().__init__(io.BytesIO(body), buffers=buffers)
        self._blobs = blobs

    def persistent_load(self, name: str) -> bytes:
        return bytes(view(self._blobs[name]))
