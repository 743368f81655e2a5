"""Objects that are pickled by name, and identities for other objects: names that are valid in all processes."""

import sys
import threading
import uuid
import weakref
from typing import Any

import cloudpickle


def is_sent_by_value(module: str | None) -> bool:
    """Return whether the objects of this module must be pickled by value."""
    if not module or module in ("__main__", "__mp_main__"):
        return True
    registered = cloudpickle.list_registry_pickle_by_value()
    return bool(registered) and any(module == name or module.startswith(f"{name}.") for name in registered)


def find_importable(obj: Any) -> Any:
    """Return the object that a node finds under the module and name of this object, or None."""
    module = getattr(obj, "__module__", None)
    path = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    found: object = sys.modules.get(module) if isinstance(module, str) else None
    if found is None or not isinstance(path, str) or is_sent_by_value(module):
        return None
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


class Identities:
    """Objects by a name that is valid in all processes. Except for type aliases, they are not kept alive.

    An object gets its name when it is first pickled. A process that unpickles it gives the name to its copy.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}
        self._objects: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._kept: dict[str, Any] = {}

    def name(self, obj: Any) -> str:
        """Return the name of an object, which gets one if it has none."""
        with self._lock:
            if (name := self._names.get(id(obj))) is None:
                self._set(name := uuid.uuid4().hex, obj)
            return name

    def get(self, name: str) -> Any:
        """Return the object of that name, or None."""
        with self._lock:
            return self._get(name)

    def add(self, name: str, obj: Any) -> Any:
        """Give the name to an object, unless another one has it; return the one that has it."""
        with self._lock:
            if (known := self._get(name)) is not None:
                return known
            self._set(name, obj)
            return obj

    def replace(self, name: str, obj: Any) -> None:
        """Give the name to an object, even if another one has it."""
        with self._lock:
            self._set(name, obj)

    def share(self, name: str, obj: Any) -> None:
        """Give the name to an object; if another one has it too, `get` still returns that one."""
        with self._lock:
            known = self._get(name)
            self._set(name, obj)
            if known is not None:
                self._objects[name] = known

    def _get(self, name: str) -> Any:
        return self._kept[name] if name in self._kept else self._objects.get(name)

    def _set(self, name: str, obj: Any) -> None:
        try:
            self._objects[name] = obj
        except TypeError:  # type aliases do not support weak references
            self._kept[name] = obj
        else:
            weakref.finalize(obj, self._names.pop, id(obj), None).atexit = False
        self._names[id(obj)] = name


IDENTITIES = Identities()
"""Shared by all pools: an object that one pool sent may come back through another one."""
