"""The number of items that an iterable will yield, if that is certain before it is iterated over.

Nothing is consumed, and no user code is run. The length is known for Python's own containers and iterators; for
`enumerate`, `zip`, `map`, `itertools.islice` and `itertools.product` of those; for generator expressions over those
without a filter, whose inner loops go over containers; and for progress bars of `tqdm` and `rich.progress`. It is not
known for anything else, nor if an iterator is consumed in two places, as in `zip(it, it)`.
"""

import itertools
import math
import operator
import sys
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from functools import partial
from gc import get_referents
from inspect import GEN_CREATED, getgeneratorstate
from types import CodeType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

from skyward.calls.generator_loops import inner_iterables

_SIZED_TYPES = (list, tuple, range, dict, set, frozenset, str, bytes, bytearray, deque, OrderedDict, defaultdict)
_VIEWS = (type({0: 0}.keys()), type({0: 0}.values()), type({0: 0}.items()))


class _Sequence:
    def __getitem__(self, index: int) -> None: ...


_ITERATORS = (
    *(type(iter(kind())) for kind in (list, tuple, dict, set, str, bytes, bytearray, deque, OrderedDict)),
    *(type(reversed(kind())) for kind in (list, tuple, dict)),
    *map(type, (iter({0: 0}.values()), iter({0: 0}.items()), iter(range(1)), iter("é"))),
)
_BY_INDEX = type(iter(_Sequence()))
_ENDLESS = (itertools.count, itertools.cycle)


def length_of(iterable: Any) -> int | None:
    """Return how many items are left, or None if that is not certain or there is no end."""
    try:
        length = _Reading().length(iterable)
    except Exception:  # noqa: BLE001 - then the length is not known
        return None
    return None if length is None or length == math.inf else int(length)


class _TakenTwiceError(Exception):
    """An iterator is consumed in two places."""


class _Reading:
    """Determines a length, and collects the iterators that are consumed."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def length(self, iterable: Any) -> float | None:
        kind = type(iterable)
        if kind in _SIZED_TYPES or kind in _VIEWS:
            return len(iterable)
        if kind in _ENDLESS:
            return math.inf
        if isinstance(iterable, Iterator):
            self._take(iterable)
        if kind in _ITERATORS or (kind is _BY_INDEX and _is_array(_parts(iterable)[0])):
            return operator.length_hint(iterable, -1)
        if kind is enumerate:
            return self.length(_parts(iterable)[0])
        if kind is zip:
            return self._shortest(_parts(iterable))
        if kind is map:
            function, *iterators = _parts(iterable)
            return None if function is next else self._reached(self._shortest(iterators), _seen(function))
        if kind is itertools.repeat:
            left = operator.length_hint(iterable, -1)
            return math.inf if left == -1 else left
        if kind is itertools.product:
            return _product(iterable)
        if kind is itertools.islice:
            return self._sliced(iterable)
        if kind is GeneratorType:
            return self._generated(iterable)
        return self._told(iterable)

    def _take(self, iterator: object) -> None:
        if id(iterator) in self._taken:
            raise _TakenTwiceError
        self._taken.add(id(iterator))

    def _reached(self, length: float | None, objects: Iterable[object]) -> float | None:
        """Return the length, or None if one of these objects is consumed: user code may consume it as well."""
        seen = [part for each in objects for part in (each, *_attributes(each))]
        return None if self._taken.intersection(map(id, seen)) else length

    def _shortest(self, iterators: Iterable[Any]) -> float | None:
        lengths = [self.length(each) for each in iterators]
        known = [length for length in lengths if length is not None]
        return min(known) if known and len(known) == len(lengths) else None

    def _generated(self, generator: "GeneratorType[Any, Any, Any]") -> float | None:
        frame, code = generator.gi_frame, generator.gi_code
        if frame is None or generator.gi_running:
            return None
        names, is_new = frame.f_locals, getgeneratorstate(generator) == GEN_CREATED
        if code.co_name == "<genexpr>" and ".0" in names:
            inner = inner_iterables(frame)
            if inner is None or (inner and not is_new):
                return None
            length = self._times(self.length(names[".0"]), inner)
            others = [value for name, value in names.items() if name != ".0"]
            return self._reached(length, [*others, *_globals(code, frame.f_globals)])
        if code.co_name == "__iter__" and is_new:
            return self._told(names.get("self"))
        if is_new and code in _tracking():
            length, total = self.length(names["sequence"]), names["total"]
            return length if length is not None or not total else int(total - names["completed"])
        return None

    def _times(self, length: float | None, inner: Iterable[Any]) -> float | None:
        """Return the number of iterations of the innermost loop, or None if an inner iterable is not a container."""
        for each in inner:
            if length is None or type(each) not in (*_SIZED_TYPES, *_VIEWS) or not (len(each) or length < math.inf):
                return None
            length *= len(each)
        return length

    def _sliced(self, iterator: "itertools.islice[Any]") -> float | None:
        """Return the length of a slice from its pickle: the next index, and the number of items consumed."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Pickle, copy, and deepcopy", DeprecationWarning)
            parts: Any = iterator.__reduce__()
        _, (iterable, begin, *rest), taken = parts
        stop, step = rest or (begin, 1)
        length = self.length(iterable)
        if length is None:
            return None
        end: float = min(math.inf if stop is None else stop, taken + length)
        return end if end == math.inf else max(0, -(-int(end - begin) // step))

    def _told(self, bar: Any) -> float | None:
        """Return the length of what a `tqdm` bar wraps, or else what is left of its total."""
        kind = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
        if kind is None or not isinstance(bar, kind) or bar.iterable is None:
            return None
        if not type(bar).__iter__.__module__.startswith("tqdm."):
            return None
        length = self.length(bar.iterable)
        return length if length is not None or not bar.total else int(bar.total - bar.n)


def _tracking() -> tuple[CodeType, ...]:
    """Return the code of the generators of `rich.progress`."""
    progress: Any = sys.modules.get("rich.progress")
    return () if progress is None else (progress.track.__code__, progress.Progress.track.__code__)


def _parts(iterator: Any) -> tuple[Any, ...]:
    """Return the constructor's arguments in the pickle of a built-in iterator."""
    parts: tuple[Any, ...] = iterator.__reduce__()[1]
    return parts


def _is_array(value: object) -> bool:
    numpy: Any = sys.modules.get("numpy")
    return numpy is not None and type(value) in (numpy.ndarray, numpy.memmap)


def _product(product: "itertools.product[Any]") -> int | None:
    """Return the length of a new product, read from its references: one that has started also refers to an item."""
    match get_referents(product):
        case [tuple(factors)] | [type(), tuple(factors)] if all(type(each) is tuple for each in factors):
            return math.prod(len(each) for each in factors)
        case _:
            return None


def _attributes(value: object) -> Iterable[object]:
    if isinstance(value, (type, ModuleType, FunctionType)):
        return ()
    try:
        return tuple(object.__getattribute__(value, "__dict__").values())
    except AttributeError:
        return ()


def _seen(function: object) -> list[object]:
    """Return the objects that a function refers to by name, or is bound to."""
    if isinstance(function, MethodType):
        return [function.__self__, *_seen(function.__func__)]
    if isinstance(function, partial):
        return [*function.args, *function.keywords.values(), *_seen(function.func)]
    if not isinstance(function, FunctionType):
        return []
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [*cells, *(function.__defaults__ or ()), *_globals(function.__code__, function.__globals__)]


def _globals(code: CodeType, names: dict[str, Any]) -> Iterator[object]:
    """Yield the globals that code, including nested code, may read."""
    yield from (names[name] for name in code.co_names if name in names)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _globals(const, names)
