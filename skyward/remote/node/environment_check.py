"""`python -m skyward.remote.node.environment_check FOLDER`: does this environment have what the driver counts on?

It runs on a machine that was given its environment, before the node does, and prints an `EnvironmentMismatch` if not.
"""

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from skyward.remote.node_config import CONFIG_FILE, NodeConfig
from skyward.remote.node_messages import EnvironmentMismatch, encode

MISMATCH_EXIT_CODE = 78
"""The exit code when something is wrong."""

NO_VERSION = "missing"
"""What a version is called that is not there."""


def wrong(python: str, packages: Mapping[str, str], modules: Iterable[str]) -> list[tuple[str, str, str, str]]:
    """Return what is not as it is on the driver: the name, what it is there, what it is here, and the fix."""
    rows = []
    ours = "{}.{}".format(*sys.version_info)
    if ours != python:
        rows.append(("Python", python, ours, f"Image(python=...) that is a {python}"))
    for name, version in sorted(packages.items()):
        if (found := _version(name)) != version:
            rows.append((name, version, found, "remove ~/.cache/skyward/env on the machine"))
    roots = sorted({name.partition(".")[0] for name in modules} - sys.modules.keys())
    absent = [module for module in roots if importlib.util.find_spec(module) is None]
    return rows + [(f"module {name}", "preload", NO_VERSION, f'Image(packages=["{name}"])') for name in absent]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return NO_VERSION


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as a table with its heads."""
    lines = [("what", "here", "there", "fix"), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def main(folder: Path) -> int:
    """Print what is wrong, if anything is, and return the exit code."""
    required = NodeConfig.decode((folder / CONFIG_FILE).read_bytes()).requirements
    rows = wrong(required.python, required.packages, required.modules) if required is not None else []
    if rows:
        os.write(1, encode(EnvironmentMismatch(rows)))
    return MISMATCH_EXIT_CODE if rows else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
