"""What `skyward run` is told by options and by `[tool.skyward]` of a pyproject.toml. Pure: no I/O, no clock."""

from collections.abc import Mapping, Sequence
from typing import Any

from skyward.errors import InvalidArgument

PROVIDERS = ("local", "ssh", "aws")
"""The names of the providers, each of which may have a table of its own with what its class takes."""

POOL = ("provider", "nodes", "concurrency", "executor", "packages", "budget", "max_hourly")
"""What may stand in the table itself."""

FLAGS = ("-q", "--quiet", "-m", "--module", "-h", "--help")
"""The options that take no value."""


def split(words: Sequence[str]) -> list[str]:
    """Return the words of the command line with `--` before the script: what follows that is the script's own."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        at += 1 if "=" in words[at] or words[at] in FLAGS else 2
    if at >= len(words) or words[at] == "--":
        return list(words)
    return [*words[:at], "--", *words[at:]]


def merged(given: Mapping[str, Any], table: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the settings: those `given` as options, where they are, and those of the table, where they are not.

    `hosts`, `region` and `instance_type` are of the provider, and stand in its table.

    Raises
    ------
    InvalidArgument
        The table has a key that nobody knows, or a provider that there is not.
    """
    known = (*POOL, *PROVIDERS)
    if unknown := [key for key in table if key not in known]:
        raise InvalidArgument(
            f"{file}: [tool.skyward] has {unknown[0]!r}, which nothing reads; known are {', '.join(known)}"
        )
    told = {key: value for key, value in table.items() if key in POOL}
    told |= {key: value for key, value in given.items() if key in POOL and value is not None}
    provider = told.setdefault("provider", "local")
    if provider not in PROVIDERS:
        raise InvalidArgument.of(
            "provider", provider, "there is no such provider", f"give one of {', '.join(PROVIDERS)}"
        )
    own = table.get(provider, {})
    if not isinstance(own, Mapping):
        raise InvalidArgument(f"{file}: [tool.skyward.{provider}] must be a table")
    more = {key: value for key, value in given.items() if key not in POOL and value is not None}
    return {**told, "own": {**own, **more}}


def nodes(text: str) -> int | tuple[int, int]:
    """Return a number of nodes, or the bounds of it: `10`, `2-10`.

    Raises
    ------
    InvalidArgument
        It is neither.
    """
    first, dash, last = text.partition("-")
    try:
        return (int(first), int(last)) if dash else int(first)
    except ValueError:
        fix = "give how many nodes there are to be, for example 10, or 2-10 for as many as there is work for"
        raise InvalidArgument.of("nodes", text, "is no number of nodes", fix) from None
