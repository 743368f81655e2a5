"""How many items an iterable has yet to give, where that is certain before it is iterated over.

Nothing is consumed and no code of the user is run. A length is known of Python's own containers and iterators, of
`enumerate`, `zip`, `map` and `itertools.product` over such, of a generator expression with one loop and no filter over
such, and of what a `tqdm` was told or wraps. Of all else nothing is said.
"""

import dis
import itertools
import math
import operator
import sys
from collections import OrderedDict, defaultdict, deque
from functools import lru_cache
from gc import get_referents
from inspect import GEN_CREATED, getgeneratorstate
from types import CodeType, GeneratorType
from typing import Any

_CONTAINERS = (list, tuple, range, dict, set, frozenset, str, bytes, bytearray, deque, OrderedDict, defaultdict)
_VIEWS = (type({0: 0}.keys()), type({0: 0}.values()), type({0: 0}.items()))


class _Sequence:
    def __getitem__(self, index: int) -> None: ...


_ITERATORS = (
    *(type(iter(kind())) for kind in (list, tuple, dict, set, str, bytes, bytearray, deque, OrderedDict)),
    *(type(reversed(kind())) for kind in (list, tuple, dict)),
    *map(type, (iter({0: 0}.values()), iter({0: 0}.items()), iter(range(1)), iter("é"), iter(_Sequence()))),
)

_ALWAYS = frozenset(["JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"])
_ENDS = frozenset(["RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE"])
_JUMPS = frozenset([*dis.hasjrel, *dis.hasjabs])


def length_of(iterable: Any) -> int | None:
    """Return how many items iterating would give from now on; None where that is not certain, or there is no end."""
    try:
        length = _length(iterable)
    except Exception:  # noqa: BLE001 - a length that nobody knows, whatever is wrong with it
        return None
    return None if length is None or length == math.inf else int(length)


def _length(iterable: Any) -> float | None:
    kind = type(iterable)
    if kind in _CONTAINERS or kind in _VIEWS:
        return len(iterable)
    if kind in _ITERATORS:
        return operator.length_hint(iterable, -1)
    match iterable:
        case enumerate():
            return _length(_parts(iterable)[0])
        case zip():
            return _shortest(_parts(iterable))
        case map():
            return _shortest(_parts(iterable)[1:])
        case itertools.count() | itertools.cycle():
            return math.inf
        case itertools.repeat():
            return operator.length_hint(iterable) if "," in repr(iterable) else math.inf
        case itertools.product():
            return _product(iterable)
        case GeneratorType():
            return _generated(iterable)
        case _:
            return _told(iterable)


def _parts(iterator: Any) -> tuple[Any, ...]:
    """Return what one of Python's iterators is made of, as it says when it is pickled."""
    parts: tuple[Any, ...] = iterator.__reduce__()[1]
    return parts


def _shortest(iterators: tuple[Any, ...]) -> float | None:
    lengths = [_length(each) for each in iterators]
    known = [length for length in lengths if length is not None]
    return min(known) if known and len(known) == len(lengths) else None


def _product(product: "itertools.product[Any]") -> int | None:
    """Return the length of a product that has given nothing yet: it refers to its factors, and to its last item."""
    match get_referents(product):
        case [tuple(factors)] | [type(), tuple(factors)] if all(type(each) is tuple for each in factors):
            return math.prod(len(each) for each in factors)
        case _:
            return None


def _generated(generator: "GeneratorType[Any, Any, Any]") -> float | None:
    frame = generator.gi_frame
    if frame is None or generator.gi_running:
        return None
    names = frame.f_locals
    if generator.gi_code.co_name == "<genexpr>" and ".0" in names:
        return _length(names[".0"]) if _gives_each(generator.gi_code) else None
    if generator.gi_code.co_name == "__iter__" and getgeneratorstate(generator) == GEN_CREATED:
        return _told(names.get("self"))
    return None


def _told(bar: Any) -> float | None:
    """Return the length of what a `tqdm` wraps, or what it was told."""
    kind = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    if kind is None or not isinstance(bar, kind) or bar.iterable is None:
        return None
    length = _length(bar.iterable)
    return length if length is not None or not bar.total else int(bar.total)


@lru_cache(maxsize=256)
def _gives_each(code: CodeType) -> bool:
    """Whether a generator expression gives exactly one item for each one of its loop, on every way through its code."""
    steps = list(dis.get_instructions(code))
    places = {step.offset: place for place, step in enumerate(steps)}
    loop = next(place for place, step in enumerate(steps) if step.opname == "FOR_ITER")
    ways, seen = [(loop + 1, 0)], set[tuple[int, int]]()
    while ways:
        place, given = way = ways.pop()
        if way in seen:
            continue
        seen.add(way)
        step = steps[place]
        if place == loop:
            if given != 1:
                return False
            continue
        if step.opname in _ENDS or given > 1:
            return False
        given += step.opname == "YIELD_VALUE"
        if step.opcode in _JUMPS:
            ways.append((places[step.argval], given))
        if step.opname not in _ALWAYS:
            ways.append((place + 1, given))
    return True
