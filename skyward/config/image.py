"""`Image`: what a node needs before it runs the first task. Plugins can add to it.

Driver only: a node never imports pydantic.
"""

import keyword
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, field_validator

from skyward.config.validation import StrictModel, Text, matching, refused


def _texts(value: object) -> tuple[str, ...]:
    """Return a list or tuple of strings as a tuple."""
    match value:
        case str():
            raise refused("must be a list", f"put it in a list: [{value!r}]")
        case list() | tuple():
            for item in value:
                if not isinstance(item, str):
                    raise refused(f"{item!r} is not a string")
            return tuple(value)
        case _:
            raise refused("must be a list")


def _package(text: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement  # not above: a slow import

    if text.lstrip().startswith("-"):
        raise refused("is an option, not a package")
    if not text.strip() or not text.isprintable():
        raise refused("is not the name of a package")
    try:
        Requirement(text)
    except InvalidRequirement:
        if "://" in text or text.startswith("/"):  # an address, or a path on the machine, for pip
            return text
        if "/" in text or text.endswith((".whl", ".tar.gz", ".zip")):
            fix = "install it here and give its name: nodes get the packages that are installed here"
            raise refused("is a path that machines do not have", fix) from None
        raise refused("is not the name of a package") from None
    return text


def _python(value: str | None) -> str | None:
    """Check the command of a Python; one whose name has another version than this Python is refused."""
    ours = "{}.{}".format(*sys.version_info)
    if (named := re.fullmatch(r"(.*/)?(python)?(\d+(?:\.\d+)*)", value or "")) is None:
        return value
    folder, command, version = named.groups()
    if command is None and folder is None:
        raise refused("is a version, not a command", f"write python='python{ours}', or leave it out")
    if command and not f"{ours}.".startswith(f"{version}.") and not version.startswith(f"{ours}."):
        raise refused(f"is not the version that your program runs on, {ours}", f"use python{ours}, or leave it out")
    return value


def _module(text: str) -> str:
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in text.split(".")):
        raise refused("is not the name of a module", "write it as in `import`, for example ['sklearn']")
    return text


def _env(value: object) -> dict[str, str]:
    """Check the environment variables. Errors do not show values, which may be secrets."""
    if not isinstance(value, Mapping):
        raise refused("must be a dictionary of strings")
    for name, text in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            problem = f"{name!r} is not the name of a variable"
            raise refused(problem, "use letters, digits and _, not starting with a digit", f"{{{name!r}: ...}}")
        if not isinstance(text, str):
            fix = f"quote it: env={{{name!r}: {str(text)!r}}}" if isinstance(text, int | float) else ""
            raise refused(f"the value of {name} is not a string", fix, f"{{{name!r}: <{type(text).__name__}>}}")
        if "\0" in text:
            raise refused(f"the value of {name} contains a NUL character", "leave it out", f"{{{name!r}: ...}}")
    return dict(value)


def _files(value: object) -> dict[str, str]:
    """Check the names in the working folder, and the paths here."""
    if not isinstance(value, Mapping):
        raise refused("must be a dictionary of names and paths")
    for name, path in value.items():
        if not isinstance(name, str) or not isinstance(path, str | Path):
            raise refused(f"{name!r}: {path!r} is not a name and a path")
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not PurePosixPath(name).name:
            raise refused(f"{name!r} is not inside the working folder of a task", "give a relative name")
        if "\0" in f"{name}{path}":
            raise refused(f"{name!r} or its path contains a NUL character", "leave it out")
    files = {str(PurePosixPath(name)): str(path) for name, path in value.items()}
    if folders := [name for name in files if any(PurePosixPath(name) in PurePosixPath(each).parents for each in files)]:
        raise refused(f"{folders[0]!r} is a file and a folder", "give it another name")
    return files


_debian = matching(r"[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=\S+|/\S+)?", "is not the name of a Debian package")
_command = matching(r"[^\0]*[^\s\0][^\0]*", "is not a command")


class Image(StrictModel):
    """What a node needs before it runs the first task.

    It is checked before anything is launched: every provider refuses a file that does not exist. Nodes of `sky.Local`
    run in your program's own environment, so `packages` must be installed in it. The arguments that set up other
    machines (`index`, `python`, `apt` and `shell`) have no effect there, and the log says so.

    Parameters
    ----------
    packages
        Packages to install, as pip writes them: `"numpy>=2"`.
    preload
        Modules to import once per node, before its slots are forked. The slots share their memory.
    env
        Environment variables of the tasks. They appear in no command line and no log.
    index
        Index from which packages are fetched, like pip's `--index-url`. If left out, a machine is sent the packages
        that are installed here, and fetches only those that are not.
    python
        The Python of the machine to use. Its version must be the one that runs here. If left out, it is searched for,
        and installed by `uv` if there is none.
    apt
        System packages, installed with `apt-get` (as root, or with `sudo` that asks for no password).
    shell
        Shell commands that run last when the environment is made: once on each machine, as long as the image does not
        change.
    files
        Files for the working folder of the tasks: names there, and paths here. Each node has its own copies in its own
        folder, which is removed with the node. On `sky.Local` without `files`, tasks work in the folder of your
        program.
    """

    synonyms: ClassVar[Mapping[str, str]] = {
        "packages": "pip pip_packages requirements dependencies install libraries",
        "preload": "imports modules import_modules preimport",
        "env": "environment environ env_vars variables vars",
        "index": "index_url extra_index_url pypi",
        "python": "python_version interpreter",
        "apt": "apt_packages apt_install system system_packages debian",
        "shell": "commands run run_commands setup script",
        "files": "data file copy mounts folders",
    }

    packages: Sequence[Annotated[str, AfterValidator(_package)]] = Field(
        default=(), description="give packages as pip writes them", examples=["['numpy>=2']"]
    )
    preload: Sequence[Annotated[str, AfterValidator(_module)]] = Field(
        default=(), description="give names of modules", examples=["['numpy']"]
    )
    env: Mapping[str, str] = Field(
        default_factory=dict, description="give names and strings", examples=["{'LOG_LEVEL': 'debug'}"]
    )

    index: Annotated[Text | None, matching(r"(https?|file)://.+", "is not the address of a package index")] = Field(
        default=None,
        description="give the address of a package index",
        examples=["'https://packages.example.org/simple'"],
    )
    python: Annotated[Text | None, AfterValidator(_python)] = Field(
        default=None, description="give a command of the machine", examples=["'/opt/python3.12/bin/python3'"]
    )
    apt: Sequence[Annotated[str, _debian]] = Field(
        default=(), description="give names of Debian packages", examples=["['libgomp1']"]
    )
    shell: Sequence[Annotated[str, _command]] = Field(
        default=(), description="give lines of shell", examples=["['mkdir -p data']"]
    )
    files: Mapping[str, str | Path] = Field(
        default_factory=dict, description="give names there and paths here", examples=["{'data.csv': 'data.csv'}"]
    )

    _texts = field_validator("packages", "preload", "apt", "shell", mode="before")(_texts)
    _files = field_validator("files", mode="before")(_files)
    _env = field_validator("env", mode="before")(_env)

    def with_packages(self, *names: str) -> Self:
        """Return a copy that also installs these packages, each once."""
        return type(self)(**{**dict(self), "packages": tuple(dict.fromkeys((*self.packages, *names)))})

    def with_preload(self, *names: str) -> Self:
        """Return a copy that also imports these modules, each once."""
        return type(self)(**{**dict(self), "preload": tuple(dict.fromkeys((*self.preload, *names)))})
