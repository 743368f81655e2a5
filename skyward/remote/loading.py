"""Bytes to functions and calls: functions by value are loaded for each batch, so no task sees what another one left.

A function whose objects cannot change (see `_Survey`) is kept, as loading it again would give the same.
"""

import io
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from opcode import opmap
from operator import is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any, NoReturn

from skyward.remote import packer, sealed
from skyward.remote.blobs import Buffer, Ref, view
from skyward.remote.reducers import importable

type Call = tuple[Callable[..., object], Any, Any]


class _Main(ModuleType):
    """The `__main__` of a batch. It hides its file: a spawned child must not run the user's script again."""

    @property
    def __file__(self) -> NoReturn:  # type: ignore[override]
        raise AttributeError("__file__")


class Scope:
    """The functions and classes by value of one batch, by name, and the `__main__` that those of a script share."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.main: ModuleType | None = None

    def add(self, name: str, data: bytes, blobs: Mapping[str, Ref]) -> None:
        """Load what a `Packer` kept as `data`, with its large buffers among the blobs.

        Each load maps the buffers for itself: what is written into an array of a function is seen by its batch only.
        """
        self.objects[name] = _Unpickler(self, *sealed.opened(data, blobs), blobs).load()

    def call(self, payload: bytes, buffers: Sequence[str], blobs: Mapping[str, Ref]) -> Call:
        """Load a call."""
        body = payload or view(next(iter(blobs.values())))
        call: Call = _Unpickler(self, body, (_buffer(blobs, name) for name in buffers), blobs).load()
        return call

    def in_main(self, name: str, make: Callable[..., Any], *args: Any) -> Any:
        """Make a function or class of the user's script; it is found in `__main__` under its name, if it has one."""
        if self.main is None:
            self.main = _Main("__main__")
        namespace = self.main.__dict__
        if make is packer.MAKE_FUNCTION:
            code, own, *rest = args
            namespace.update(own)
            args = code, namespace, *rest
        made = make(*args)
        if name:
            namespace.setdefault(name, made)
        return made


class Functions:
    """The functions by value that a worker was sent: their bytes, and those loaded ones that cannot change."""

    def __init__(self) -> None:
        self.raw: dict[str, bytes] = {}
        self._kept: dict[tuple[str, ...], _Survey | None] = {}

    def load_again(self) -> None:
        """Load functions again that were kept: modules that they refer to have changed."""
        self._kept.clear()

    def scope(self, names: tuple[str, ...], blobs: Mapping[str, Ref]) -> Scope:
        """Return what a batch that needs these functions finds: loaded for it, unless that makes no difference."""
        if not names:
            return Scope()
        known = names in self._kept
        if (kept := self._kept.get(names)) is not None:
            if kept.holds():
                return kept.scope
            self._kept[names] = None
        scope = Scope()
        for name in names:
            scope.add(name, self.raw[name], blobs)
        if not known:
            survey = _Survey(scope)
            self._kept[names] = survey if survey.constant else None
        return scope


class _Unpickler(pickle.Unpickler):
    def __init__(self, scope: Scope, body: Buffer, buffers: Iterable[Buffer], blobs: Mapping[str, Ref]) -> None:
        super().__init__(io.BytesIO(body), buffers=buffers)
        self._scope, self._blobs = scope, blobs

    def find_class(self, module: str, name: str) -> Any:
        if module == packer.__name__:
            if name == packer.shared.__name__:
                return self._scope.objects.__getitem__
            if name == packer.in_main.__name__:
                return self._scope.in_main
        return super().find_class(module, name)

    def persistent_load(self, name: str) -> bytes:
        return bytes(view(self._blobs[name]))


# ---------------------------------------------------------------- buffers


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
"""Names in a function by which it may change what is its own."""


class _Survey:
    """What a scope held when it was loaded, and whether its calls can leave a trace in that.

    They cannot if it is made of functions that store nothing outside of their calls, and if these refer to constants,
    to modules, and to what is imported from there. `holds` makes sure, as others may have changed a function.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._functions: dict[int, FunctionType] = {}
        self.constant = all(type(each) is FunctionType and self._is_constant(each) for each in scope.objects.values())
        mappings = [each for fn in self._functions.values() for each in (fn.__globals__, fn.__dict__)]
        self._mappings = [(each, [*each], [*each.values()]) for each in mappings]
        self._parts = [(fn, _parts_of(fn)) for fn in self._functions.values()]

    def holds(self) -> bool:
        """Whether everything is as it was."""
        for mapping, keys, values in self._mappings:
            if [*mapping] != keys or not all(map(is_, mapping.values(), values)):
                return False
        return all(all(map(is_, parts, _parts_of(fn))) for fn, parts in self._parts)

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
    """Whether code may store something that outlives its call; `free` are the variables of the outermost function."""
    operations = set(code.co_code[::2])
    if operations & _STORES or _DOUBTFUL.intersection(code.co_names):
        return True
    if operations & _STORES_IN_CELLS and free.intersection(code.co_freevars):
        return True
    return any(isinstance(const, CodeType) and _stores(const, free) for const in code.co_consts)


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _parts_of(fn: FunctionType) -> tuple[object, ...]:
    """What a function consists of beside its namespaces, as far as it may be replaced."""
    named, cells = fn.__kwdefaults__, fn.__closure__
    parts = fn.__code__, fn.__defaults__, len(named or ())
    return parts if named is None and cells is None else (*parts, *(named or {}).values(), *map(_content, cells or ()))
