"""Pickle and unpickle exceptions. They keep their type and get the remote traceback as their cause."""

import contextlib
import io
import pickle
import traceback
from typing import Any

from skyward.errors import RemoteError, RemoteTraceback
from skyward.remote import call_repr
from skyward.remote.blobs import Buffer
from skyward.remote.serialization import pickle_errors
from skyward.remote.serialization.pickler import ResultPickler, dumps, result_by_value

RUN = (
    "skyward.remote.serialization.call_codec",
    "skyward.remote.serialization.loader",
    "skyward.remote.serialization.namespace",
)
"""The modules that call user code."""

ENDING = (SystemExit, KeyboardInterrupt, GeneratorExit)
"""Exceptions that would silently end the program or generator of a task's caller."""


def contained(error: BaseException, where: str = "the task") -> BaseException:
    """Return the error, or a `RemoteError` instead of one that would end the caller's program."""
    if not isinstance(error, ENDING):
        return error
    kind = type(error).__name__
    text = f"{where} raised {kind}"
    if isinstance(error, SystemExit):
        code = "" if error.code is None else call_repr.value(error.code)
        text = f"{where} called sys.exit({code}); return a value or raise an exception instead"
    told = RemoteError(kind, text)
    told.__cause__ = error
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told


def pack_exception(error: BaseException) -> bytes:
    """Pickle an exception with its traceback for `open_outcome`.

    An exception that would end the caller's program becomes a `RemoteError`.
    """
    try:
        text = "".join(traceback.format_exception(_without_own_frames(error)))
    except BaseException as why:  # user code: a `__bool__`, a `__str__`
        text = f"its traceback cannot be printed: {type(why).__name__}"
    if isinstance(told := contained(error), RemoteError) and told is not error:
        return pickle.dumps((b"", told.type_name, told.text, text, [*getattr(error, "__notes__", ())]), protocol=5)
    label = f"{type(error).__module__}.{type(error).__qualname__}"
    notes: list[str] = []
    try:
        body = dumps(error)
        if type(pickle.loads(body)) is not type(error):
            raise pickle.PicklingError(label)
    except BaseException as why:  # user code
        body = _rebuildable(error)
        if not body:
            notes = [*getattr(error, "__notes__", ()), f"It could not be raised as its own type: {_text(why)}"]
    return pickle.dumps((body, label, _text(error), text, notes), protocol=5)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # a `__str__` of user code
        return ""


def _without_own_frames(error: BaseException) -> BaseException:
    """Remove Skyward's own frames from the beginning of the traceback."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_globals.get("__name__") in RUN and frame.tb_next is not None:
        frame = frame.tb_next
    return error.with_traceback(frame)


class _ExceptionPickler(ResultPickler):
    """Pickles exceptions, also those in groups, by their parts: a constructor may not accept the exception's `args`.

    An attribute that cannot be pickled is left out, and a note says so.
    """

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, BaseException):
            return rebuild, (type(obj), tuple(map(_sendable, obj.args)), *_state(obj))
        return super().reducer_override(obj)


def _state(error: BaseException) -> tuple[dict[str, object], list[str]]:
    kept, lost = {}, []
    for name, value in error.__dict__.items():
        try:
            result_by_value(value)
        except Exception:
            path = (pickle_errors.culprit(lambda: None, (value,), {}) or "").removeprefix("args[0]")
            lost.append(f"exception.{name}{path} cannot be pickled and was left out")
        else:
            kept[name] = value
    return kept, lost


def _sendable(value: object) -> object:
    """Return an argument of an exception, or its `repr` if it cannot be pickled."""
    try:
        result_by_value(value)
    except Exception:
        return value if isinstance(value, BaseException | list | tuple) else repr(value)
    return value


def rebuild(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any], lost: list[str]) -> BaseException:
    """Rebuild an exception without calling its constructor."""
    error = kind.__new__(kind, *args)
    _set(error, "args", args)
    error.__dict__.update(state)
    for each in lost:
        with contextlib.suppress(Exception):  # `add_note` may be user code
            error.add_note(each)
    return error


def _set(error: BaseException, name: str, value: object) -> None:
    """Set an attribute of every exception, even if the class forbids it or has a property of that name."""
    BaseException.__dict__[name].__set__(error, value)


def _rebuildable(error: BaseException) -> bytes:
    """Pickle an exception by its parts, for `rebuild`. Empty if that fails, too."""
    file = io.BytesIO()
    try:
        _ExceptionPickler(file).dump(error)
        if type(pickle.loads(file.getvalue())) is not type(error):
            return b""
    except BaseException:  # user code
        return b""
    return file.getvalue()


def summary(payload: Buffer) -> str:
    """Return a pickled exception as one line, such as `ValueError: no, raised by task 7, f(7)`."""
    _, label, message, text, _ = pickle.loads(payload)
    line = message.strip().partition("\n")[0][:200]
    name = label.removeprefix("builtins.")
    _, noted, rest = text.rpartition(f"\n{call_repr.RAISED}")
    culprit = f", raised by {rest.partition('\n')[0].rstrip('.')}" if noted else ""
    return f"{name}{': ' if line else ''}{line}{culprit}"


def open_exception(payload: Buffer) -> BaseException:
    """Return the exception of `pack_exception`, or a `RemoteError` if it cannot be rebuilt here."""
    body, label, message, text, notes = pickle.loads(payload)
    found: object = None
    if body:
        with contextlib.suppress(BaseException):  # user code
            found = pickle.loads(body)
    error = found if isinstance(found, BaseException) else RemoteError(label, message)
    _set(error, "__cause__", RemoteTraceback(text))
    for note in notes:
        error.add_note(note)
    return error
