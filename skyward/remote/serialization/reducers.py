"""Pickle by value what a script defines beside functions, so that nothing is looked up by name.

cloudpickle pickles type aliases, new types, most type variables and cached functions by their name in `__main__`, which
no node has. Here they are rebuilt, each once for its identity. Every other object that would be pickled as a name that
nodes do not have is refused.
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
from skyward.remote.serialization.identities import IDENTITIES, find, is_sent_by_value

type Reduced = str | tuple[Any, ...]

_LruCache: type = type(functools.lru_cache(len))
_NewType: Any = typing.NewType


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined, unused-ignore]
    """Pickles what the other end may not be able to import; refuses what would go by a name that it does not have."""

    result: ClassVar = False
    """Whether it pickles what goes home: there a class or a cached function is the driver's own."""
    _reduce: arrays.Reducer

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is FunctionType:
            if (found := find(obj)) is obj:
                return NotImplemented  # by its name, as pickle does it
            if (named := _in_remote(obj, found)) is not None:
                return named
            reduced = super().reducer_override(obj)
            if obj.__type_params__ and reduced is not NotImplemented:
                reduced[2][1]["__type_params__"] = obj.__type_params__  # cloudpickle forgets these
            return reduced
        if issubclass(kind, type):
            if issubclass(obj, Warning) and find(obj) is obj:
                return missing_modules.by_name(obj) or NotImplemented
            return reduce_class(obj, result=self.result) if is_dynamic(obj) else super().reducer_override(obj)
        if (reduced := self._reduce(obj)) is None:
            reduced = _reduce_object(obj, kind, self.result)
        return NotImplemented if reduced is None else reduced


def _reduce_object(obj: Any, kind: type, result: bool) -> Reduced | None:
    """Return how to pickle an object that is neither a class nor a function, None if pickle does it well."""
    if (reducer := _REDUCERS.get(kind)) is not None:
        return reducer(obj, result)
    if kind in cloudpickle.Pickler._dispatch_table:
        return None
    own = dispatch_table.get(kind)  # as pickle does next, which asks a `ChainMap` and is slower
    if own is None and isinstance(obj, Enum) and (named := reduce_member(obj)) is not None:
        return named
    reduced: Reduced = obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL) if own is None else own(obj)
    if isinstance(reduced, str) and is_sent_by_value(module := module_of(obj, reduced)):
        raise pickle.PicklingError(f"it is pickled as the name {reduced!r} in {module}, which nodes do not have")
    return reduced


def module_of(obj: Any, name: str) -> str:
    """Return the module in which pickle looks for an object that it pickles as this name."""
    module: str = getattr(obj, "__module__", None) or pickle.whichmodule(obj, name)  # type: ignore[attr-defined]
    return module


def _reduce_module(module: ModuleType, result: bool) -> None:
    if module.__name__ in ("__main__", "__mp_main__"):
        raise pickle.PicklingError("it is the script itself, which nodes do not have")


# ---------------------------------------------------------------- what goes by its name


def importable(fn: FunctionType | Remote[..., Any] | type) -> bool:
    """Whether a node finds the very same function or class under its module and name."""
    return find(fn) is fn


def as_remote(fn: FunctionType) -> tuple[Any, ...] | None:
    """Return how to reduce a function that nodes find only inside a remote function of its name; None for another."""
    return _in_remote(fn, find(fn))


def _in_remote(fn: FunctionType, found: object) -> tuple[Any, ...] | None:
    return (getattr, (found, "_fn")) if type(found) is Remote and found._fn is fn else None


def _reduce_remote(remote: Any, result: bool) -> Reduced:
    # its own `__reduce__` is for this machine, where `__main__` can be found
    return str(remote.__qualname__) if importable(remote) else (Remote, (remote._fn, remote._terms))


# ---------------------------------------------------------------- cached functions and weak dictionaries


def _reduce_cached(cached: Any, result: bool) -> Reduced:
    if find(cached) is cached:
        return str(cached.__qualname__)
    parameters = cached.cache_parameters()
    state = {name: value for name, value in vars(cached).items() if name != "cache_parameters"}
    return make_cached, (cached.__wrapped__, parameters, IDENTITIES.name(cached), result), state


def make_cached(fn: Callable[..., object], parameters: dict[str, Any], identity: str, result: bool) -> Any:
    """Return a function with an empty cache; in a result the driver's own one, if there is one."""
    if result and (known := IDENTITIES.get(identity)) is not None:
        return known
    cached = functools.lru_cache(**parameters)(fn)
    IDENTITIES.replace(identity, cached)
    return cached


def _reduce_weak(weak: Any, result: bool) -> Reduced:
    return type(weak), (dict(weak),)


# ---------------------------------------------------------------- types that are no classes


def _reduce_new_type(new: Any, result: bool) -> Reduced:
    if find(new) is new:
        return str(new.__qualname__)
    return make_new_type, (new.__name__, new.__qualname__, new.__module__, new.__supertype__, IDENTITIES.name(new))


def make_new_type(name: str, path: str, module: str, supertype: Any, identity: str) -> Any:
    """Return the new type of that identity."""
    if (known := IDENTITIES.get(identity)) is not None:
        return known
    made = _NewType(name, supertype)
    made.__qualname__, made.__module__ = path, module
    return IDENTITIES.add(identity, made)


class Later:
    """Values that are evaluated later: that of a type alias, the bound of a type variable. They may refer to these."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[Any, Exception | None]] = {}

    def __call__(self, part: str) -> Any:
        """Return a value, or raise what evaluating it raised."""
        value, error = self.values[part]
        if error is not None:
            raise error
        return value


_later: weakref.WeakValueDictionary[str, Later] = weakref.WeakValueDictionary()
"""By identity, for as long as a value has not been asked for."""


def _evaluated(get: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """Evaluate a lazy value: it may name what exists nowhere, which is no error until somebody asks for it."""
    try:
        return get(), None
    except NameError as error:
        return None, NameError(str(error))


def set_later(made: Any, state: tuple[str, dict[str, tuple[Any, Exception | None]]]) -> Any:
    """Set the values that are evaluated later."""
    identity, values = state
    if (later := _later.get(identity)) is not None:
        later.values = values
    return made


def _reduce_alias(alias: Any, result: bool) -> Reduced:
    if find(alias) is alias:
        return str(alias.__name__)
    identity = IDENTITIES.name(alias)
    made = alias.__name__, alias.__module__, alias.__type_params__, identity
    return make_alias, made, (identity, {"value": _evaluated(lambda: alias.__value__)}), None, None, set_later


def make_alias(name: str, module: str, params: tuple[Any, ...], identity: str) -> Any:
    """Return the type alias of that identity; where there is none yet, make it without its value."""
    if (known := IDENTITIES.get(identity)) is not None:
        return known
    _later[identity] = later = Later()
    code = compile(f"type {name} = later('value')", "<alias>", "exec")
    if params:  # an alias is lazy only in source code, which has no way to name type variables that exist
        code = code.replace(co_consts=tuple(params if each is None else each for each in code.co_consts))
    namespace: dict[str, Any] = {"later": later, "__name__": module}
    exec(code, namespace)
    return IDENTITIES.add(identity, namespace[name])


def _reduce_variable(variable: Any, result: bool) -> Reduced:
    if find(variable) is variable:
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
"""What a type variable is made with."""


def make_lazy_variable(kind: type, name: str, module: str, count: int, identity: str) -> Any:
    """Return the type variable of that identity; where there is none yet, make it without its bound or constraints."""
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
    """Return the type variable of that identity."""
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
