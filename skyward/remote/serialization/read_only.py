"""Explain why a task cannot write into an array: the tasks of a node share large ones."""

import ctypes
import sys
import traceback
from collections.abc import Iterator
from typing import Any

SHARED = (
    "Large arrays are shared by the tasks of a node, so they arrive read-only. Write into a copy that the task makes "
    '(array = array.copy()), or with joblib give each task its own: Parallel(n_jobs=-1, mmap_mode="c").'
)


def explain(error: ValueError) -> str:
    """Return what to do if a task has written into an array that was sent to it read-only; else an empty text.

    The array is looked for where the error was raised, and then in the callers. Where another one may be meant, nothing
    is said.
    """
    numpy: Any = sys.modules.get("numpy")
    text = str(error)
    if numpy is None or ("read-only" not in text and "WRITEABLE" not in text):
        return ""
    for frame, _ in reversed([*traceback.walk_tb(error.__traceback__)]):
        arrays = [
            each
            for value in frame.f_locals.values()
            for each in _with_content(value)
            if isinstance(each, numpy.ndarray) and not each.flags.writeable
        ]
        if arrays:
            return SHARED if all(_is_shared(array, numpy) for array in arrays) else ""
    return ""


def _with_content(value: object) -> Iterator[object]:
    yield value
    if isinstance(value, list | tuple):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()
    else:
        yield from getattr(value, "__dict__", {}).values()


def _is_shared(array: Any, numpy: Any) -> bool:
    """Whether the memory of an array is a mapped blob: see `blobs.view`."""
    while isinstance(base := array.base, numpy.ndarray):
        array = base
    return isinstance(base, memoryview) and base.readonly and isinstance(base.obj, ctypes.Array)
