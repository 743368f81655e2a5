"""The user's own modules on a node: they come as bundles among the functions of a call, and can then be imported."""

import contextlib
import importlib
import io
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping

PREFIX = "module:"
"""What the name of a bundle begins with; the module's name and the hash of its content follow."""


IMPORTS = "imports:"
"""What the name of a list of modules begins with that a call imports from installed packages."""


def bundle_name(module: str, digest: str) -> str:
    """Return the name of a bundle."""
    return f"{PREFIX}{module}:{digest}"


def install(folder: str, functions: Mapping[str, bytes]) -> dict[str, bytes]:
    """Make the bundles among the functions importable in this process, and return the functions.

    Modules of an earlier content are imported anew. The files go below `folder`, once for all processes of the node.
    """
    changed = False
    others: dict[str, bytes] = {}
    for name, data in functions.items():
        if not name.startswith(PREFIX):
            others[name] = data
            continue
        module, digest = name.removeprefix(PREFIX).split(":")
        home = os.path.join(folder, "modules", module)
        place = os.path.join(home, digest)
        if place in sys.path:
            continue
        if not os.path.isdir(place):
            _extract(home, place, data)
        for old in [path for path in sys.path if path.startswith(home + os.sep)]:
            sys.path.remove(old)
            for loaded, found in list(sys.modules.items()):
                if (getattr(found, "__file__", None) or "").startswith(old + os.sep):
                    del sys.modules[loaded]
        sys.path.insert(0, place)
        changed = True
    if changed:
        importlib.invalidate_caches()
    return others


def _extract(home: str, place: str, data: bytes) -> None:
    """Put the files there, whole or not at all: other processes of the node may do the same."""
    os.makedirs(home, mode=0o700, exist_ok=True)
    made = tempfile.mkdtemp(dir=home)
    zipfile.ZipFile(io.BytesIO(data)).extractall(made)
    try:
        os.rename(made, place)
    except OSError:
        with contextlib.suppress(OSError):
            shutil.rmtree(made)
