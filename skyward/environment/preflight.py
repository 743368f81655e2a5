"""Check an image before anything is launched, and find settings that have no effect on a provider's machines.

Driver only. Nodes on machines that are not bare run in this program's own environment; nothing is installed there.
"""

import difflib
import importlib.metadata
import logging
import os
import pkgutil
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING

from skyward import extras
from skyward.config.validation import NO_HOME
from skyward.environment.user_modules import spec_of
from skyward.errors import InvalidArgument

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from skyward.config.image import Image
    from skyward.providers.provider import Provider

log = logging.getLogger("skyward")

IS_FOLDER = "is a folder"


def check(image: "Image", provider: "Provider") -> None:
    """Check that the files of an image exist, and that nodes can have its packages and modules.

    Raises
    ------
    InvalidArgument
        Something is missing; the text names it.
    """
    located(image.files)
    if not provider.bare and (missing := unmet(image.packages)):
        lacks = ", ".join(f"{text} ({found} is installed)" if found else text for text, found in missing.items())
        raise InvalidArgument.of(
            "packages",
            list(image.packages),
            f"nodes of {provider.name!r} run in this program's environment, which does not have {lacks}",
            f"install what is missing: {extras.installer()} {shlex.join(missing)}",
        )
    if unknown := absent(image, provider):
        here = {*sys.stdlib_module_names, *(each.name for each in pkgutil.iter_modules())}
        near = difflib.get_close_matches(unknown, here, n=1)
        fix = (
            "give the name by which it is imported" if not provider.bare else "name its package: Image(packages=[...])"
        )
        raise InvalidArgument.of(
            "preload",
            list(image.preload),
            f"there is no module {unknown!r}",
            f"did you mean {near[0]!r}?" if near else fix,
        )


def absent(image: "Image", provider: "Provider") -> str:
    """Return the top-level package of the first module to preload that no node can have; empty for none.

    Bare machines may have modules that this program does not have; the node reports those that are missing.
    """
    others = (image.packages, image.index, image.python, image.apt, image.shell) if provider.bare else ()
    if any(others) or image.files or "PYTHONPATH" in image.env:
        return ""
    tops = dict.fromkeys(name.partition(".")[0] for name in image.preload)
    unknown = [top for top in tops if spec_of(top) is None and top not in sys.modules]
    if unknown:  # they may have been created just now
        importlib.invalidate_caches()
    return next((top for top in unknown if spec_of(top) is None), "")


def prepare(image: "Image", provider: "Provider") -> None:
    """Check an image again, as plugins may have added to it, and log settings that have no effect."""
    check(image, provider)
    if text := ignored(image, provider):
        log.warning("%s", text)


def ignored(image: "Image", provider: "Provider") -> str:
    """Explain which settings of an image have no effect on a provider's machines; empty for none."""
    if provider.bare:
        return ""
    other = image.python is not None and not _is_this_python(image.python)
    given = {"index": image.index, "python": other, "apt": image.apt, "shell": image.shell}
    names = [f"{name}=" for name, value in given.items() if value]
    unknown = [text for text in image.packages if _requirement(text) is None]
    parts = [f"Image({', '.join(names)})"] if names else []
    parts += [f"the version of {', '.join(unknown)} in Image(packages=)"] if unknown else []
    if not parts:
        return ""
    has = "has" if len(parts) == 1 else "have"
    return (
        f"{' and '.join(parts)} {has} no effect: nodes of {provider.name!r} run in this program's environment. "
        "Set up here what they need; machines of sky.SSH and sky.AWS are set up as the image says"
    )


def located(files: Mapping[str, str | Path]) -> dict[str, Path]:
    """Return the paths of the files of an image, by their names in the working folder of tasks.

    Raises
    ------
    InvalidArgument
        One of them cannot be read.
    """
    found = {}
    for name, text in files.items():
        try:
            path = Path(text).expanduser()
        except RuntimeError:
            problem = NO_HOME.format(Path(text).parts[0])
            raise InvalidArgument.of("files", {name: text}, problem, "give the whole path") from None
        if problem := _unreadable(path):
            fix = "name each file in it, or an archive of it" if problem == IS_FOLDER else "give the path of a file"
            raise InvalidArgument.of("files", {name: text}, problem, f"{fix}; relative paths begin at {Path.cwd()}")
        found[name] = path
    return found


def _unreadable(path: Path) -> str:
    try:
        if path.is_dir():
            return IS_FOLDER
        if not path.exists():
            return "there is no such file"
        if not path.is_file():
            return "is not a regular file"
        path.open("rb").close()
    except OSError as error:
        return f"cannot be read: {str(error.strerror).lower()}"
    return ""


def unmet(requirements: Sequence[str]) -> dict[str, str]:
    """Return the requirements that no installed package meets, each with the installed version, if any.

    Requirements that cannot be compared, such as addresses, are left out.
    """
    missing: dict[str, str] = {}
    for wanted in _asked(requirements):
        found = installed(wanted.name)
        wanted.marker = None
        if found is None:
            missing[str(wanted)] = ""
        elif wanted.url is None and not wanted.specifier.contains(found.version, prereleases=True):
            missing[str(wanted)] = found.version
    return missing


def _asked(requirements: Sequence[str]) -> "Iterator[Requirement]":
    """Yield the requirements that apply to this environment, and those of their extras."""
    for wanted in filter(None, map(_requirement, requirements)):
        if _applies(wanted):
            yield wanted
            found = installed(wanted.name) if wanted.extras else None
            needs = [] if found is None else found.requires or []
            for each in filter(None, map(_requirement, needs)):
                if not _applies(each) and any(_applies(each, extra) for extra in wanted.extras):
                    yield each


def _applies(wanted: "Requirement", extra: str = "") -> bool:
    return wanted.marker is None or wanted.marker.evaluate({"extra": extra})


def _requirement(text: str) -> "Requirement | None":
    from packaging.requirements import InvalidRequirement, Requirement  # not above: a slow import

    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def installed(name: str) -> Distribution | None:
    """Return the installed package of that name."""
    try:
        return importlib.metadata.distribution(name)
    except PackageNotFoundError:
        return None


def _is_this_python(command: str) -> bool:
    found = shutil.which(command)
    return found is not None and os.path.realpath(found) == os.path.realpath(sys.executable)
