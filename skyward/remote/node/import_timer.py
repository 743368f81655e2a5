"""Time that the calls of a slot took to import modules: `ImportTimer` sums it by thread and module."""

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader, SourcelessFileLoader
from typing import Any, NamedTuple

TIMED_LOADERS = (SourceFileLoader, SourcelessFileLoader, ExtensionFileLoader)
"""Loaders of which each module has its own. What others load, as those of archives, is not timed."""


_LOADER_METHODS = ("create_module", "exec_module")
"""What a loader is asked for, in this order."""


class Import(NamedTuple):
    """A module that a thread imported, with all that it imports itself."""

    module: str
    began: float
    seconds: float


class _Thread(threading.local):
    """What one thread has imported, and whether it imports something now."""

    def __init__(self) -> None:
        self.imports: list[Import] = []
        self.importing = False


class ImportTimer:
    """A finder that finds nothing by itself: it times the loaders that the finders after it return.

    Parameters
    ----------
    clock
        Returns seconds.

    Attributes
    ----------
    count
        A number that is another one after each import, of whatever thread: quicker to look at than to `take`.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.count = 0
        self._clock, self._thread = clock, _Thread()

    def install(self) -> None:
        """Time all imports of this process from now on."""
        sys.meta_path.insert(0, self)

    def __reduce__(self) -> tuple[type["ImportTimer"], tuple[()]]:
        """Let what was found and not loaded yet be pickled and copied: it refers to its timer."""
        return ImportTimer, ()

    def take(self) -> list[Import]:
        """Return what this thread has imported since this was asked before."""
        taken, self._thread.imports = self._thread.imports, []
        return taken

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return what the finders after this one find, and time its loader unless this thread imports already."""
        if self._thread.importing:
            return None
        finders = iter(tuple(sys.meta_path))
        for finder in finders:
            if finder is self:
                break
        found = (finder.find_spec(name, path, target) for finder in finders if hasattr(finder, "find_spec"))
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and isinstance(loader := spec.loader, TIMED_LOADERS):
            for method in _LOADER_METHODS:
                setattr(loader, method, partial(self._load, name, loader, method, getattr(loader, method)))
        return spec

    def _load(self, name: str, loader: Any, method: str, call: Callable[[Any], Any], argument: Any) -> Any:
        for each in _LOADER_METHODS[: _LOADER_METHODS.index(method) + 1]:  # to reload a module is not to create it
            vars(loader).pop(each, None)
        thread = self._thread
        outermost, thread.importing = not thread.importing, True
        began = self._clock()
        try:
            return call(argument)
        finally:
            if outermost:
                thread.importing = False
                thread.imports.append(Import(name, began, self._clock() - began))
                self.count += 1

    # Python leaves frames of this name and file out of tracebacks, as it does with those of its own import system.
    _load.__code__ = _load.__code__.replace(
        co_filename="<frozen importlib._bootstrap>", co_name="_call_with_frames_removed"
    )


def public(module: str) -> str:
    """Return the module that a program imports to have this one: `sklearn.tree` for `sklearn.tree._classes`."""
    first, *rest = module.split(".")
    private = next((at for at, part in enumerate(rest) if part.startswith("_")), len(rest))
    return ".".join((first, *rest[:private]))
