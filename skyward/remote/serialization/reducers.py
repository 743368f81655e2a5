"""Pickle by value the objects of a script that cloudpickle pickles by name.

These are type aliases, new types, most type variables and cached functions, whose names in `__main__` no node has. Each
is rebuilt once per identity. Any other object that would be pickled as a name that nodes do not have is refused.
"""

import functools
import pickle
import sys
import typing
import weakref
from collections.abc import Callable
from copyreg import dispatch_table
from enum import Enum
from types import FunctionType, ModuleType
from typing import Any, ClassVar

import cloudpickle

from skyward.remote import missing_modules
from skyward.remote.function import Remote
from skyward.remote.serialization import arrays
from skyward.remote.serialization.classes import is_dynamic, reduce_class, reduce_member
from skyward.remote.serialization.identities import IDENTITIES, find_importable, is_sent_by_value

type Reduced = str | tuple[Any, ...]

_LruCache: type = type(functools.lru_cache(len))
_NewType: Any = typing.NewType


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined, unused-ignore]
    """Pickles by value what the receiver may not be able to import; refuses names that it does not have."""

    result: ClassVar = False
    """Whether it pickles results, so that the driver uses its own classes and cached functions."""
    _reduce: arrays.Reducer

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is FunctionType:
            if (found := find_importable(obj)) is obj:
                return NotImplemented  # pickled by its name
            if (named := _in_remote(obj, found)) is not None:
                return named
            reduced = super().reducer_override(obj)
            if obj.__type_params__ and reduced is not NotImplemented:
                reduced[2][1]["__type_params__"] = obj.__type_params__  # which cloudpickle leaves out
            return reduced
        if issubclass(kind, type):
            if issubclass(obj, Warning) and find_importable(obj) is obj:
                return missing_modules.by_name(obj) or NotImplemented
            return reduce_class(obj, result=self.result) if is_dynamic(obj) else super().reducer_override(obj)
        if (reduced := self._reduce(obj)) is None:
            reduced = _reduce_object(obj, kind, self.result)
        return NotImplemented if reduced is None else reduced


def _reduce_object(obj: Any, kind: type, result: bool) -> Reduced | None:
    """Reduce an object that is neither a class nor a function; None if pickle handles it."""
    if (reducer := _REDUCERS.get(kind)) is not None:
        return reducer(obj, result)
    if kind in cloudpickle.Pickler._dispatch_table:
        return None
    own = dispatch_table.get(kind)  # what pickle would look up next, but slower, in a `ChainMap`
    if own is None and isinstance(obj, Enum) and (named := reduce_member(obj)) is not None:
        return named
    reduced: Reduced = obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL) if own is None else own(obj)
    if isinstance(reduced, str) and is_sent_by_value(module := module_of(obj, reduced)):
        raise pickle.PicklingError(f"it is pickled as the name {reduced!r} in {module}, which nodes do not have")
    return reduced


def module_of(obj: Any, name: str) -> str:
    """Return the module in which pickle looks up an object that is pickled as this name."""
    module: str = getattr(obj, "__module__", None) or pickle.whichmodule(obj, name)  # type: ignore[attr-defined]
    return module


def _reduce_module(module: ModuleType, result: bool) -> None:
    if module.__name__ in ("__main__", "__mp_main__"):
        raise pickle.PicklingError("it is the script itself, which nodes do not have")


# ---------------------------------------------------------------- objects that are pickled by name


def importable(fn: FunctionType | Remote[..., Any] | type) -> bool:
    """Return whether a node finds this function or class under its module and name."""
    return find_importable(fn) is fn


def as_remote(fn: FunctionType) -> tuple[Any, ...] | None:
    """Reduce a function that nodes find only inside a remote function of its name; None for any other function."""
    return _in_remote(fn, find_importable(fn))


def _in_remote(fn: FunctionType, found: object) -> tuple[Any, ...] | None:
    return (getattr, (found, "_fn")) if type(found) is Remote and found._fn is fn else None


def _reduce_remote(remote: Any, result: bool) -> Reduced:
    # `Remote.__reduce__` is for processes of this machine, which have `__main__`
    return str(remote.__qualname__) if importable(remote) else (Remote, (remote._fn, remote._terms))


# ---------------------------------------------------------------- cached functions and weak dictionaries


def _reduce_cached(cached: Any, result: bool) -> Reduced:
    if find_importable(cached) is cached:
        return str(cached.__qualname__)
    parameters = cached.cache_parameters()
    state = {name: value for name, value in vars(cached).items() if name != "cache_parameters"}
    return make_cached, (cached.__wrapped__, parameters, IDENTITIES.name(cached), result), state


def make_cached(fn: Callable[..., object], parameters: dict[str, Any], identity: str, result: bool) -> Any:
    """Return a function with an empty cache; in a result, the driver's own function if it has one."""
    if result and (known := IDENTITIES.get(identity)) is not None:
        return known
    cached = functools.lru_cache(**parameters)(fn)
    IDENTITIES.replace(identity, cached)
    return cached


def _reduce_weak(weak: Any, result: bool) -> Reduced:
    return type(weak), (dict(weak),)


# ---------------------------------------------------------------- types that are no classes


def _reduce_new_type(new: Any, result: bool) -> Reduced:
    if find_importable(new) is new:
        return str(new.__qualname__)
    return make_new_type, (new.__name__, new.__qualname__, new.__module__, new.__supertype__, IDENTITIES.name(new))


def make_new_type(name: str, path: str, module: str, supertype: Any, identity: str) -> Any:
    """Return the new type of that identity, which is made if there is none yet."""
    if (known := IDENTITIES.get(identity)) is not None:
        return known
    made = _NewType(name, supertype)
    made.__qualname__, made.__module__ = path, module
    return IDENTITIES.add(identity, made)


class Later:
    """Lazily evaluated values of a type alias or type variable, which may refer to the alias or variable itself."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[Any, Exception | None]] = {}

    def __call__(self, part: str) -> Any:
        """Return a value, or raise what evaluating it raised."""
        value, error = self.values[part]
        if error is not None:
            raise error
        return value


_later: weakref.WeakValueDictionary[str, Later] = weakref.WeakValueDictionary()
"""By identity, until the values are set and evaluated."""


def _evaluated(get: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """Evaluate a lazy value. A name that does not exist is an error only when the value is used."""
    try:
        return get(), None
    except NameError as error:
        return None, NameError(str(error))


def set_later(made: Any, state: tuple[str, dict[str, tuple[Any, Exception | None]]]) -> Any:
    """Set the lazy values of an object."""
    identity, values = state
    if (later := _later.get(identity)) is not None:
        later.values = values
    return made


def _reduce_alias(alias: Any, result: bool) -> Reduced:
    if find_importable(alias) is alias:
        return str(alias.__name__)
    identity = IDENTITIES.name(alias)
    made = alias.__name__, alias.__module__, alias.__type_params__, identity
    return make_alias, made, (identity, {"value": _evaluated(lambda: alias.__value__)}), None, None, set_later


def make_alias(name: str, module: str, params: tuple[Any, ...], identity: str) -> Any:
    """Return the type alias of that identity. If there is none yet, make it without its value."""
    if (known := IDENTITIES.get(identity)) is not None:
        return known
    _later[identity] = later = Later()
    code = compile(f"type {name} = later('value')", "<alias>", "exec")
    if params:  # only source code makes lazy aliases, and it cannot refer to existing type variables
        code = code.replace(co_consts=tuple(params if each is None else each for each in code.co_consts))
    namespace: dict[str, Any] = {"later": later, "__name__": module}
    exec(code, namespace)
    return IDENTITIES.add(identity, namespace[name])


def _reduce_variable(variable: Any, result: bool) -> Reduced:
    if find_importable(variable) is variable:
        return getattr, (sys.modules[variable.__module__], variable.__name__)
    identity, kind = IDENTITIES.name(variable), type(variable)
    made: tuple[Any, ...] = kind, variable.__name__, variable.__module__
    has_default = getattr(variable, "has_default", bool)()
    if kind is typing.TypeVar and variable.__infer_variance__ and not has_default:
        count = len(variable.__constraints__)
        values = {"bound": _evaluated(lambda: variable.__bound__)}
        values |= {str(index): (each, None) for index, each in enumerate(variable.__constraints__)}
        return make_lazy_variable, (*made, count, identity), (identity, values), None, None, set_later
    names = _OPTIONS if kind is typing.TypeVar else ()
    options = {name: getattr(variable, f"__{name}__") for name in names}
    if has_default:
        options["default"] = variable.__default__
    return make_variable, (*made, getattr(variable, "__constraints__", ()), options, identity)


_OPTIONS = ("bound", "covariant", "contravariant", "infer_variance")
"""Arguments of a type variable."""


def make_lazy_variable(kind: type, name: str, module: str, count: int, identity: str) -> Any:
    """Return the type variable of that identity. If there is none yet, make it without its bound or constraints."""
    if (known := IDENTITIES.get(identity)) is not None:
        return known
    _later[identity] = later = Later()
    bound = ", ".join(f"later('{index}')" for index in range(count))
    namespace: dict[str, Any] = {"later": later}
    exec(f"type alias[{name}: {f'({bound})' if count else "later('bound')"}] = 0", namespace)
    made = namespace["alias"].__type_params__[0]
    made.__module__ = module
    return IDENTITIES.add(identity, made)


def make_variable(
    kind: Any, name: str, module: str, constraints: tuple[Any, ...], options: dict[str, Any], identity: str
) -> Any:
    """Return the type variable of that identity, which is made if there is none yet."""
    if (known := IDENTITIES.get(identity)) is not None:
        return known
    made = kind(name, *constraints, **options)
    made.__module__ = module
    return IDENTITIES.add(identity, made)


_REDUCERS: dict[type, Callable[[Any, bool], Reduced | None]] = {
    ModuleType: _reduce_module,
    Remote: _reduce_remote,
    _LruCache: _reduce_cached,
    weakref.WeakKeyDictionary: _reduce_weak,
    weakref.WeakValueDictionary: _reduce_weak,
    typing.NewType: _reduce_new_type,
    typing.TypeAliasType: _reduce_alias,
    typing.TypeVar: _reduce_variable,
    typing.ParamSpec: _reduce_variable,
    typing.TypeVarTuple: _reduce_variable,
}
