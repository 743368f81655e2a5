"""Callables to bytes, bytes to outcomes: the only module that pickles.

A call is packed on the driver (`Packer.pack`), run on a slot (`execute`) and its outcome opened on the driver
(`open_outcome`). Functions that a node cannot import (those of `__main__`, closures, lambdas) are pickled once for each
`Packer` and travel beside the calls under a name, so that a thousand calls of one function carry it once. Large buffers
(arrays, `bytes`) travel beside them too: those of a call as blobs by name, those of a result as further parts of it.
"""

import io
import pickle
import secrets
import traceback
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import CodeType, FunctionType
from typing import Any, ClassVar, Literal, NoReturn

import cloudpickle

from skyward.errors import NotPortable, RemoteError, RemoteTraceback
from skyward.remote import portable
from skyward.remote.blobs import Blob, Buffer, Ref, view

type Status = Literal["returned", "raised", "died", "killed", "overdue"]
"""How a batch ended: `returned` or `raised` by user code, `died` with its slot, `killed` on request, `overdue` past its
timeout."""


LARGE_RESULT = 1 << 20
"""Bytes from which on a result leaves its slot through shared memory, and its arrays are not copied on the way."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A call as bytes, and what it needs beside them.

    Attributes
    ----------
    payload
        The pickled call; empty when it is so large that it is the first of `blobs`.
    functions
        Names of functions by value.
    buffers
        Names of the blobs that are its out-of-band buffers, in order.
    blobs
        Every blob that it needs, each once.
    """

    payload: bytes
    functions: tuple[str, ...]
    buffers: tuple[str, ...] = ()
    blobs: tuple[Blob, ...] = ()


@dataclass(frozen=True, slots=True)
class Beside:
    """What a call finds beside its payload on a slot: functions by name, blobs by name, its buffers in order."""

    functions: Mapping[str, Callable[..., object]] = field(default_factory=dict)
    blobs: Mapping[str, Ref] = field(default_factory=dict)
    buffers: Sequence[str] = ()


NOTHING = Beside()
"""For a call that needs nothing beside its payload."""


def shared(name: str) -> NoReturn:
    """Stand in a payload for the function of that name; `_Unpickler` puts the function itself there."""
    raise pickle.UnpicklingError(f"function {name} is not in this payload; it is opened by skyward.remote.wire")


class Packer:
    """Packs calls.

    One that shares keeps the bytes of the functions it met. Its lifetime is the scope in which a function is taken to
    stay the same: one `Parallel` call, one `map`. What a closure or a global of `__main__` holds is read the first time
    that the function is met. One that does not share puts everything into each call.

    Parameters
    ----------
    share
        Whether functions by value are kept beside the calls.
    put
        Makes a blob of a large buffer (see `skyward.shelf`); None to keep everything in the payload.
    threshold
        Bytes from which on a buffer is large.
    """

    def __init__(
        self, *, share: bool = True, put: Callable[[memoryview], Blob] | None = None, threshold: int = 1 << 20
    ) -> None:
        self._share = share
        self._put, self._threshold = put, threshold
        self._looks_for_bytes = False
        self.functions: dict[str, bytes] = {}
        self._token = secrets.token_hex(8)
        self._names: dict[int, str | None] = {}
        self._kept: list[FunctionType] = []  # an id stays taken for as long as its function lives

    def pack(self, fn: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Packed:
        """Return the call `fn(*args, **kwargs)` as bytes.

        Raises
        ------
        NotPortable
            Something in the call cannot be pickled. The text names the path to it.
        """
        call = fn, args, kwargs
        try:
            packed = self._packed(call)
            if self._put is None or self._looks_for_bytes or len(packed.payload) < self._threshold:
                return packed
            self._looks_for_bytes = True  # it costs a little, and a group of calls has large ones or not
            return self._packed(call)
        except Exception as error:
            raise portable.refuse(error, fn, args, kwargs) from error

    def _packed(self, call: tuple[object, ...]) -> Packed:
        file = io.BytesIO()
        kind = _BytesPickler if self._looks_for_bytes else _Pickler
        pickler = kind(file, self._name if self._share else None, None if self._put is None else self._aside)
        pickler.dump(call)
        payload, functions = file.getvalue(), tuple(pickler.met)
        buffers = tuple(blob.name for blob in pickler.buffers)
        blobs = {blob.name: blob for blob in (*pickler.buffers, *pickler.bytes)}
        if self._looks_for_bytes and len(payload) >= self._threshold and (body := self._aside(memoryview(payload))):
            return Packed(b"", functions, buffers, (body, *blobs.values()))
        return Packed(payload, functions, buffers, tuple(blobs.values()))

    def _aside(self, content: memoryview) -> Blob | None:
        """The blob of a buffer; None for one that is not large, or for which there is no room."""
        if self._put is None or content.nbytes < self._threshold:
            return None
        try:
            return self._put(content)
        except OSError:
            return None

    def _name(self, fn: FunctionType) -> str | None:
        """The name of a function that must travel by value; None for one that nodes import."""
        try:
            return self._names[id(fn)]
        except KeyError:
            pass
        name = None
        if not portable.importable(fn):
            data = _by_value(fn)
            name = f"{self._token}.{len(self.functions)}"
            self.functions[name] = data
        self._names[id(fn)] = name
        self._kept.append(fn)
        return name


def _take(aside: Callable[[memoryview], Blob | None], taken: list[Blob], buffer: pickle.PickleBuffer) -> bool:
    """Put a large buffer aside; true keeps it in the payload."""
    if (blob := aside(buffer.raw())) is None:
        return True
    taken.append(blob)
    return False


def code_of(filename: str, *parts: Any) -> CodeType:
    """Build a code object that says which file it is of: what a traceback shows."""
    return CodeType(*parts).replace(co_filename=filename)


def _reduce_code(code: CodeType) -> tuple[Callable[..., CodeType], tuple[Any, ...]]:
    """As cloudpickle does it, but with the name of the file, which it has dropped since 3.1.2."""
    _, parts = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return code_of, (code.co_filename, *parts)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined, unused-ignore]
    dispatch_table: ClassVar = ChainMap({CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)

    def __init__(
        self,
        file: io.BytesIO,
        name: Callable[[FunctionType], str | None] | None = None,
        aside: Callable[[memoryview], Blob | None] | None = None,
    ) -> None:
        self.buffers: list[Blob] = []
        # no method of its own: a pickler that refers to itself would be cyclic garbage, one for each call
        super().__init__(
            file, protocol=5, buffer_callback=None if aside is None else partial(_take, aside, self.buffers)
        )
        self._name, self._aside = name, aside
        self.met: list[str] = []
        self.bytes: list[Blob] = []

    def reducer_override(self, obj: object) -> Any:
        if (reduced := portable.by_name(obj)) is not None:
            return reduced
        if type(obj) is FunctionType and self._name is not None:
            name = self._name(obj)
            if name is None:
                return NotImplemented  # by reference, as plain pickle does it
            self.met.append(name)
            return shared, (name,)
        return super().reducer_override(obj)


class _BytesPickler(_Pickler):
    """Puts large `bytes` aside, too. Pickle hands out arrays by itself, but asks of every object for these."""

    def persistent_id(self, value: object) -> str | None:
        if type(value) is not bytes or self._aside is None or (blob := self._aside(memoryview(value))) is None:
            return None
        self.bytes.append(blob)
        return blob.name


def _by_value(value: object) -> bytes:
    """Pickle what the other end may not be able to import."""
    file = io.BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


class _Unpickler(pickle.Unpickler):
    def __init__(self, payload: bytes, beside: Beside) -> None:
        blobs = beside.blobs
        file = io.BytesIO(payload or view(next(iter(blobs.values()))))
        super().__init__(file, buffers=(view(blobs[name]) for name in beside.buffers))
        self._beside = beside

    def find_class(self, module: str, name: str) -> Any:
        if module == __name__ and name == "shared":
            return self._beside.functions.__getitem__
        return super().find_class(module, name)

    def persistent_load(self, name: str) -> bytes:
        return bytes(view(self._beside.blobs[name]))


def load_function(data: bytes) -> Callable[..., object]:
    """Return the function that a `Packer` kept as `data`."""
    fn: Callable[..., object] = pickle.loads(data)
    return fn


def pack_hooks(hooks: Sequence[object]) -> bytes:
    """Return what plugins do on a node as bytes; empty for none.

    Raises
    ------
    NotPortable
        A plugin with a hook for the node cannot be pickled.
    """
    if not hooks:
        return b""
    try:
        return _by_value(tuple(hooks))
    except Exception as error:
        broken = [hook for hook in hooks if portable.culprit(type(hook), (hook,), {})] or list(hooks)
        raise portable.refuse(error, type(broken[0]), broken[:1], {}) from error


def load_hooks(data: bytes) -> tuple[Any, ...]:
    """Return what `pack_hooks` packed."""
    return pickle.loads(data) if data else ()


def execute(
    payload: bytes, beside: Beside = NOTHING, around: Callable[[], AbstractContextManager[object]] = nullcontext
) -> tuple[Status, list[Buffer]]:
    """Run one packed call inside `around()` and return how it ended and its value or exception. Never raises.

    The first part is a pickle; large arrays in a value follow it, as they are. `SystemExit` and `KeyboardInterrupt`
    raised by user code count as exceptions of the call.
    """
    try:
        with around():
            fn, args, kwargs = _Unpickler(payload, beside).load()
            value = fn(*args, **kwargs)
    except BaseException as error:  # user code: whatever it raises is its outcome
        return "raised", [pack_exception(error)]
    try:
        return "returned", _parts(value)
    except Exception as error:
        path = portable.culprit(lambda: None, (value,), {}) or "args[0]"
        refused = NotPortable(
            f"the result of {_called(fn)} cannot be pickled: result{path.removeprefix('args[0]')}: "
            f"{type(error).__name__}: {error}. Return plain data, or what is needed to build it again."
        )
        return "raised", [pack_exception(refused)]


def _parts(value: object) -> list[Buffer]:
    parts: list[Buffer] = []

    def aside(buffer: pickle.PickleBuffer) -> bool:
        found = buffer.raw()
        if found.nbytes < LARGE_RESULT:
            return True
        parts.append(found)
        return False

    try:
        body = pickle.dumps(value, protocol=5, buffer_callback=aside)
    except Exception:  # classes and functions that the driver cannot import travel by value
        return [_by_value(value)]
    return [body, *parts]


def _called(fn: object) -> str:
    return str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)


def _dumps(value: object) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # classes and functions that the driver cannot import travel by value
        return _by_value(value)


def pack_exception(error: BaseException) -> bytes:
    """Return `error` with its traceback as bytes that `open_outcome` turns into the same exception again."""
    text = "".join(traceback.format_exception(_without_own_frames(error)))
    label = f"{type(error).__module__}.{type(error).__qualname__}"
    try:
        body = _dumps(error)
        if type(pickle.loads(body)) is not type(error):
            raise pickle.PicklingError(label)
    except Exception:
        body = _rebuildable(error)
    return pickle.dumps((body, label, _text(error), text), protocol=5)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a `__str__` of user code
        return ""


def _without_own_frames(error: BaseException) -> BaseException:
    """Drop the frames of this module from the head of the traceback: they say nothing to the user."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_globals.get("__name__") == __name__ and frame.tb_next is not None:
        frame = frame.tb_next
    return error.with_traceback(frame)


def _rebuildable(error: BaseException) -> bytes:
    """Pickle an exception whose constructor does not take its `args`, to be built without it. Empty if that fails."""
    try:
        return _dumps((type(error), error.args, dict(error.__dict__)))
    except Exception:
        return b""


def _open_exception(payload: Buffer) -> BaseException:
    body, label, message, text = pickle.loads(payload)
    error: BaseException
    try:
        found = pickle.loads(body) if body else None
        if isinstance(found, tuple):
            kind, args, state = found
            error = kind.__new__(kind, *args)
            error.args = args
            error.__dict__.update(state)
        elif isinstance(found, BaseException):
            error = found
        else:
            error = RemoteError(label, message)
    except Exception:
        error = RemoteError(label, message)
    error.__cause__ = RemoteTraceback(text)
    return error


def open_outcome(status: Status, parts: Iterable[Buffer]) -> tuple[object, BaseException | None]:
    """Return `(value, None)` or `(None, exception)` of a call that returned or raised, from the parts of `execute`."""
    body, *buffers = parts
    if status == "raised":
        return None, _open_exception(body)
    try:
        return pickle.loads(body, buffers=buffers), None
    except Exception as error:
        error.add_note("The call returned, but its result could not be opened on this machine.")
        return None, error
