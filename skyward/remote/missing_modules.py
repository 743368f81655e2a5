"""What a node may lack: name missing modules and files, and do without categories of warnings."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import PathFinder
from typing import Any

from skyward.remote import context


def by_name(kind: type[Warning]) -> tuple[Callable[[str, str], type[Warning]], tuple[str, str]] | None:
    """How to reduce a category that can be imported here; None for one that every Python has.

    Filters for warnings travel with the tasks of scikit-learn, and name categories of whatever the caller has imported.
    """
    return None if kind.__module__ == "builtins" else (category, (kind.__module__, kind.__qualname__))


def category(module: str, name: str) -> type[Warning]:
    """Return the category of that name, or where its package is not installed one that no warning ever has."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception:  # noqa: BLE001 - a package that breaks as it is imported raises what it likes
        return type(name.rpartition(".")[2], (Warning,), {"__module__": module})
    kind: type[Warning] = found
    return kind


def explain(error: ImportError) -> str:
    """Say what this node lacks, and what to do about it; empty where it lacks nothing."""
    package = (error.name or "").partition(".")[0]
    if not package or package in sys.modules or importlib.util.find_spec(package) is not None:
        return ""
    here = context.instance_info()
    return (
        f"Node {here.node} ({here.host}) has no module {error.name!r}. Install it there: "
        f'sky.Image(packages=["{package}"]). If it is a module of your own, have it sent with the calls: '
        f"cloudpickle.register_pickle_by_value({package})."
    )


def found_since(error: ImportError, before: Sequence[str]) -> str:
    """Say that this program finds what a node lacks, by an entry that `sys.path` did not have `before`; else empty.

    Nodes on this machine look where `sys.path` pointed when they began.
    """
    package = (error.name or "").partition(".")[0]
    for entry in sys.path:
        if package and entry not in before and PathFinder.find_spec(package, [entry]) is not None:
            return (
                f"This program finds {package!r} in {entry!r}, which was added to sys.path after the pool had begun: "
                "add it before the block of the pool, or to PYTHONPATH."
            )
    return ""


def found_here(error: FileNotFoundError) -> str:
    """Say that this program finds a file, or its folder, that a node lacks: a node has a working folder of its own."""
    name = error.filename
    if not isinstance(name, str) or os.path.isabs(name):
        return ""
    folder = os.path.dirname(name)
    if os.path.exists(name):
        return (
            f"This program finds {name!r} in its working folder, but tasks work in a folder of their node: have it put "
            f"there by sky.Image(files={{{name!r}: {name!r}}}), or give a path that the node has."
        )
    if folder and os.path.isdir(folder):
        return (
            f"This program has a folder {folder!r} in its working folder, but tasks work in a folder of their node, "
            "which goes with it: have tasks return what is to be kept, or give a path that the node has."
        )
    return ""
