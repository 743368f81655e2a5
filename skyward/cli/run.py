"""`skyward run`: a script on a pool, unchanged: every `joblib.Parallel` call in it runs there."""

import runpy
import sys
import tomllib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from skyward.cli.settings import merged, nodes
from skyward.compute import Compute
from skyward.errors import InvalidArgument
from skyward.image import Image
from skyward.plugins.joblib import joblib
from skyward.providers.local import Local
from skyward.providers.provider import Provider
from skyward.spec import Options, Worker


def run(
    script: Annotated[str, Parameter(help="The script, or with -m the module.")],
    /,
    *args: Annotated[str, Parameter(help="What the script is given.", allow_leading_hyphen=True)],
    module: Annotated[bool, Parameter(name=["--module", "-m"], help="Run a module.", negative="")] = False,
    provider: Annotated[Literal["local", "ssh", "aws"] | None, Parameter(help="Where machines come from.")] = None,
    nodes: Annotated[str | None, Parameter(help="How many, or 2-10 for as many as needed.")] = None,
    concurrency: Annotated[int | None, Parameter(help="Slots of each node; else one per CPU.")] = None,
    packages: Annotated[str | None, Parameter(help="What nodes need: numpy,scipy")] = None,
    budget: Annotated[float | None, Parameter(help="Dollars that machines may cost.")] = None,
    hosts: Annotated[str | None, Parameter(help="With ssh: node-7,alice@gpu-box:2222")] = None,
    region: Annotated[str | None, Parameter(help="With aws: where.")] = None,
    instance_type: Annotated[str | None, Parameter(help="With aws: t4g.micro, say.")] = None,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], help="No report at the end.", negative="")] = False,
) -> int:
    """Run a script with its joblib calls on a pool.

    Options stand before the script; the rest is in [tool.skyward] of the nearest pyproject.toml.
    """
    given = {
        "provider": provider,
        "nodes": nodes,
        "concurrency": concurrency,
        "packages": _listed(packages),
        "budget": budget,
        "hosts": _listed(hosts),
        "region": region,
        "instance_type": instance_type,
    }
    start = Path.cwd() if module else Path(script).absolute().parent
    if not module and not Path(script).is_file():
        raise InvalidArgument(f"{script}: there is no such script")
    file, table = _table(start)
    sys.argv = [script, *args]
    sys.path.insert(0, str(start))  # nodes of this machine look where this process does
    with opened(merged(given, table, file)) as compute:
        code = executed(script, module=module)
    if not quiet:
        print(f"\n{compute.report()}", file=sys.stderr)
    return code


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _table(start: Path) -> tuple[str, dict[str, Any]]:
    """Return the name and `[tool.skyward]` of the pyproject.toml that is nearest, upwards from a folder."""
    for folder in (start, *start.parents):
        file = folder / "pyproject.toml"
        if not file.is_file():
            continue
        try:
            table: Any = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"{file}: it cannot be read: {error}") from None
        for name, key in (("tool", "tool"), ("tool.skyward", "skyward")):
            table = table.get(key, {})
            if not isinstance(table, dict):
                fix = "write [tool.skyward] and settings below it"
                raise InvalidArgument(f"{file}: {InvalidArgument.of(name, table, 'must be a table', fix)}")
        return str(file), table
    return "", {}


@contextmanager
def opened(settings: dict[str, Any]) -> Iterator[Compute]:
    """Open a pool of these settings, on which joblib's calls run."""
    wanted = settings.get("nodes", 1)
    limits = {name: settings[name] for name in ("budget", "max_hourly") if name in settings}
    worker = {name: settings[name] for name in ("concurrency", "executor") if name in settings}
    with Compute(
        provider=_provider(settings["provider"], settings["own"]),
        nodes=nodes(wanted) if isinstance(wanted, str) else tuple(wanted) if isinstance(wanted, list) else wanted,
        worker=Worker(**worker),
        image=Image(packages=settings.get("packages", [])),
        plugins=[joblib()],
        options=Options(**limits),
    ) as compute:
        yield compute


def _provider(name: str, own: dict[str, Any]) -> Provider:
    match name:
        case "ssh":
            from skyward.providers.ssh import SSH

            return SSH(**own)
        case "aws":
            from skyward.providers.aws import AWS

            return AWS(**own)
        case _:
            return Local(**own)


def executed(script: str, *, module: bool) -> int:
    """Run a script as Python itself would, and return its exit code; what it raises is shown as Python shows it."""
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
    except Exception as error:  # noqa: BLE001 - it is the user's script
        traceback.print_exception(error.with_traceback(_own(error.__traceback__)))
        return 1
    return 0


def _own(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that begins in the script; all of it where there is none."""
    ours = (__file__, runpy.__file__, "<frozen runpy>")
    at = trace
    while at is not None and at.tb_frame.f_code.co_filename in ours:
        at = at.tb_next
    return at or trace
