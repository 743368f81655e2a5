"""Find the part of a call that cannot be pickled, and name it in the user's terms: `args[0].conn`.

This runs only after pickling has failed, so it may take some time, up to `SEARCH_TIMEOUT_S`. It descends from the call
to the part that fails, then to the failing part of that, and so on. Each part is tested by pickling it, without keeping
the result. The values on the path are treated as pickled, so that cycles end. Among many parts, binary search finds the
failing one, so that a list of a million costs about as much as pickling it three times.
"""

import copyreg
import dis
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from types import BuiltinFunctionType, CodeType, FunctionType, GeneratorType, MappingProxyType, MethodType
from typing import Any

import cloudpickle

from skyward.errors import NotPortable, short_repr
from skyward.remote.call_repr import as_written, name_of
from skyward.remote.serialization import arrays
from skyward.remote.serialization.reducers import ByValuePickler

SEARCH_TIMEOUT_S = 2.0
"""Seconds for the search; after that, the last part found is the answer."""

MAX_SEARCH_DEPTH = 50
"""Longest path; a longer one would not help."""

type Parts = tuple[Sequence[object], Callable[[int], str]]
"""Parts of a value, and a function that returns the next step of the path for the index of a part."""


def culprit(fn: Callable[..., object], args: Sequence[object], kwargs: Mapping[str, object]) -> str | None:
    """Return the path to what cannot be pickled in `fn(*args, **kwargs)`, or None if it is not a single part.

    Never raises. Paths look like `args[0]`, `kwargs["client"]._lock`, `args[1]["key"][3].conn`, `args[0]: key (1, 2)`,
    `fn: closure variable 'lock'`, `fn: global variable 'db'`, `fn: default of 'x'`, `fn.__self__._lock`.
    """
    search = _search(fn, args, kwargs)
    return search.path or None


def refuse(
    error: BaseException,
    fn: Callable[..., object],
    args: Sequence[object],
    kwargs: Mapping[str, object],
    reduce: arrays.Reducer = arrays.by_content,
) -> NotPortable:
    """Return the exception to raise from `error` of pickling `fn(*args, **kwargs)`. Its text says what to change.

    `reduce` is the reducer of arrays that was used.
    """
    search = _search(fn, args, kwargs, reduce, getattr(fn, "steps", 1))
    head, reason = f"{name_of(fn)} cannot be sent to a node", _first_line(error)
    if isinstance(error, arrays.NotReachable):
        where = f"{search.path} ({_type_name(search.value)}): " if search.path else ""
        return NotPortable(f"{head}: {where}{error}. {error.fix}", search.path)
    if not search.path:
        return NotPortable(f"{head}: {reason}. Pass plain data, and build the rest inside the function.")
    if search.too_deep:
        return NotPortable(f"{head}: {search.path} is nested too deeply to be pickled. Pass it flat.", search.path)
    fix = "Create it inside the function, or pass what is needed to build it."
    if isinstance(search.value, GeneratorType):
        fix = "Create it inside the function, or pass a list of what it yields."
    found = f"{search.path} ({_type_name(search.value)}) cannot be pickled"
    return NotPortable(f"{head}: {found}: {reason}. {fix}", search.path)


def refuse_result(error: BaseException, fn: Callable[..., object], value: object) -> NotPortable:
    """Return the exception for a `value` of `fn` that cannot be pickled. Paths look like `result[2].conn`."""
    search = _search(len, (value,), {}, steps=2 if hasattr(fn, "steps") else 1)
    path = "result" + search.path.removeprefix("args[0]")
    why = f"{path}: {_first_line(error)}. Return plain data, or what is needed to build it again."
    if search.too_deep:
        why = f"{path} is nested too deeply. Return it flat."
    return NotPortable(f"the result of {name_of(fn)} cannot be pickled: {why}", path)


# ---------------------------------------------------------------- the search


class _OutOfTimeError(Exception):
    pass


class _Search:
    """The state of a search: the path, the value there, and the values on the path."""

    def __init__(self, deadline: float, reduce: arrays.Reducer, steps: int) -> None:
        self.path = ""
        self.value: object = None
        self.too_deep = False
        self._deadline, self._reduce, self._steps = deadline, reduce, steps
        self._way: dict[int, object] = {}  # by id; the references keep the ids valid

    def descend(self, parts: Iterator[Parts]) -> bool:
        """Descend to the first part that fails; return False if none does, or the path is long enough."""
        for values, step in parts:
            found = self._first(values)
            if found is None:
                continue
            index, error = found
            too_deep = isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError)
            if too_deep and self._repeats(type(values[index])):
                return False  # its parts are too deep as well, until the rest fits the recursion limit
            self.path, self.value, self.too_deep = self.path + step(index), values[index], too_deep
            self._way[id(self.value)] = self.value
            return len(self._way) < MAX_SEARCH_DEPTH
        return False

    def _repeats(self, kind: type) -> bool:
        """Return whether a type of part occurs on the path already, not counting the call itself."""
        return len(self._way) >= self._steps and kind in [*map(type, self._way.values())][self._steps - 1 :]

    def _first(self, values: Sequence[object]) -> tuple[int, Exception] | None:
        if self._error(values) is None:
            return None
        low, high = 0, len(values)
        while high - low > 1:
            middle = (low + high) // 2
            if self._error(values[low:middle]) is None:
                low = middle
            else:
                high = middle
        error = self._error(values[low:high])  # None: the parts fail only together
        return None if error is None else (low, error)

    def _error(self, values: Sequence[object]) -> Exception | None:
        try:
            _Probe(self._way, self._deadline, self._reduce).dump(list(values))
        except _OutOfTimeError:
            raise
        except Exception as error:  # noqa: BLE001 - user code runs here: `__reduce__`, `__getstate__`
            return error
        return None


class _Probe(ByValuePickler):
    """Pickles without keeping the result, and treats the values on the path as pickled."""

    def __init__(self, way: Mapping[int, object], deadline: float, reduce: arrays.Reducer) -> None:
        super().__init__(_Nothing(deadline), protocol=5, buffer_callback=_drop)
        self._way, self._reduce = way, reduce

    def persistent_id(self, value: object) -> int | None:
        return 0 if id(value) in self._way else None


class _Nothing:
    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def write(self, data: bytes) -> int:
        if time.monotonic() > self._deadline:
            raise _OutOfTimeError
        return len(data)


def _drop(buffer: object) -> None:
    """Take a buffer out of band, so that a large array is not copied."""


def _search(
    fn: object,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    reduce: arrays.Reducer = arrays.by_content,
    steps: int = 1,
) -> _Search:
    search = _Search(time.monotonic() + SEARCH_TIMEOUT_S, reduce, steps)
    try:
        parts = _of_call(fn, args, kwargs)
        while search.descend(parts):
            parts = _of(search.value)
    except Exception:  # noqa: BLE001 - out of time, or user code: the path so far is still right
        pass
    return search


# ---------------------------------------------------------------- the parts of a value, as pickling sees them


def _of_call(fn: object, args: Sequence[object], kwargs: Mapping[str, object]) -> Iterator[Parts]:
    yield [fn], lambda _: "fn"
    yield args, lambda index: f"args[{index}]"
    yield _named(kwargs, lambda name: f"kwargs[{_key(name)}]")


def _of(value: object) -> Iterator[Parts]:
    match value:
        case FunctionType():
            return _of_function(value)
        case type():
            return _of_class(value)
        case MethodType():
            return iter([_named({"__self__": value.__self__, "__func__": value.__func__})])
        case BuiltinFunctionType():
            return iter([_named({"__self__": value.__self__})])
        case property():
            return iter([_named({"fget": value.fget, "fset": value.fset, "fdel": value.fdel})])
        case staticmethod() | classmethod():
            return iter([_named({"__func__": value.__func__})])
        case _:
            return chain(_of_contents(value), _of_object(value))


def _of_contents(value: Any) -> Iterator[Parts]:
    match value:
        case partial():
            yield _named({"func": value.func})
            yield value.args, lambda index: f".args[{index}]"
            yield _named(value.keywords, lambda name: f".keywords[{_key(name)}]")
        case dict() | MappingProxyType():
            keys = list(value)
            yield keys, lambda index: f": key {short_repr(keys[index])}"
            yield list(value.values()), lambda index: f"[{_key(keys[index])}]"
        case list() | tuple() | deque():
            yield list(value), lambda index: f"[{index}]"
        case set() | frozenset():
            members = list(value)
            yield members, lambda index: f": item {short_repr(members[index])}"
        case BaseException():
            yield value.args, lambda index: f".args[{index}]"
        case _ if getattr(getattr(value, "dtype", None), "hasobject", False) is True:  # a NumPy array of objects
            yield list(value.flat), lambda index: f".flat[{index}]"


def _of_function(fn: FunctionType) -> Iterator[Parts]:
    """Yield the parts of a function by value; functions that can be imported do not fail."""
    code = fn.__code__
    cells = dict(zip(code.co_freevars, fn.__closure__ or (), strict=True))
    yield _named(
        {name: cell.cell_contents for name, cell in cells.items() if _is_full(cell)}, _said("closure variable")
    )
    names = [name for name in _globals_of(code) if name in fn.__globals__]
    yield _named({name: fn.__globals__[name] for name in names}, _said("global variable"))
    defaults = fn.__defaults__ or ()
    positional = code.co_varnames[: code.co_argcount]
    usual = dict(zip(reversed(positional), reversed(defaults), strict=False))
    yield _named({**usual, **(fn.__kwdefaults__ or {})}, _said("default of"))
    yield _named(fn.__dict__)
    yield _named(fn.__annotations__, _said("annotation of"))


def _is_full(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _globals_of(code: CodeType) -> dict[str, None]:
    """Return the names of globals that a function reads, in order, nested functions included."""
    names = {found.argval: None for found in dis.get_instructions(code) if found.opname == "LOAD_GLOBAL"}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _globals_of(constant)
    return names


_NOT_SENT = {"__dict__", "__weakref__", "_abc_impl", "__doc__", "__module__"}


def _of_class(cls: type) -> Iterator[Parts]:
    """Yield the parts of a class by value."""
    yield _named({name: part for name, part in vars(cls).items() if name not in _NOT_SENT})
    yield cls.__bases__, lambda index: f".__bases__[{index}]"


def _of_object(value: object) -> Iterator[Parts]:
    """Yield the parts of an object's reduced form, named by its attributes or by how to get them."""
    if hasattr(type(value), "__array_finalize__"):  # an array may be too large to be copied here
        yield _named(arrays.attributes(value))
        return
    reducer = cloudpickle.Pickler.dispatch_table.get(type(value)) or copyreg.dispatch_table.get(type(value))
    reduced = reducer(value) if reducer else value.__reduce_ex__(5)
    if not isinstance(reduced, tuple):
        return
    constructor, arguments, state, *_ = (*reduced, None)
    names = {id(part): f".{name}" for name, part in _attributes(value)} | {id(type(value)): ".__class__"}
    yield from _of_state(state, names, ".__getstate__()" if _has_getstate(value) else ".__reduce__()[2]")
    yield arguments, lambda index: names.get(id(arguments[index]), f".__reduce__()[1][{index}]")
    yield [constructor], lambda _: names.get(id(constructor), ".__reduce__()[0]")


def _of_state(state: object, names: Mapping[int, str], asked: str) -> Iterator[Parts]:
    match state:
        case None:
            pass
        case (None | dict() as plain, dict() as slots):  # `object.__getstate__` with `__slots__`
            yield from _of_state(plain, names, f"{asked}[0]")
            yield from _of_state(slots, names, f"{asked}[1]")
        case dict():
            keys = list(state)
            yield list(state.values()), lambda i: names.get(id(state[keys[i]]), f"{asked}[{_key(keys[i])}]")
            yield keys, lambda i: f"{asked}: key {short_repr(keys[i])}"
        case list() | tuple():
            yield state, lambda i: names.get(id(state[i]), f"{asked}[{i}]")
        case _:
            yield [state], lambda _: names.get(id(state), asked)


def _has_getstate(value: object) -> bool:
    return type(value).__getstate__ is not object.__getstate__  # type: ignore[attr-defined, unused-ignore]


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            private = slot.startswith("__") and not slot.endswith("__")
            name = f"_{cls.__name__.lstrip('_')}{slot}" if private else slot
            if name != "__dict__" and hasattr(value, name):
                yield name, getattr(value, name)
    yield from getattr(value, "__dict__", {}).items()


# ---------------------------------------------------------------- words


def _named(parts: Mapping[str, object], step: Callable[[str], str] = lambda name: f".{name}") -> Parts:
    names = list(parts)
    return list(parts.values()), lambda index: step(names[index])


def _said(role: str) -> Callable[[str], str]:
    return lambda name: f": {role} {name!r}"


def _key(key: object) -> str:
    if isinstance(key, str) and key.isprintable() and not {'"', "\\"} & set(key):
        return f'"{key}"'
    return short_repr(key)


def _type_name(value: object) -> str:
    kind = type(value)
    name = as_written(kind.__qualname__)
    return name if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{name}"


def _first_line(error: BaseException) -> str:
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # noqa: BLE001 - the text of an exception of user code
        lines = []
    return f"{type(error).__name__}: {lines[0][:200].rstrip('.')}" if lines else type(error).__name__
