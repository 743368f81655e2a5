"""The installed modules that calls import, so that a node imports them once for all workers. Driver only."""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import CodeType, MappingProxyType

from skyward.environment.user_modules import spec_of, unit_of
from skyward.remote.module_bundles import IMPORTS_PREFIX, INSTALL_FOLDERS
from skyward.remote.serialization.module_references import first_imports

LIGHT = frozenset({*sys.stdlib_module_names, "__main__", "__mp_main__", "casty", "cloudpickle", "joblib", "skyward"})
"""Packages that nodes have imported already, or that are imported quickly."""

ENVIRONMENT = frozenset({"environ", "putenv"})
"""Names by which a module may set environment variables, which other modules may read when they are imported."""

NO_MODULES: Mapping[str, bytes] = MappingProxyType({})


@lru_cache(1024)
def import_list(names: frozenset[str]) -> Mapping[str, bytes]:
    """Return the list of installed modules that are imported with modules of these names, by its name; empty for none.

    For the user's own modules, these are the modules that they import first of all. If one of them may set environment
    variables, nothing is listed, as the variables may have to be set first.
    """
    found: dict[str, None] = {}
    for name in sorted(names):
        if _is_light(name):
            continue
        if _is_installed(name):
            if _may_exist(name):
                found[name] = None
        elif unit_of(name) is not None and (code := _code(name)) is not None:
            if not ENVIRONMENT.isdisjoint(code.co_names):
                return NO_MODULES
            found |= dict.fromkeys(_first_of_users(code))
    if not found:
        return NO_MODULES
    text = "\n".join(sorted(found)).encode()
    return {f"{IMPORTS_PREFIX}{hashlib.sha256(text).hexdigest()[:16]}": text}


def _first_of_users(code: CodeType) -> Iterator[str]:
    """Yield the installed modules that a module of the user imports before any other."""
    for name in first_imports(code):
        if _is_light(name):
            continue
        if not _is_installed(name):
            return
        yield name


def _is_light(name: str) -> bool:
    return name.partition(".")[0] in LIGHT


def _may_exist(name: str) -> bool:
    """Return whether an installed module of that name may exist: some functions and classes name a wrong one.

    No package is imported to find out.
    """
    package, parent = name.partition(".")[0], name.rpartition(".")[0]
    if name in sys.modules or package not in sys.modules:
        return True
    return parent in sys.modules and spec_of(name) is not None


def _is_installed(name: str) -> bool:
    """Return whether a module belongs to an installed package."""
    spec = spec_of(name.partition(".")[0])
    if spec is None:
        return False
    places = [spec.origin or "", *(spec.submodule_search_locations or ())]
    return any(INSTALL_FOLDERS.intersection(Path(place).parts) for place in places)


def _code(name: str) -> CodeType | None:
    spec = spec_of(name)
    get_code = getattr(getattr(spec, "loader", None), "get_code", None)
    try:
        code = None if get_code is None else get_code(name)
    except (ImportError, SyntaxError, OSError):
        return None
    return code if isinstance(code, CodeType) else None
