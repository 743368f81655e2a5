"""The settings of `skyward run`: its options, and `[tool.skyward]` of a pyproject.toml. Pure: no I/O, no clock."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from skyward.errors import InvalidArgument, ProvisioningError

PROVIDERS = ("local", "ssh", "aws")
"""The names of the providers, each of which may have a table of its own with the arguments of its class."""

POOL_OPTIONS = (
    "provider",
    "nodes",
    "concurrency",
    "executor",
    "packages",
    "retries",
    "budget",
    "max_hourly",
    "dashboard",
)
"""The keys of the table itself."""

IMAGE_OPTIONS = ("packages", "apt", "files", "env", "python")
"""The options that are arguments of `sky.Image`; the table `image` takes all of its arguments."""

OWN = {"hosts": "ssh", "region": "aws", "profile": "aws", "instance_type": "aws", "spot": "aws"}
"""The options that belong to one provider."""

FLAGS = ("-q", "--quiet", "-m", "--module", "-h", "--help", "--spot", "--no-spot", "--dashboard", "--no-dashboard")
"""The options that take no value."""

_LITERAL = r"\[[^\]]*\]|\([^)]*\)|\{[^}]*\}|'[^']*'|\"[^\"]*\"|[\w.+-]+|"


def split(words: Sequence[str]) -> list[str]:
    """Return the words of the command line with `--` before the script: what follows that is the script's own."""
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        at += 1 if "=" in words[at] or words[at] in FLAGS else 2
    if at >= len(words) or words[at] == "--":
        return list(words)
    return [*words[:at], "--", *words[at:]]


def split_items(texts: Sequence[str] | None) -> list[str] | None:
    """Return the items of an option that takes several, with commas or given again: `numpy>=1,<3,scipy` is two."""
    if texts is None:
        return None
    items = (item.strip() for text in texts for item in re.split(r",(?![^\[]*\])(?!\s*[<>=!~])", text))
    return [item for item in items if item]


def paired(texts: Sequence[str] | None, defaults: Mapping[str, str] | None = None) -> dict[str, str] | None:
    """Return `NAME=VALUE` items as a mapping. `NAME` alone has its value in `defaults`, or is its own.

    Raises
    ------
    InvalidArgument
        The name is not in `defaults`.
    """
    if texts is None:
        return None
    found = {}
    for text in texts:
        name, given, value = text.partition("=")
        if not given and defaults is not None and name not in defaults:
            raise InvalidArgument(f"--env {text}: no such variable is set here; write --env {text}=VALUE")
        found[name] = value if given else name if defaults is None else defaults[name]
    return found


def merged_settings(given: Mapping[str, Any], table: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the settings: the options `given`, and those of the table for the rest.

    `own` has the arguments of the provider, `image` those of `sky.Image`.

    Raises
    ------
    InvalidArgument
        The table has an unknown key or provider, or an option belongs to another provider.
    """
    given = {name: value for name, value in given.items() if value is not None}
    known = (*POOL_OPTIONS, "image", *PROVIDERS)
    if unknown := [key for key in table if key not in known]:
        raise InvalidArgument(f"{file}: [tool.skyward] has the unknown key {unknown[0]!r}; known: {', '.join(known)}")
    for name in ("image", *PROVIDERS):
        if not isinstance(table.get(name, {}), Mapping):
            raise InvalidArgument(f"{file}: [tool.skyward.{name}] must be a table")
    of_pool = set(POOL_OPTIONS).difference(IMAGE_OPTIONS)
    settings = {name: value for name, value in {**table, **given}.items() if name in of_pool}
    provider = settings.setdefault("provider", "local")
    if provider not in PROVIDERS:
        fix = f"give one of {', '.join(PROVIDERS)}"
        raise InvalidArgument.of("provider", provider, "there is no such provider", fix)
    if stray := [name for name in given if OWN.get(name, provider) != provider]:
        raise InvalidArgument(f"{option(stray[0])} needs --provider {OWN[stray[0]]}; the provider is {provider}")
    own = {**table.get(provider, {}), **{name: value for name, value in given.items() if name in OWN}}
    if provider == "ssh" and "hosts" not in own:
        raise InvalidArgument("--provider ssh needs --hosts, for example --hosts node-7,alice@gpu-box")
    image = {**table.get("image", {}), **{name: value for name, value in table.items() if name == "packages"}}
    image |= given.get("image", {})
    for name in IMAGE_OPTIONS:
        if isinstance(value := given.get(name), Mapping) and isinstance(before := image.get(name, {}), Mapping):
            image[name] = {**before, **value}
        elif value is not None:
            image[name] = value
    return {**settings, "own": own, "image": image}


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
        fix = "give a number, for example nodes=10, or a range for as many as there is work for, nodes='2-10'"
        raise InvalidArgument.of("nodes", text, "not a number of nodes", fix) from None


def option(name: str) -> str:
    """Return how an argument is called on the command line: `--instance-type`."""
    return f"--{name.replace('_', '-')}"


def spoken(text: str, names: Iterable[str], positional: str = "") -> str:
    """Return an error in the words of the command line, which has these arguments as options, one as plain words.

    `nodes=0: must be at least 1` is `--nodes 0: must be at least 1` there.
    """

    def said(found: re.Match[str]) -> str:
        if found[1] == positional:
            return _typed(found[2], " ")
        return f"{option(found[1])} {_typed(found[2], '-' if found[1] == 'nodes' else ',')}".rstrip()

    each = "|".join((*names, positional))
    text = re.sub(rf"^({each})=None: ", "", text)
    return re.sub(rf"(?<![\w=.-])({each})=({_LITERAL})", said, text)


@contextmanager
def spoken_as_options(*names: str, positional: str = "") -> Iterator[None]:
    """Have errors about these arguments say the options instead."""
    try:
        yield
    except (InvalidArgument, ProvisioningError) as error:
        raise type(error)(spoken(str(error), names, positional)) from None


def _typed(literal: str, between: str) -> str:
    try:
        value = ast.literal_eval(literal)
    except (SyntaxError, ValueError):
        return literal
    match value:
        case list() | tuple():
            return between.join(":".join(map(str, each)) if isinstance(each, tuple) else str(each) for each in value)
        case dict():
            return between.join(key if key == each else f"{key}={each}" for key, each in value.items())
        case _:
            return str(value)
