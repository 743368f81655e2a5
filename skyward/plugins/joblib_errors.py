"""Errors about a batch of joblib, told as errors about a task of it."""

import re
from collections.abc import Sequence

from skyward.errors import NotPortable
from skyward.plugins.joblib_node import run_batch, task

_IN_A_BATCH = re.compile(r"args\[0\]\[(\d+)\](?:\[0\](?P<fn>.*)|\[[12]\](?P<rest>.*))?")
_IN_A_RESULT = re.compile(r"result\[(\d+)\](?P<rest>.*)")


def name_task(error: NotPortable, first: int, functions: Sequence[object]) -> None:
    """Have an error about a batch speak of the task in it: `args[0][2][1][0].conn` is `args[0].conn` of the third."""
    text = str(error)
    if text.startswith(f"{run_batch.__name__} "):
        found = _IN_A_BATCH.fullmatch(error.path)
    elif text.startswith(f"the result of {run_batch.__name__} "):
        found = _IN_A_RESULT.fullmatch(error.path)
    else:
        return  # of a call that a task made
    if found is None:
        return
    index, groups = int(found[1]), found.groupdict()
    if groups.get("fn") is not None:
        path = "fn" + groups["fn"]
    elif groups["rest"] is None:
        path = ""
    else:
        keyword = error.path.startswith(f"args[0][{index}][2]")
        path = ("result" if text.startswith("the result") else "kwargs" if keyword else "args") + groups["rest"]
    text = text.replace(run_batch.__name__, task(first + index, functions[index]), 1)
    error.args = (text.replace(error.path, path, 1),) if path else (text,)
    error.path = path
