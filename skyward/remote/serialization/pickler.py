"""The picklers of calls and results: functions and classes that the other end cannot import go by value."""

import io
import pickle
import sys
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import CodeType, FunctionType
from typing import Any, ClassVar

import cloudpickle

from skyward.remote.blobs import Blob
from skyward.remote.serialization import arrays
from skyward.remote.serialization.module_references import Modules
from skyward.remote.serialization.namespace import in_main, shared
from skyward.remote.serialization.reducers import ByValuePickler, module_of


@dataclass(frozen=True, slots=True)
class Named:
    """A function or class that travels by value: its name, its bytes, and the blobs that these refer to."""

    name: str
    data: bytes
    blobs: tuple[Blob, ...]


class UnknownError(Exception):
    """Something is neither a value that pickle knows by itself nor a function that was met before."""


class LargeBufferError(Exception):
    """A large buffer has no place to go: the call has to be pickled with another pickler."""


# ---------------------------------------------------------------- what to do with a buffer


def _take(aside: Callable[[memoryview], Blob | None], taken: list[Blob], buffer: pickle.PickleBuffer) -> bool:
    """Put a large buffer aside; true keeps it in the payload."""
    if (blob := aside(buffer.raw())) is None:
        return True
    taken.append(blob)
    return False


def collect(least: int, found: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    """Take a buffer of so many bytes or more; true keeps it in the pickle."""
    content = buffer.raw()
    if content.nbytes < least:
        return True
    found.append(content)
    return False


def keep_small(large: int, buffer: pickle.PickleBuffer) -> bool:
    """Keep a buffer in the pickle.

    Raises
    ------
    LargeBufferError
        It has `large` bytes or more.
    """
    if buffer.raw().nbytes >= large:
        raise LargeBufferError
    return True


# ---------------------------------------------------------------- picklers


def code_of(filename: str, *parts: Any) -> CodeType:
    """Build a code object that says which file it is of: what a traceback shows."""
    return CodeType(*parts).replace(co_filename=filename)


def _reduce_code(code: CodeType) -> tuple[Callable[..., CodeType], tuple[Any, ...]]:
    """As cloudpickle does it, but with the name of the file, which it has dropped since 3.1.2."""
    _, parts = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return code_of, (code.co_filename, *parts)


class CallPickler(ByValuePickler):
    """Pickles what the other end may not be able to import; `name` says which functions stay beside.

    The modules that the other end needs are noted in `modules`, if there is one. `reduce` says how arrays are pickled.
    `keep` takes buffers that would else be blobs, and says whether they stay in the pickle.
    """

    dispatch_table: ClassVar = ChainMap({CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)

    def __init__(
        self,
        file: io.BytesIO,
        name: Callable[[FunctionType | type], Any] | None = None,
        aside: Callable[[memoryview], Blob | None] | None = None,
        modules: Modules | None = None,
        reduce: arrays.Reducer = arrays.by_content,
        keep: Callable[[pickle.PickleBuffer], bool] | None = None,
    ) -> None:
        self.modules, self._reduce = modules, reduce
        self.buffers: list[Blob] = []
        self.private: set[int] = set()  # which of `buffers` functions and classes by value hold
        # no method of its own: a pickler that refers to itself would be cyclic garbage, one for each call
        if keep is None and aside is not None:
            keep = partial(_take, aside, self.buffers)
        super().__init__(file, protocol=5, buffer_callback=keep)
        self._name, self._aside = name, aside
        self.met: dict[str, bytes] = {}
        self.beside: list[Blob] = []
        self.bytes: list[Blob] = []

    def reducer_override(self, obj: Any) -> Any:
        is_code = isinstance(obj, (FunctionType, type))
        known = self._name(obj) if is_code and self._name is not None else None
        if type(known) is Named:  # which modules it needs is known
            self.met[known.name] = known.data
            self.beside += known.blobs
            return shared, (known.name,)
        if self.modules is not None:
            self.modules.note(obj)
        if known is not None:
            return known
        if is_code:
            return _reduced_for_main(obj, super().reducer_override(obj))
        reduced = super().reducer_override(obj)
        if self.modules is not None and isinstance(reduced, str):
            self.modules.referred.add(module_of(obj, reduced))
        return reduced


class AgainPickler(pickle.Pickler):
    """Pickles values that pickle knows by itself, and functions whose names `_name` of a `Packer` has noted.

    It takes a third of the time. `UnknownError` is raised for everything else.
    """

    def __init__(self, file: io.BytesIO, names: Mapping[int, Any]) -> None:
        super().__init__(file, protocol=5)
        self._names = names
        self.met: list[FunctionType] = []

    def reducer_override(self, obj: Any) -> Any:
        known = self._names.get(id(obj))
        if type(known) is Named:
            if known.blobs:
                raise UnknownError
            known = shared, (known.name,)
        elif known is not NotImplemented:
            raise UnknownError
        self.met.append(obj)
        return known


class ResultPickler(CallPickler):
    """Pickles what goes home: classes that the driver has are left as they are there."""

    result = True


def _reduced_for_main(obj: FunctionType | type, reduced: Any) -> Any:
    """Have what is defined in the user's script made in the `__main__` of its batch."""
    if obj.__module__ != "__main__" or not isinstance(reduced, tuple):
        return reduced
    main = sys.modules["__main__"].__dict__
    own = _is_in(main, obj)
    if not own and (isinstance(obj, type) or obj.__globals__ is not main):
        return reduced
    make, args, *rest = reduced
    return in_main, (obj.__qualname__ if own else "", make, *args), *rest


def _is_in(space: Mapping[str, Any], obj: FunctionType | type) -> bool:
    """Whether an object is found by its qualified name, through the classes around it."""
    *around, last = obj.__qualname__.split(".")
    for each in around:
        if not isinstance(outer := space.get(each), type):
            return False
        space = vars(outer)
    return space.get(last) is obj


class LargePickler(CallPickler):
    """Puts large `bytes` aside, too, and notes which buffers are those of functions and classes that stay inside.

    Pickle hands out arrays by itself, but asks of every object for `bytes`.
    """

    def persistent_id(self, value: object) -> str | None:
        if type(value) is not bytes or self._aside is None or (blob := self._aside(memoryview(value))) is None:
            return None
        self.bytes.append(blob)
        return blob.name

    def reducer_override(self, obj: Any) -> Any:
        reduced = super().reducer_override(obj)
        if not (isinstance(obj, (FunctionType, type)) and isinstance(reduced, tuple) and len(reduced) == _REDUCED_SIZE):
            return reduced
        make, args, state, items, pairs, set_state = reduced
        return make, args, (set_state, state, _EndOfState(self.buffers, self.private)), items, pairs, set_with_end


_REDUCED_SIZE = 6
"""How many parts a function or class by value is reduced to."""


class _EndOfState:
    """Is pickled after the state of a function or class: the buffers met since it was made are theirs."""

    def __init__(self, buffers: list[Blob], private: set[int]) -> None:
        self._buffers, self._private, self._start = buffers, private, len(buffers)

    def __reduce__(self) -> tuple[Any, ...]:
        self._private.update(range(self._start, len(self._buffers)))
        return tuple, ()


def set_with_end(made: Any, state: tuple[Callable[[Any, Any], object], Any, object]) -> None:
    """Set the state of a function or class."""
    set_own, own, _ = state
    set_own(made, own)


def by_value(value: object, modules: Modules | None = None, reduce: arrays.Reducer = arrays.by_content) -> bytes:
    """Pickle what the other end may not be able to import; the modules that it needs are noted in `modules`."""
    file = io.BytesIO()
    CallPickler(file, modules=modules, reduce=reduce).dump(value)
    return file.getvalue()


def result_by_value(value: object) -> bytes:
    """Pickle a result of which the driver may not be able to import everything."""
    file = io.BytesIO()
    ResultPickler(file).dump(value)
    return file.getvalue()


def dumps(value: object) -> bytes:
    """Pickle a result; classes and functions that the driver cannot import travel by value."""
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - user code runs here
        return result_by_value(value)
