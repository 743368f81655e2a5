"""The number of items that an iterable will yield, if that is certain before it is iterated over.

Nothing is consumed and no code of the user is run. A length is known of Python's own containers and iterators, of
`enumerate`, `zip`, `map`, `itertools.islice` and `itertools.product` over such, of a generator expression without a
filter over such, whose inner loops are over containers that are known before, and of what a bar of `tqdm` or
`rich.progress` was told or wraps. Of all else nothing is said, nor of an iterator from which items are taken in two
ways, as in `zip(it, it)`.
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

_CONTAINERS = (list, tuple, range, dict, set, frozenset, str, bytes, bytearray, deque, OrderedDict, defaultdict)
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
    """Return how many items iterating would give from now on; None where that is not certain, or there is no end."""
    try:
        length = _Reading().length(iterable)
    except Exception:  # noqa: BLE001 - a length that nobody knows, whatever is wrong with it
        return None
    return None if length is None or length == math.inf else int(length)


class _TakenTwiceError(Exception):
    """Items of an iterator are taken in two ways."""


class _Reading:
    """Reads a length, and notes the iterators that items are taken from."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def length(self, iterable: Any) -> float | None:
        kind = type(iterable)
        if kind in _CONTAINERS or kind in _VIEWS:
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
        """Return a length unless items are taken from one of these objects, which code may take from as well."""
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
        """Return how often the innermost loop goes round, if each inner one can go over the same items again."""
        for each in inner:
            if length is None or type(each) not in (*_CONTAINERS, *_VIEWS) or not (len(each) or length < math.inf):
                return None
            length *= len(each)
        return length

    def _sliced(self, iterator: "itertools.islice[Any]") -> float | None:
        """Return the length of a slice by its next index and the items it has taken, as it says when it is pickled."""
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
        """Return the length of what a `tqdm` wraps, or what it was told is left."""
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
    """Return what one of Python's iterators is made of, as it says when it is pickled."""
    parts: tuple[Any, ...] = iterator.__reduce__()[1]
    return parts


def _is_array(value: object) -> bool:
    numpy: Any = sys.modules.get("numpy")
    return numpy is not None and type(value) in (numpy.ndarray, numpy.memmap)


def _product(product: "itertools.product[Any]") -> int | None:
    """Return the length of a product that has given nothing yet: it refers to its factors, and to its last item."""
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
    """Return the objects that a function sees by name, or is bound to."""
    if isinstance(function, MethodType):
        return [function.__self__, *_seen(function.__func__)]
    if isinstance(function, partial):
        return [*function.args, *function.keywords.values(), *_seen(function.func)]
    if not isinstance(function, FunctionType):
        return []
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [*cells, *(function.__defaults__ or ()), *_globals(function.__code__, function.__globals__)]


def _globals(code: CodeType, names: dict[str, Any]) -> Iterator[object]:
    """Yield the globals that code, and that inside it, may look at."""
    yield from (names[name] for name in code.co_names if name in names)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _globals(const, names)
