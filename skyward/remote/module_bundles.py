"""The user's own modules on a node: they come as bundles among the functions of a call, and can then be imported."""

import contextlib
import importlib
import io
import os
import shutil
import sys
from collections.abc import Mapping

INSTALL_FOLDERS = {"site-packages", "dist-packages"}
"""The names of folders that hold installed packages."""

MODULE_PREFIX = "module:"
"""What the name of a bundle begins with; the module's name, a number and the hash of its content follow."""

RELOAD = "reload"
"""Stands in place of the hash for a module that the node imports by itself, and has to import again."""

IMPORTS_PREFIX = "imports:"
"""What the name of a list of modules begins with that a call imports from installed packages."""

_NEVER_DROPPED = {"__main__", "skyward", "cloudpickle", "casty", "uvloop"}
"""Packages that a node itself runs on."""

_numbers: dict[str, int] = {}  # of the newest version of each module here


def bundle_name(module: str, number: int, digest: str) -> str:
    """Return the name of a bundle; of two bundles of a module the one with the higher number is newer."""
    return f"{MODULE_PREFIX}{module}:{number}:{digest}"


def install(folder: str, functions: Mapping[str, bytes]) -> dict[str, bytes]:
    """Make the bundles among the functions importable in this process, and return the functions.

    The newest version of a module that ever came counts. When it comes, all modules of the user's that are loaded are
    dropped, as others may have taken something from it; the next call that needs them imports them again. The files go
    below `folder`, once for all processes of the node.
    """
    changed: set[str] = set()
    others: dict[str, bytes] = {}
    for name, data in functions.items():
        if not name.startswith(MODULE_PREFIX):
            others[name] = data
            continue
        module, number, digest = name.removeprefix(MODULE_PREFIX).split(":")
        if int(number) <= _numbers.get(module, 0):
            continue
        _numbers[module] = int(number)
        if digest == RELOAD:
            changed.add(data.decode())
            continue
        home = os.path.join(folder, "modules", module)
        place = os.path.join(home, digest)
        if not os.path.isdir(place):
            _extract(home, place, data)
        sys.path[:] = [place, *(path for path in sys.path if not path.startswith(home + os.sep))]
        changed.add(os.path.join(folder, "modules"))
    for root in changed:
        _drop(root)
    if changed:
        importlib.invalidate_caches()
    return others


def _drop(root: str) -> None:
    """Forget the loaded modules of the user's whose source is below this folder."""
    stdlib = os.path.dirname(os.__file__) + os.sep
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if not file.startswith(root.rstrip(os.sep) + os.sep) or not file.endswith(".py") or file.startswith(stdlib):
            continue
        if name.partition(".")[0] not in _NEVER_DROPPED and not INSTALL_FOLDERS.intersection(file.split(os.sep)):
            del sys.modules[name]


def _extract(home: str, place: str, data: bytes) -> None:
    """Put the files there, whole or not at all: other processes of the node may do the same."""
    import tempfile  # not above: most nodes are sent no modules, and these would take a twentieth of their start
    import zipfile

    os.makedirs(home, mode=0o700, exist_ok=True)
    made = tempfile.mkdtemp(dir=home)
    zipfile.ZipFile(io.BytesIO(data)).extractall(made)
    try:
        os.rename(made, place)
    except OSError:
        with contextlib.suppress(OSError):
            shutil.rmtree(made)
