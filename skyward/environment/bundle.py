"""Make the wheels that bare machines are sent, from the packages that are installed here.

Driver only. `skyward.remote.bootstrap` has the script that installs them.
"""

import hashlib
import importlib.metadata
import json
import mmap
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import Distribution
from pathlib import Path
from typing import IO

from skyward.config.image import Image
from skyward.environment import preflight
from skyward.environment.archive import write_zip
from skyward.providers.provider import Content
from skyward.remote import bootstrap
from skyward.remote.bootstrap import Recipe, Wheel
from skyward.remote.module_bundles import INSTALL_FOLDERS
from skyward.remote.node_config import Requirements

NODE_PACKAGES = ("casty", "cloudpickle", "uvloop", "threadpoolctl")
"""The packages that a node needs besides Skyward; those that are not installed here are left out."""


@dataclass(frozen=True)
class Package:
    """An installed package: its wheel, and its files by their names in `site-packages`."""

    wheel: Wheel
    files: Mapping[str, Path | bytes]

    def write(self, file: IO[bytes]) -> None:
        """Write the wheel."""
        found = self.files.items()
        write_zip(file, ((name, each if isinstance(each, bytes) else each.read_bytes()) for name, each in found))


@dataclass(frozen=True)
class EnvironmentBundle:
    """Everything that the nodes of a pool may have to be sent: the recipe, and the content of its files."""

    recipe: Recipe
    packages: tuple[Package, ...]
    files: Mapping[str, Path] = field(default_factory=dict)
    _made: dict[str, Content] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def script(self) -> bytes:
        """The script that turns a bare machine into a node."""
        return bootstrap.script(self.recipe)

    def content(self, name: str) -> Content:
        """Return the content of a file that the script asked for. It is made once for all nodes.

        It is in an unnamed file on disk, as packages may be larger than the memory.
        """
        with self._lock:
            if name not in self._made:
                with tempfile.TemporaryFile() as file:
                    self._make(name, file)
                    self._made[name] = _mapped(file)
            return self._made[name]

    def _make(self, name: str, file: IO[bytes]) -> None:
        if name in self.files:
            with self.files[name].open("rb") as found:
                shutil.copyfileobj(found, file)
        else:
            next(package for package in self.packages if package.wheel.file == name).write(file)
        file.flush()

    def requirements(self, modules: tuple[str, ...]) -> Requirements:
        """Return the requirements of a node's environment, including these modules."""
        versions = {wheel.name: wheel.version for wheel in self.recipe.wheels}
        return Requirements(self.recipe.python, versions, modules)


def pack(image: Image) -> EnvironmentBundle:
    """Return what the nodes of an image may have to be sent.

    Raises
    ------
    InvalidArgument
        A file of the image does not exist.
    """
    names, fetch = needed([*(name for name in NODE_PACKAGES if preflight.installed(name)), *image.packages])
    packages = [itself(), *(installed_package(name) for name in names)]
    pip = installed_package("pip") if preflight.installed("pip") else None
    files: dict[str, Path] = {}
    placed: list[tuple[str, str]] = []
    for name, path in preflight.located(image.files).items():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[digest] = path
        placed.append((name, digest))
    uv_file = ""
    if (uv := find_uv()) is not None:
        found = os.stat(uv)
        uv_file = f"uv-{found.st_size}-{found.st_mtime_ns}"
        files[uv_file] = Path(uv)
    recipe = Recipe(
        python="{}.{}".format(*sys.version_info),
        suffix=str(sysconfig.get_config_var("EXT_SUFFIX")),
        wheels=tuple(package.wheel for package in packages),
        fetch=fetch,
        pip=None if pip is None else pip.wheel,
        uv=uv_file,
        machine=f"{platform.system()} {platform.machine()}",
        index=image.index or "",
        interpreter=image.python or "",
        apt=tuple(image.apt),
        shell=tuple(image.shell),
        files=tuple(placed),
    )
    return EnvironmentBundle(recipe, (*packages, *([pip] if pip is not None else [])), files)


def find_uv() -> str | None:
    """Return the `uv` that can be sent: the one on the PATH, or the one that is installed for this Python."""
    uv = shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))
    return uv if uv is not None and os.access(uv, os.R_OK) else None


def contents(files: Mapping[str, str | Path]) -> dict[str, Content]:
    """Return the contents of the files of an image, by their names in the working folder of tasks."""
    found: dict[str, Content] = {}
    for name, path in preflight.located(files).items():
        with path.open("rb") as file:
            found[name] = _mapped(file)
    return found


def _mapped(file: IO[bytes]) -> Content:
    return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if os.fstat(file.fileno()).st_size else b""


def needed(requirements: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the installed packages that meet the requirements, with their dependencies, and the unmet requirements."""
    from packaging.requirements import InvalidRequirement, Requirement  # not above: slow imports
    from packaging.utils import canonicalize_name

    names: dict[str, None] = {}
    fetch: list[str] = []
    seen: set[tuple[str, frozenset[str]]] = set()
    asked = [(text, "") for text in requirements]
    while asked:
        text, extra = asked.pop(0)
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            fetch.append(text)  # a path or an address, for pip
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(wanted.name)
        found = preflight.installed(name)
        if found is None or wanted.url is not None or not wanted.specifier.contains(found.version, prereleases=True):
            fetch.append(text.partition(";")[0].strip())
            continue
        if (name, frozenset(wanted.extras)) in seen or name == "skyward":
            continue
        seen.add((name, frozenset(wanted.extras)))
        if not is_editable(found):
            if is_recorded(found):
                names[name] = None
            else:
                fetch.append(f"{found.metadata['Name']}=={found.version}")
        asked += [(each, chosen) for each in found.requires or () for chosen in (*wanted.extras, "")]
    return list(names), tuple(dict.fromkeys(fetch))


def is_editable(found: Distribution) -> bool:
    """Return whether a package is installed as editable, so that its modules are sent with the calls."""
    told = found.read_text("direct_url.json")
    if told is not None:
        return bool(json.loads(told).get("dir_info", {}).get("editable"))
    return not is_recorded(found) and Path(str(found.locate_file(""))).name not in INSTALL_FOLDERS  # `setup.py develop`


def is_recorded(found: Distribution) -> bool:
    """Return whether a package lists its files; very old ones, and those of Linux distributions, do not."""
    return found.read_text("RECORD") is not None and found.read_text("METADATA") is not None


def installed_package(name: str) -> Package:
    """Return a package from its installed files."""
    found = importlib.metadata.distribution(name)
    told = found.read_text("WHEEL") or ""
    tags = next(
        (line.partition(":")[2].strip() for line in told.splitlines() if line.startswith("Tag:")), "py3-none-any"
    )
    files: dict[str, Path | bytes] = {}
    record: list[str] = []
    for each in found.files or ():
        name_there = each.as_posix()
        if name_there.startswith("..") or "__pycache__" in name_there or name_there.endswith(("/RECORD", "/INSTALLER")):
            continue
        path = Path(str(each.locate()))
        if path.is_file():
            files[name_there] = path
            record.append(
                f"{name_there},{each.hash.mode}={each.hash.value},{each.size}" if each.hash else f"{name_there},,"
            )
    listing = "\n".join(sorted(record))
    folder = f"{found.metadata['Name'].replace('-', '_')}-{found.version}.dist-info"
    folder = next((name.partition("/")[0] for name in files if name.endswith(".dist-info/METADATA")), folder)
    files[f"{folder}/RECORD"] = f"{listing}\n{folder}/RECORD,,\n".encode()
    digest = hashlib.sha256(listing.encode()).hexdigest()[:16]
    own = found.read_text("direct_url.json") is not None  # from a folder, a repository or a file
    return Package(Wheel(found.metadata["Name"], found.version, digest, tags, own=own), files)


def itself() -> Package:
    """Return Skyward itself from its files, as its version may be in no package index."""
    root = Path(bootstrap.__file__).parents[1]
    files: dict[str, Path | bytes] = {f"skyward/{name}": path for name, path in _sources(root)}
    version = importlib.metadata.version("skyward")
    hashed = hashlib.sha256(version.encode())
    record = []
    for name, path in files.items():
        digest = hashlib.sha256(Path(str(path)).read_bytes()).hexdigest()
        hashed.update(f"{name} {digest}\n".encode())
        record.append(f"{name},,")
    folder = f"skyward-{version}.dist-info"
    files[f"{folder}/METADATA"] = f"Metadata-Version: 2.1\nName: skyward\nVersion: {version}\n".encode()
    files[f"{folder}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: skyward\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record += [f"{folder}/{name},," for name in ("METADATA", "WHEEL", "RECORD")]
    files[f"{folder}/RECORD"] = "\n".join([*record, ""]).encode()
    return Package(Wheel("skyward", version, hashed.hexdigest()[:16], own=True), files)


def _sources(root: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(root).as_posix(), path
