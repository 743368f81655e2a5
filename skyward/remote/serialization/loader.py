"""Load functions and calls. Functions by value are loaded again for each batch, so that batches do not share state.

Functions that cannot change (see `_ScopeSnapshot`) are kept instead.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from opcode import opmap
from operator import call, is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

from skyward.remote.blobs import Ref, view
from skyward.remote.serialization import packer, sealed
from skyward.remote.serialization.namespace import Scope
from skyward.remote.serialization.reducers import importable

type Call = tuple[Callable[..., object], Any, Any]


class Functions:
    """The functions by value that a worker was sent: their bytes, and those that are loaded and cannot change."""

    def __init__(self) -> None:
        self.raw: dict[str, bytes] = {}
        self._kept: dict[tuple[str, ...], _ScopeSnapshot | None] = {}

    def load_again(self) -> None:
        """Forget the loaded functions, as modules that they refer to have changed."""
        self._kept.clear()

    def scope(self, names: tuple[str, ...], blobs: Mapping[str, Ref], *, apart: bool = False) -> Scope:
        """Return the scope of a batch that needs these functions; it is reused only if that makes no difference.

        With `apart`, other batches run at the same time in this process.
        """
        if not names:
            return Scope(apart=apart)
        known = names in self._kept
        if (kept := self._kept.get(names)) is not None:
            if kept.holds():
                return kept.scope
            self._kept[names] = None
        scope = Scope(apart=apart)
        for name in names:
            # each load maps the buffers privately, so that batches do not see each other's writes to arrays
            scope.objects[name] = scope.load(*sealed.opened(self.raw[name], blobs), blobs)
        if not known:
            snapshot = _ScopeSnapshot(scope)
            self._kept[names] = snapshot if snapshot.constant else None
        return scope


def call_in(scope: Scope, payload: bytes, buffers: Sequence[str], blobs: Mapping[str, Ref]) -> Call:
    """Load a call in a scope."""
    if not blobs:
        return scope.load(payload, (), blobs)  # type: ignore[no-any-return]
    body = payload or view(next(iter(blobs.values())))
    call: Call = scope.load(body, (_buffer(blobs, name) for name in buffers), blobs)
    return call


def _buffer(blobs: Mapping[str, Ref], name: str) -> memoryview:
    return view(blobs[name.removesuffix(packer.PRIVATE)], private=name.endswith(packer.PRIVATE))


# ---------------------------------------------------------------- what cannot change

_ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range)
_STORES = {opmap[name] for name in ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR")}
_STORES_IN_CELLS = {opmap["STORE_DEREF"], opmap["DELETE_DEREF"]}
# fmt: off
_DOUBTFUL = {
    "globals", "locals", "vars", "exec", "eval", "setattr", "delattr", "__dict__", "__globals__", "__defaults__",
    "__kwdefaults__", "__annotations__", "__closure__", "__code__", "cell_contents", "__setattr__", "_getframe",
    "currentframe",
}
# fmt: on
"""Names by which a function may change its own state."""

_FUNCTION_ATTRIBUTES = (
    "__code__",
    "__defaults__",
    "__kwdefaults__",
    "__dict__",
    "__name__",
    "__qualname__",
    "__module__",
    "__doc__",
)
"""Attributes of a function that other code may replace."""


class _ScopeSnapshot:
    """The content of a scope when it was loaded, and whether it is `constant`: calls cannot change it.

    They cannot if its functions store nothing outside of their calls and refer only to constants, modules and imported
    objects. `holds` checks that no other code has changed a function.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._functions: dict[int, FunctionType] = {}
        self.constant = all(type(each) is FunctionType and self._is_constant(each) for each in scope.objects.values())
        functions = self._functions.values()
        spaces: dict[int, tuple[dict[str, Any], set[str]]] = {}  # with the names that are read
        for fn in functions:
            named = fn.__kwdefaults__ or {}
            for space, names in (fn.__globals__, _names(fn.__code__)), (fn.__dict__, fn.__dict__), (named, named):
                spaces.setdefault(id(space), (space, set()))[1].update(names)
        self._spaces = [space for space, _ in spaces.values()]
        self._sizes = [*map(len, self._spaces)]
        self._looks: list[Callable[[], object]] = [
            *(partial(getattr, fn, part) for fn in functions for part in _FUNCTION_ATTRIBUTES),
            *(partial(space.get, name) for space, names in spaces.values() for name in names),
            *(partial(_content, cell) for fn in functions for cell in fn.__closure__ or ()),
        ]
        self._found = [look() for look in self._looks]

    def holds(self) -> bool:
        """Return whether nothing has changed."""
        return [*map(len, self._spaces)] == self._sizes and all(map(is_, map(call, self._looks), self._found))

    def _is_constant(self, value: object) -> bool:
        match value:
            case FunctionType():
                return importable(value) or id(value) in self._functions or self._of_function(value)
            case tuple() | frozenset() if type(value) in (tuple, frozenset):
                return all(map(self._is_constant, value))
            case ModuleType():
                return sys.modules.get(value.__name__) is value and value.__name__ != "__main__"
            case BuiltinFunctionType():
                return value.__self__ is None or isinstance(value.__self__, ModuleType)
            case type():
                return importable(value)
            case _:
                return type(value) in _ATOMS

    def _of_function(self, fn: FunctionType) -> bool:
        self._functions[id(fn)] = fn
        if _stores(fn.__code__, frozenset(fn.__code__.co_freevars)):
            return False
        own = {name: value for name, value in fn.__globals__.items() if name != "__builtins__"}
        parts = *own.values(), *fn.__dict__.values(), *(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()
        return all(map(self._is_constant, (*parts, *map(_content, fn.__closure__ or ()))))


def _stores(code: CodeType, free: frozenset[str]) -> bool:
    """Return whether code may store something that outlives its call. `free`: free variables of the whole function."""
    operations = set(code.co_code[::2])
    if operations & _STORES or _DOUBTFUL.intersection(code.co_names):
        return True
    if operations & _STORES_IN_CELLS and free.intersection(code.co_freevars):
        return True
    return any(isinstance(const, CodeType) and _stores(const, free) for const in code.co_consts)


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # an empty cell
        return None


def _names(code: CodeType) -> tuple[str, ...]:
    """Return the names of globals that code, including nested code, may read."""
    inner = [name for const in code.co_consts if isinstance(const, CodeType) for name in _names(const)]
    return (*code.co_names, *inner)
