"""Bytes to calls, and outcomes to bytes and back.

A call that `packer` packed on the driver is run on a slot (`execute`), and its outcome opened on the driver
(`open_outcome`). Large arrays of a result are further parts of it, beside its pickle.
"""

import contextlib
import io
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from skyward.errors import NotPortable
from skyward.remote import absent, arrays, packer, portable, shown
from skyward.remote.blobs import Buffer, Ref, view
from skyward.remote.packer import by_value
from skyward.remote.raised import open_exception, pack_exception

type Status = Literal["returned", "raised", "died", "killed", "overdue"]
"""How a batch ended: `returned` or `raised` by user code, `died` with its slot, `killed` on request, `overdue` past its
timeout."""

LARGE_RESULT = 1 << 20
"""Bytes from which on a result leaves its slot through shared memory, and its arrays are not copied on the way."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What a call finds beside its payload on a slot: functions by name, blobs by name, its buffers in order."""

    functions: Mapping[str, Callable[..., object]] = field(default_factory=dict)
    blobs: Mapping[str, Ref] = field(default_factory=dict)
    buffers: Sequence[str] = ()


NOTHING = Beside()
"""For a call that needs nothing beside its payload."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, payload: bytes, beside: Beside) -> None:
        blobs = beside.blobs
        file = io.BytesIO(payload or view(next(iter(blobs.values()))))
        super().__init__(file, buffers=(_buffer(blobs, name) for name in beside.buffers))
        self._beside = beside

    def find_class(self, module: str, name: str) -> Any:
        if module == packer.__name__ and name == packer.shared.__name__:
            return self._beside.functions.__getitem__
        return super().find_class(module, name)

    def persistent_load(self, name: str) -> bytes:
        return bytes(view(self._beside.blobs[name]))


def _buffer(blobs: Mapping[str, Ref], name: str) -> memoryview:
    return view(blobs[name.removesuffix(packer.PRIVATE)], private=name.endswith(packer.PRIVATE))


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
        return by_value(tuple(hooks))
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
    raised: BaseException | None = None
    value: object = None
    call: list[tuple[Callable[..., object], Any, Any]] = []
    try:
        with around():
            try:
                fn, args, kwargs = _load(payload, beside)
                call.append((fn, args, kwargs))
                value = fn(*args, **kwargs)
            except BaseException as error:
                raised = error
                if call:
                    shown.noted(error, shown.call(*call[0]))
                raise
    except BaseException as error:  # user code: whatever it raises is its outcome
        raised = error
    if raised is not None:  # also when `around` would hide it: then there is no value
        if isinstance(raised, ModuleNotFoundError) and (lack := absent.explain(raised)) and lack not in str(raised):
            with contextlib.suppress(Exception):
                raised.add_note(lack)
        return "raised", [pack_exception(raised)]
    try:
        return "returned", _parts(value)
    except Exception as error:
        path = _path_in("result", value)
        refused = NotPortable(
            f"the result of {shown.name_of(fn)} cannot be pickled: {path}: {type(error).__name__}: {error}. "
            "Return plain data, or what is needed to build it again.",
            path,
        )
        return "raised", [pack_exception(refused)]


class _ResultPickler(pickle.Pickler):
    def reducer_override(self, obj: object) -> Any:
        reduced = arrays.reduce(obj, None)
        return NotImplemented if reduced is None else reduced


def _parts(value: object) -> list[Buffer]:
    parts: list[Buffer] = []

    def aside(buffer: pickle.PickleBuffer) -> bool:
        found = buffer.raw()
        if found.nbytes < LARGE_RESULT:
            return True
        parts.append(found)
        return False

    try:
        file = io.BytesIO()
        _ResultPickler(file, protocol=5, buffer_callback=aside).dump(value)
        body = file.getvalue()
    except Exception:  # classes and functions that the driver cannot import travel by value
        return [by_value(value)]
    return [body, *parts]


def shown_call(payload: bytes, functions: Mapping[str, bytes]) -> str:
    """Return a packed call without large buffers in a line, for an error; empty if it cannot be opened."""
    try:
        opened = {name: load_function(raw) for name, raw in functions.items()}
        return shown.call(*_load(payload, Beside(opened)))
    except Exception:
        return ""


def _load(payload: bytes, beside: Beside) -> tuple[Callable[..., object], Any, Any]:
    try:
        call: tuple[Callable[..., object], Any, Any] = _Unpickler(payload, beside).load()
        return call
    except ModuleNotFoundError as error:
        if not (lack := absent.explain(error)):
            raise
        raise ModuleNotFoundError(f"the call cannot be opened: {lack}", name=error.name, path=error.path) from error


def _path_in(name: str, value: object) -> str:
    """Where in `value`, which is called `name`, something cannot be pickled."""
    return name + (portable.culprit(lambda: None, (value,), {}) or "").removeprefix("args[0]")


def open_outcome(status: Status, parts: Iterable[Buffer]) -> tuple[object, BaseException | None]:
    """Return `(value, None)` or `(None, exception)` of a call that returned or raised, from the parts of `execute`."""
    body, *buffers = parts
    if status == "raised":
        return None, open_exception(body)
    try:
        return pickle.loads(body, buffers=buffers), None
    except BaseException as error:  # user code
        with contextlib.suppress(Exception):
            error.add_note("The call returned, but its result could not be opened on this machine.")
        return None, error
