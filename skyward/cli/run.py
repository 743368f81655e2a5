"""`skyward run`: a script on a pool, unchanged: every `joblib.Parallel` call in it runs there."""

import os
import runpy
import shlex
import sys
import tomllib
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from skyward.cli.options import number, whole
from skyward.cli.settings import merged_settings, nodes, paired, split_items, spoken
from skyward.errors import InvalidArgument, ProvisioningError

if TYPE_CHECKING:
    from skyward.api.compute import Compute
    from skyward.providers.provider import Provider


type Texts = list[str] | None

_ON_SSH, _ON_AWS = Group("With --provider ssh", sort_key=2), Group("With --provider aws", sort_key=3)
_IMAGE_GROUP = Group("What nodes need", sort_key=1)


NO_CALLS = (
    "{script} did not use the pool that `skyward run` opened: it made no call of joblib.Parallel or of a @sky.remote "
    "function there.\n"
    "If it opens a pool itself (sky.Compute), run it without `skyward run`: {command}"
)


def run(
    script: Annotated[str, Parameter(help="Script to run; with -m, the module.")],
    /,
    *args: Annotated[str, Parameter(help="Arguments for the script.", allow_leading_hyphen=True)],
    module: Annotated[bool, Parameter(name=["--module", "-m"], help="Run a module.", negative="")] = False,
    provider: Annotated[Literal["local", "ssh", "aws"] | None, Parameter(help="Where machines come from.")] = None,
    nodes: Annotated[str | None, Parameter(help="Number of nodes, or a range: 2-10.")] = None,
    concurrency: Annotated[
        int | None, Parameter(converter=whole, help="Slots per node (default: one per CPU).")
    ] = None,
    retries: Annotated[
        int | None, Parameter(converter=whole, help="Attempts after the first, when a node dies.")
    ] = None,
    budget: Annotated[float | None, Parameter(converter=number, help="Maximum total cost in dollars.")] = None,
    dashboard: Annotated[bool | None, Parameter(help="Show the run in the browser, live.")] = None,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], help="No report at the end.", negative="")] = False,
    image: Annotated[Path | None, Parameter(help="TOML file: arguments of sky.Image.", group=_IMAGE_GROUP)] = None,
    packages: Annotated[Texts, Parameter(help="Python packages: numpy,scipy", negative="", group=_IMAGE_GROUP)] = None,
    apt: Annotated[Texts, Parameter(help="Debian packages: libgomp1", negative="", group=_IMAGE_GROUP)] = None,
    files: Annotated[Texts, Parameter(help="Files: data.csv,NAME=PATH", negative="", group=_IMAGE_GROUP)] = None,
    env: Annotated[
        Texts, Parameter(help="Variable: NAME=VALUE, or NAME to pass it on.", negative="", group=_IMAGE_GROUP)
    ] = None,
    python: Annotated[str | None, Parameter(help="Python command on the machines.", group=_IMAGE_GROUP)] = None,
    hosts: Annotated[Texts, Parameter(help="Machines: node-7,alice@gpu-box:2222", negative="", group=_ON_SSH)] = None,
    region: Annotated[str | None, Parameter(help="Region: eu-central-1", group=_ON_AWS)] = None,
    profile: Annotated[str | None, Parameter(help="Profile of ~/.aws/config.", group=_ON_AWS)] = None,
    instance_type: Annotated[str | None, Parameter(help="Type: t4g.micro", group=_ON_AWS)] = None,
    spot: Annotated[bool | None, Parameter(help="Use spot machines.", group=_ON_AWS)] = None,
) -> int:
    """Run a script with its joblib calls on a pool.

    Options come before the script. [tool.skyward] of the nearest pyproject.toml has the others.
    """
    given = {
        "provider": provider,
        "nodes": nodes,
        "concurrency": concurrency,
        "retries": retries,
        "budget": budget,
        "dashboard": dashboard,
        "image": None if image is None else _read(image),
        "packages": split_items(packages),
        "apt": split_items(apt),
        "files": paired(split_items(files)),
        "env": paired(env, os.environ),
        "python": python,
        "hosts": split_items(hosts),
        "region": region,
        "profile": profile,
        "instance_type": instance_type,
        "spot": spot,
    }
    start = Path.cwd() if module else Path(script).absolute().parent
    if not module and not Path(script).is_file():
        raise InvalidArgument(f"{script}: no such script")
    file, table = _table(start)
    sys.argv = [script, *args]
    sys.path.insert(0, str(start))  # nodes of this machine look where this process does
    if module and not _is_module(script):
        raise InvalidArgument(f"{script}: no such module")
    failure: Exception | None = None
    code = 1
    try:
        with ExitStack() as stack:
            with said(given, file, image):
                compute = stack.enter_context(opened(merged_settings(given, table, file)))
            try:
                code = executed(script, module=module)
            except Exception as error:
                failure = error
                raise  # through the block, so that the run has failed in its record, too
    except Exception as error:
        if error is not failure:
            raise
        traceback.print_exception(error.with_traceback(_own(error.__traceback__)))
    report = compute.report()
    if not report.tasks:
        command = shlex.join([sys.executable, *(["-m"] if module else []), script, *args])
        print(f"skyward: {NO_CALLS.format(script=script, command=command)}", file=sys.stderr)
    elif not quiet:
        print(f"\n{report}", file=sys.stderr)
    return code


@contextmanager
def said(given: Mapping[str, Any], file: str, image: Path | None) -> Iterator[None]:
    """Have errors about settings name them as the user wrote them: as options, or as keys of a file."""
    try:
        yield
    except (InvalidArgument, ProvisioningError) as error:
        name, is_setting, value = str(error).partition("=")
        if not is_setting or given.get(name, 0) is not None or value.startswith("None:"):
            raise type(error)(spoken(str(error), given)) from None
        if name in (given["image"] or {}):
            raise type(error)(f"--image {image}: {error}") from None
        raise type(error)(f"{file}: [tool.skyward]: {error}" if file else spoken(str(error), given)) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise InvalidArgument(f"{file}: cannot be read: {reason or error}") from None


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # nor a package that it would be in
        return False


def _table(start: Path) -> tuple[str, dict[str, Any]]:
    """Return the name and `[tool.skyward]` of the pyproject.toml that is nearest, upwards from a folder."""
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        table: Any = _read(file)
        for name, key in (("tool", "tool"), ("tool.skyward", "skyward")):
            table = table.get(key, {})
            if not isinstance(table, dict):
                fix = "write [tool.skyward] and settings below it"
                raise InvalidArgument(f"{file}: {InvalidArgument.of(name, table, 'must be a table', fix)}")
        return str(file), table
    return "", {}


@contextmanager
def opened(settings: dict[str, Any]) -> Iterator["Compute"]:
    """Open a pool of these settings, on which joblib's calls run."""
    from skyward.api.compute import Compute
    from skyward.config.image import Image
    from skyward.config.spec import Options, Worker
    from skyward.plugins.joblib import joblib

    wanted = settings.get("nodes", 1)
    names = ("retries", "budget", "max_hourly", "dashboard")
    options = {name: settings[name] for name in names if name in settings}
    worker = {name: settings[name] for name in ("concurrency", "executor") if name in settings}
    with Compute(
        provider=_provider(settings["provider"], settings["own"]),
        nodes=nodes(wanted) if isinstance(wanted, str) else tuple(wanted) if isinstance(wanted, list) else wanted,
        worker=Worker(**worker),
        image=Image(**settings["image"]),
        plugins=[joblib()],
        options=Options(**options),
    ) as compute:
        yield compute


def _provider(name: str, own: dict[str, Any]) -> "Provider":
    match name:
        case "ssh":
            from skyward.providers.ssh.ssh import SSH

            return SSH(**own)
        case "aws":
            from skyward.providers.aws.aws import AWS

            return AWS(**own)
        case _:
            from skyward.providers.local import Local

            return Local(**own)


def executed(script: str, *, module: bool) -> int:
    """Run a script as Python itself would, and return its exit code."""
    try:
        if module:
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(script, run_name="__main__")
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    return 0


def _own(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that begins in the script; all of it where there is none."""
    ours = (__file__, runpy.__file__, "<frozen runpy>")
    at = trace
    while at is not None and at.tb_frame.f_code.co_filename in ours:
        at = at.tb_next
    return at or trace
