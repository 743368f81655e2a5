"""The picklers of calls and results. Functions and classes that the receiver cannot import are pickled by value."""

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
    """A function or class that is sent by value: its name, its bytes, and the blobs that they refer to."""

    name: str
    data: bytes
    blobs: tuple[Blob, ...]


class UnknownError(Exception):
    """An object is neither of a type that pickle supports by itself nor a known function."""


class LargeBufferError(Exception):
    """The call has a large buffer, so it must be pickled with `LargePickler`."""


# ---------------------------------------------------------------- what to do with a buffer


def _take(aside: Callable[[memoryview], Blob | None], taken: list[Blob], buffer: pickle.PickleBuffer) -> bool:
    """Make a blob of a large buffer; true keeps it in the payload."""
    if (blob := aside(buffer.raw())) is None:
        return True
    taken.append(blob)
    return False


def collect(least: int, found: list[memoryview], buffer: pickle.PickleBuffer) -> bool:
    """Collect a buffer of `least` bytes or more; true keeps it in the pickle."""
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
    """Build a code object with the name of its file, for tracebacks."""
    return CodeType(*parts).replace(co_filename=filename)


def _reduce_code(code: CodeType) -> tuple[Callable[..., CodeType], tuple[Any, ...]]:
    """Reduce like cloudpickle, but keep the name of the file, which cloudpickle drops since 3.1.2."""
    _, parts = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return code_of, (code.co_filename, *parts)


class CallPickler(ByValuePickler):
    """Pickles by value what the receiver may not be able to import.

    `name` returns functions that are sent separately, `aside` makes blobs of large buffers, `modules` collects the
    modules that the receiver needs, and `reduce` pickles arrays. `keep` replaces the handling of buffers by `aside`.
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
        self.private: set[int] = set()  # indexes of `buffers` that belong to functions and classes by value
        # not a method: a pickler that refers to itself would be cyclic garbage
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
        if type(known) is Named:  # its modules are known
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
    """Pickles values of types that pickle supports by itself, and functions that a `Packer` has pickled before.

    It takes a third of the time. For everything else it raises `UnknownError`.
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
    """Pickles results. Classes that the driver has are not changed there."""

    result = True


def _reduced_for_main(obj: FunctionType | type, reduced: Any) -> Any:
    """Reduce a function or class of the user's script so that it is made in the `__main__` of its batch."""
    if obj.__module__ != "__main__" or not isinstance(reduced, tuple):
        return reduced
    main = sys.modules["__main__"].__dict__
    own = _is_in(main, obj)
    if not own and (isinstance(obj, type) or obj.__globals__ is not main):
        return reduced
    make, args, *rest = reduced
    return in_main, (obj.__qualname__ if own else "", make, *args), *rest


def _is_in(space: Mapping[str, Any], obj: FunctionType | type) -> bool:
    """Return whether an object is found by its qualified name."""
    *around, last = obj.__qualname__.split(".")
    for each in around:
        if not isinstance(outer := space.get(each), type):
            return False
        space = vars(outer)
    return space.get(last) is obj


class LargePickler(CallPickler):
    """Makes blobs of large `bytes`, too, and notes which buffers belong to functions and classes in the pickle.

    It is slower, as pickle calls `persistent_id` for every object.
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
"""Length of the tuple that a function or class by value is reduced to."""


class _EndOfState:
    """Pickled after the state of a function or class: the buffers since its creation belong to that."""

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
    """Pickle by value what the receiver may not be able to import; `modules` collects the modules that it needs."""
    file = io.BytesIO()
    CallPickler(file, modules=modules, reduce=reduce).dump(value)
    return file.getvalue()


def result_by_value(value: object) -> bytes:
    """Pickle a result by value where the driver may not be able to import it."""
    file = io.BytesIO()
    ResultPickler(file).dump(value)
    return file.getvalue()


def dumps(value: object) -> bytes:
    """Pickle a result; by value where needed."""
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - user code runs here
        return result_by_value(value)
