"""Callables to bytes, bytes to outcomes: the only module that pickles.

A call is packed on the driver (`Packer.pack`), run on a slot (`execute`) and its outcome opened on the driver
(`open_outcome`). Functions that a node cannot import (those of `__main__`, closures, lambdas) are pickled once for each
`Packer` and travel beside the calls under a name, so that a thousand calls of one function carry it once.
"""

import io
import pickle
import secrets
import traceback
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, ClassVar, Literal, NoReturn

import cloudpickle

from skyward.errors import NotPortable, RemoteError, RemoteTraceback
from skyward.remote import absent, portable

type Status = Literal["returned", "raised", "died", "killed", "overdue"]
"""How a batch ended: `returned` or `raised` by user code, `died` with its slot, `killed` on request, `overdue` past its
timeout."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A call as bytes, and the names of the functions it needs beside them."""

    payload: bytes
    functions: tuple[str, ...]


def shared(name: str) -> NoReturn:
    """Stand in a payload for the function of that name; `_Unpickler` puts the function itself there."""
    raise pickle.UnpicklingError(f"function {name} is not in this payload; it is opened by skyward.remote.wire")


class Packer:
    """Packs calls.

    One that shares keeps the bytes of the functions it met. Its lifetime is the scope in which a function is taken to
    stay the same: one `Parallel` call, one `map`. What a closure or a global of `__main__` holds is read the first time
    that the function is met. One that does not share puts everything into each call.
    """

    def __init__(self, *, share: bool = True) -> None:
        self._share = share
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
        buffer = io.BytesIO()
        pickler = _Pickler(buffer, self._name if self._share else None)
        try:
            pickler.dump((fn, args, kwargs))
        except Exception as error:
            raise portable.refuse(error, fn, args, kwargs) from error
        return Packed(buffer.getvalue(), tuple(pickler.met))

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


def code_of(filename: str, *parts: Any) -> CodeType:
    """Build a code object that says which file it is of: what a traceback shows."""
    return CodeType(*parts).replace(co_filename=filename)


def _reduce_code(code: CodeType) -> tuple[Callable[..., CodeType], tuple[Any, ...]]:
    """As cloudpickle does it, but with the name of the file, which it has dropped since 3.1.2."""
    _, parts = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return code_of, (code.co_filename, *parts)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc, name-defined, unused-ignore]
    dispatch_table: ClassVar = ChainMap({CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)

    def __init__(self, file: io.BytesIO, name: Callable[[FunctionType], str | None] | None) -> None:
        super().__init__(file, protocol=5)
        self._name = name
        self.met: list[str] = []

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


def _by_value(value: object) -> bytes:
    """Pickle what the other end may not be able to import."""
    buffer = io.BytesIO()
    _Pickler(buffer, None).dump(value)
    return buffer.getvalue()


class _Unpickler(pickle.Unpickler):
    def __init__(self, payload: bytes, functions: Mapping[str, Callable[..., object]]) -> None:
        super().__init__(io.BytesIO(payload))
        self._functions = functions

    def find_class(self, module: str, name: str) -> Any:
        if module == __name__ and name == "shared":
            return self._functions.__getitem__
        return super().find_class(module, name)


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
    payload: bytes,
    functions: Mapping[str, Callable[..., object]],
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[Status, bytes]:
    """Run one packed call inside `around()` and return how it ended and its value or exception as bytes. Never raises.

    `SystemExit` and `KeyboardInterrupt` raised by user code count as exceptions of the call.
    """
    try:
        with around():
            fn, args, kwargs = _load(payload, functions)
            value = fn(*args, **kwargs)
    except BaseException as error:  # user code: whatever it raises is its outcome
        if isinstance(error, ModuleNotFoundError) and (lack := absent.explain(error)) and lack not in str(error):
            error.add_note(lack)
        return "raised", pack_exception(error)
    try:
        return "returned", _dumps(value)
    except Exception as error:
        path = _path_in("result", value)
        refused = NotPortable(
            f"the result of {portable.name_of(fn)} cannot be pickled: {path}: {type(error).__name__}: {error}. "
            "Return plain data, or what is needed to build it again.",
            path,
        )
        return "raised", pack_exception(refused)


def _load(payload: bytes, functions: Mapping[str, Callable[..., object]]) -> tuple[Callable[..., object], Any, Any]:
    try:
        call: tuple[Callable[..., object], Any, Any] = _Unpickler(payload, functions).load()
        return call
    except ModuleNotFoundError as error:
        if not (lack := absent.explain(error)):
            raise
        raise ModuleNotFoundError(f"the call cannot be opened: {lack}", name=error.name, path=error.path) from error


def _path_in(name: str, value: object) -> str:
    """Where in `value`, which is called `name`, something cannot be pickled."""
    return name + (portable.culprit(lambda: None, (value,), {}) or "").removeprefix("args[0]")


def _dumps(value: object) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # classes and functions that the driver cannot import travel by value
        return _by_value(value)


def pack_exception(error: BaseException) -> bytes:
    """Return `error` with its traceback as bytes that `open_outcome` turns into the same exception again."""
    text = "".join(traceback.format_exception(_without_own_frames(error)))
    label = f"{type(error).__module__}.{type(error).__qualname__}"
    notes: tuple[str, ...] = ()
    try:
        body = _dumps(error)
        if type(pickle.loads(body)) is not type(error):
            raise pickle.PicklingError(label)
    except Exception as why:
        body = _rebuildable(error)
        if not body:
            lost = f"{_path_in('exception', error)}: {type(why).__name__}: {_text(why)}"
            notes = (*getattr(error, "__notes__", ()), f"It could not come home as itself: {lost}.")
    return pickle.dumps((body, label, _text(error), text, notes), protocol=5)


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


def _open_exception(payload: bytes) -> BaseException:
    body, label, message, text, notes = pickle.loads(payload)
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
    for note in notes:
        error.add_note(note)
    return error


def open_outcome(status: Status, payload: bytes) -> tuple[object, BaseException | None]:
    """Return `(value, None)` or `(None, exception)` of a call that returned or raised."""
    if status == "raised":
        return None, _open_exception(payload)
    try:
        return pickle.loads(payload), None
    except Exception as error:
        error.add_note("The call returned, but its result could not be opened on this machine.")
        return None, error
