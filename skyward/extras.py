"""What is not installed, and the command that installs it into the environment of the running program."""

import importlib.util
import shlex
import shutil
import sys

from skyward.errors import MissingExtra


def installer() -> str:
    """Return the beginning of the command that installs packages for this Python, whatever environment is activated.

    An environment that `uv venv` made has no pip.
    """
    python = shlex.quote(sys.executable or "python3")
    pip = f"{python} -m pip install"
    if importlib.util.find_spec("pip") is not None:
        return pip
    return f"uv pip install --python {python}" if shutil.which("uv") else f"{python} -m ensurepip && {pip}"


def missing(library: str, extra: str) -> MissingExtra:
    """Return the error for a library that is not installed.

    The command does not install `skyward` by its name: on the package index, that name belongs to another project.
    """
    return MissingExtra(f"{library} is not installed: {installer()} {_source(extra)}", name=library)


def require(extra: str, *libraries: str) -> None:
    """Raise `MissingExtra` if one of the libraries of an extra is not installed. Import none of them."""
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            raise missing(library, extra)


def _source(extra: str) -> str:
    """Return what to install to add an extra to Skyward as it is installed: from a clone, git or a wheel."""
    import json
    from importlib import metadata
    from urllib.parse import unquote

    try:
        origin = metadata.distribution("skyward").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        origin = None
    match json.loads(origin or "{}"):
        case {"url": str(url), "dir_info": {"editable": True}}:
            return f"-e {shlex.quote(f'{unquote(url.removeprefix("file://"))}[{extra}]')}"
        case {"url": str(url), "vcs_info": {"vcs": str(tool), "commit_id": str(commit)}}:
            return shlex.quote(f"skyward[{extra}] @ {tool}+{url}@{commit}")
        case {"url": str(url)}:
            return shlex.quote(f"skyward[{extra}] @ {url}")
        case _:
            return f"-e '.[{extra}]' in the folder of Skyward's source"
