"""Run pickled calls, and pickle and unpickle their outcomes.

A call that `packer` packed on the driver is run on a slot (`execute`), and its outcome is unpickled on the driver
(`open_outcome`). Large arrays of a result are separate parts beside its pickle.
"""

import contextlib
import io
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any, Literal

from skyward.remote import call_repr, fork_guard, function, missing_modules
from skyward.remote.blobs import BlobError, Buffer, Ref
from skyward.remote.module_bundles import IMPORTS_PREFIX
from skyward.remote.serialization import arrays, pickle_errors, read_only
from skyward.remote.serialization.classes import reduce_member
from skyward.remote.serialization.exceptions import contained, open_exception, pack_exception
from skyward.remote.serialization.loader import Call, Functions, call_in
from skyward.remote.serialization.namespace import CURRENT
from skyward.remote.serialization.pickler import by_value, result_by_value

type Status = Literal["returned", "raised", "died", "killed", "overdue"]
"""How a batch ended: `returned` or `raised` by user code, `died` with its slot, `killed` on request, `overdue` past its
timeout."""

PLAIN_TYPES = frozenset({type(None), bool, int, float, complex})
"""Types of values without arrays."""

PLAIN_COUNT = 64
"""Longest list that is checked for being plain, so that it is pickled without looking for arrays."""

LARGE_RESULT_BYTES = 1 << 20
"""Bytes from which a result is sent through shared memory, without copying its arrays."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a call needs besides its payload on a slot: functions by name, blobs by name, and its buffers in order.

    `names` are the functions that it needs. With `owns_main`, nothing else runs in this process, and the call's
    `__main__` replaces that of the process, so that child processes can unpickle its functions by name. Otherwise,
    `Mains` gives each thread the `__main__` of its call.
    """

    functions: Functions = field(default_factory=Functions)
    blobs: Mapping[str, Ref] = field(default_factory=dict)
    buffers: Sequence[str] = ()
    names: tuple[str, ...] = ()
    owns_main: bool = False


NO_CONTEXT = CallContext()
"""For a call that needs only its payload."""


def beside(functions: Mapping[str, bytes], blobs: Mapping[str, Ref], buffers: Sequence[str] = ()) -> CallContext:
    """Return the context of a call that needs all of these functions."""
    found = Functions()
    found.raw.update(functions)
    return CallContext(found, blobs, buffers, tuple(functions))


def pack_hooks(hooks: Sequence[object]) -> bytes:
    """Pickle the plugins that have hooks for nodes; empty for none.

    Raises
    ------
    NotPortable
        One of them cannot be pickled.
    """
    if not hooks:
        return b""
    try:
        return by_value(tuple(hooks))
    except Exception as error:
        broken = [hook for hook in hooks if pickle_errors.culprit(type(hook), (hook,), {})] or list(hooks)
        raise pickle_errors.refuse(error, type(broken[0]), broken[:1], {}) from error


def load_hooks(data: bytes) -> tuple[Any, ...]:
    """Return the plugins that `pack_hooks` packed."""
    return pickle.loads(data) if data else ()


def execute(
    payload: bytes,
    beside: CallContext = NO_CONTEXT,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
    opened: Callable[[], None] = lambda: None,
) -> tuple[Status, list[Buffer]]:
    """Run one packed call inside `around()` and return its status and its value or exception. Never raises.

    `opened` is called when the call is unpickled and about to run.

    The first part is a pickle, followed by large arrays of the value. `SystemExit` and `KeyboardInterrupt` raised by
    user code count as exceptions of the call, and its caller gets a `RemoteError`. If the blobs of the call cannot be
    opened, its status is `died`, with the reason as text: it has not begun, so it is retried. A process forked by user
    code does not return from this function.
    """
    process = fork_guard.process()
    outcome = _execute(payload, beside, around, opened, process)
    fork_guard.end_if_forked(process, None)
    return outcome


def _execute(
    payload: bytes,
    beside: CallContext,
    around: Callable[[], AbstractContextManager[object]],
    opened: Callable[[], None],
    process: int,
) -> tuple[Status, list[Buffer]]:
    raised: BaseException | None = None
    value: object = None
    call: list[Call] = []
    missing: BlobError | None = None
    try:
        with around():
            try:
                (fn, args, kwargs), main = _load(payload, beside)
                call.append((fn, args, kwargs))
                opened()
                if main is None:
                    value = fn(*args, **kwargs)
                else:
                    call_with = _call_as_main if beside.owns_main else _call_beside_others
                    value = call_with(main, fn, args, kwargs)
                fork_guard.end_if_forked(process, None)
            except BaseException as error:
                fork_guard.end_if_forked(process, error)
                raised = error
                if not call and isinstance(error, BlobError):
                    missing = error
                if call:
                    call_repr.noted(error, call_repr.call(*call[0]))
                raise
    except BaseException as error:  # user code
        raised = error
    if missing is not None:
        return "died", [str(missing).encode()]
    if raised is not None:  # even if `around` suppressed it
        with contextlib.suppress(Exception):  # user code: a `__str__`, or an exception that refuses notes
            if (advice := _advice(raised)) and advice not in str(raised):
                raised.add_note(advice)
        return "raised", [pack_exception(raised)]
    try:
        return "returned", _parts(value)
    except Exception as error:
        refused = pickle_errors.refuse_result(error, fn, value)
        if fn is function.call_each:
            function.name_call(refused, *args)
        return "raised", [pack_exception(refused)]


class _FastResultPickler(pickle.Pickler):
    def reducer_override(self, obj: object) -> Any:
        reduced = arrays.by_content(obj)
        if reduced is None and isinstance(obj, Enum):
            reduced = reduce_member(obj)
        return NotImplemented if reduced is None else reduced


def _advice(error: BaseException) -> str:
    """Return what to do about an error that has to do with where the task runs; else an empty text."""
    match error:
        case ModuleNotFoundError():
            return missing_modules.explain(error)
        case ValueError():
            return read_only.explain(error)
        case _:
            return ""


def _is_plain(value: object) -> bool:
    """Return whether a value, or each item of a short list, is a number or None."""
    if type(value) is list and len(value) <= PLAIN_COUNT:
        return PLAIN_TYPES.issuperset(map(type, value))
    return type(value) in PLAIN_TYPES


def _parts(value: object) -> list[Buffer]:
    if _is_plain(value):
        return [pickle.dumps(value, protocol=5)]
    parts: list[Buffer] = []

    def aside(buffer: pickle.PickleBuffer) -> bool:
        found = buffer.raw()
        if found.nbytes < LARGE_RESULT_BYTES:
            return True
        parts.append(found)
        return False

    try:
        file = io.BytesIO()
        _FastResultPickler(file, protocol=5, buffer_callback=aside).dump(value)
        body = file.getvalue()
    except Exception:  # it has classes or functions that the driver cannot import
        return [result_by_value(value)]
    return [body, *parts]


def shown_call(payload: bytes, functions: Mapping[str, bytes]) -> str:
    """Return a packed call without large buffers as one line, for an error; empty if it cannot be unpickled."""
    try:
        own = {name: data for name, data in functions.items() if not name.startswith(IMPORTS_PREFIX)}
        return call_repr.call(*_load(payload, beside(own, {}))[0])
    except Exception:
        return ""


def _load(payload: bytes, beside: CallContext) -> tuple[Call, ModuleType | None]:
    try:
        scope = beside.functions.scope(beside.names, beside.blobs, apart=not beside.owns_main)
        return call_in(scope, payload, beside.buffers, beside.blobs), scope.main
    except ModuleNotFoundError as error:
        if not (lack := missing_modules.explain(error)):
            raise
        raise ModuleNotFoundError(f"the call cannot be opened: {lack}", name=error.name, path=error.path) from error


def _call_as_main(main: ModuleType, fn: Callable[..., object], args: Any, kwargs: Any) -> object:
    before, sys.modules["__main__"] = sys.modules["__main__"], main
    try:
        return fn(*args, **kwargs)
    finally:
        sys.modules["__main__"] = before


def _call_beside_others(main: ModuleType, fn: Callable[..., object], args: Any, kwargs: Any) -> object:
    before, CURRENT.main = CURRENT.main, main
    try:
        return fn(*args, **kwargs)
    finally:
        CURRENT.main = before


def open_outcome(status: Status, parts: Iterable[Buffer]) -> tuple[object, BaseException | None]:
    """Return `(value, None)` or `(None, exception)` from the parts of `execute`."""
    body, *buffers = parts
    if status == "raised":
        return None, open_exception(body)
    try:
        return pickle.loads(body, buffers=buffers), None
    except BaseException as error:  # user code
        with contextlib.suppress(Exception):
            error.add_note("The call returned, but its result could not be opened on this machine.")
        return None, contained(error, "the result of the task, when it was opened,")
