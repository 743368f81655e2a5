"""Bundle the user's own modules, which no package index has, to send them to nodes.

Driver only. A module is the user's own if it belongs neither to the standard library nor to an installed package: it is
in the working folder, beside the script, or in a package that is installed as editable.
"""

import ast
import hashlib
import importlib.util
import io
import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import ModuleType

from skyward.environment.archive import write_zip
from skyward.remote import module_bundles
from skyward.remote.module_bundles import INSTALL_FOLDERS

MODULE_SUFFIXES = {".py", ".pyi", ".so"}
"""Suffixes of the files of a package that are sent; data files are for `Image(files=)`."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A module or package, which is sent as a whole: its name, the folder it is imported from, and its files."""

    name: str
    root: Path
    files: tuple[Path, ...]

    def state(self) -> tuple[tuple[int, int], ...]:
        """Return the modification times and sizes of its files."""
        found = [path.stat() for path in self.files]
        return tuple((each.st_mtime_ns, each.st_size) for each in found)

    def imports(self) -> Iterator[str]:
        """Yield the names of all modules that it imports anywhere."""
        for path in self.files:
            if path.suffix == ".py":
                yield from _imports(path, self.name)

    def bundle(self) -> tuple[str, bytes]:
        """Return the bytes that nodes are sent, and a hash of them, hash first."""
        file, hashed = io.BytesIO(), hashlib.sha256()
        files = [(path.relative_to(self.root).as_posix(), path.read_bytes()) for path in self.files]
        write_zip(file, files)
        for name, data in files:
            hashed.update(f"{name} {len(data)}\n".encode() + data)
        return hashed.hexdigest()[:20], file.getvalue()


class _Reloads:
    """An import finder that finds nothing, but records the modules that are imported again."""

    def __init__(self) -> None:
        self.names: deque[str] = deque()
        self._seen = set(sys.modules)

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> None:
        """Record a module that is reloaded, or that has been imported before."""
        if target is not None or name in self._seen:
            self.names.append(name)
        self._seen.add(name)


class UserModules:
    """The user's own modules, as they are sent to the nodes of a pool.

    While it watches, it records which of them this program reloads.

    Attributes
    ----------
    bundles
        The bytes that nodes are sent, by name.
    """

    def __init__(self) -> None:
        self.bundles: dict[str, bytes] = {}
        self._made: dict[Unit, tuple[tuple[tuple[int, int], ...], str, tuple[str, ...]]] = {}
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._reloads = _Reloads()
        self._reloaded: dict[str, str] = {}  # by name of unit

    def watch(self) -> None:
        """Start to record reloads."""
        self._reloads = _Reloads()
        sys.meta_path.insert(0, self._reloads)

    def close(self) -> None:
        """Stop recording reloads."""
        if self._reloads in sys.meta_path:
            sys.meta_path.remove(self._reloads)

    def reloaded(self) -> tuple[str, ...]:
        """Return the names of bundles that tell nodes with access to the modules which ones to import again."""
        if self._reloads.names:
            with self._lock:
                self._take_reloads()
        return tuple(self._reloaded.values()) if self._reloaded else ()

    def _take_reloads(self) -> None:
        while self._reloads.names:
            name = self._reloads.names.popleft()
            unit = unit_of(name) if name in sys.modules else None
            if unit is not None:
                self._made.pop(unit, None)
                notice = module_bundles.bundle_name(unit.name, next(self._numbers), module_bundles.RELOAD)
                self.bundles[notice] = str(unit.root).encode()
                self._reloaded[unit.name] = notice

    def needed(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the names of the bundles that are needed to import these modules, with all that those import."""
        with self._lock:
            self._take_reloads()
            found: dict[Unit, str] = {}
            asked = list(names)
            seen: set[str] = set()
            while asked:
                if (name := asked.pop()) in seen:
                    continue
                seen.add(name)
                unit = unit_of(name)
                if unit is not None and unit not in found:
                    found[unit], imports = self._bundle(unit)
                    asked += imports
            return tuple(sorted(found.values()))

    def _bundle(self, unit: Unit) -> tuple[str, tuple[str, ...]]:
        state = unit.state()
        if unit not in self._made or self._made[unit][0] != state:
            digest, data = unit.bundle()
            name = module_bundles.bundle_name(unit.name, next(self._numbers), digest)
            self.bundles[name] = data
            self._made[unit] = state, name, tuple(dict.fromkeys(unit.imports()))
        return self._made[unit][1:]


def unit_of(name: str) -> Unit | None:
    """Return the unit that must be sent so that this module can be imported; None if it is not the user's own."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        unit = ".".join(parts[:length])
        spec = spec_of(unit)
        if spec is None or (spec.origin is not None and not _own(spec.origin)):
            return None
        if spec.origin is None:  # a namespace package
            continue
        path = Path(spec.origin)
        if not spec.submodule_search_locations:
            return Unit(unit, path.parents[length - 1], (path,))
        files = sorted(each for each in path.parent.rglob("*") if each.suffix in MODULE_SUFFIXES and each.is_file())
        kept = tuple(each for each in files if not INSTALL_FOLDERS.intersection(each.parts))
        return Unit(unit, path.parents[length], kept)
    return None


def spec_of(name: str) -> ModuleSpec | None:
    """Return the spec of a module; None if there is no such module, or if it is the script."""
    if name == "__main__":
        return None
    if (module := sys.modules.get(name)) is not None:
        return getattr(module, "__spec__", None)
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None


@cache
def _own(origin: str) -> bool:
    path = Path(origin)
    if not path.is_absolute() or not path.is_file() or INSTALL_FOLDERS.intersection(path.parts):
        return False
    return not any(path.is_relative_to(root) for root in _others())


@cache
def _others() -> tuple[Path, ...]:
    """Return the folders of modules that are not the user's own: the standard library, and Skyward itself."""
    found = {Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    return (*found, *(path.resolve() for path in found), Path(module_bundles.__file__).parents[1])


def _imports(path: Path, unit: str) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield alias.name
            case ast.ImportFrom(module=str(module), level=0) if module.partition(".")[0] != unit:
                yield module
                for alias in node.names:  # which may be modules
                    yield f"{module}.{alias.name}"
