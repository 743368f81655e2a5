"""`skyward runs`, `skyward logs` and `skyward report`: what is known of runs, also of those whose program is gone."""

import sys
from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from skyward.cli.options import AsJson, whole

type RunName = Annotated[str | None, Parameter(help="Run name (a prefix is enough) or file; default: the latest run.")]

DEFAULT_LIMIT = 20
"""Runs that are listed unless `--limit` says otherwise."""


def runs(
    *,
    limit: Annotated[
        int | None, Parameter(name=["--limit", "-n"], converter=whole, help="How many to list (default: 20).")
    ] = None,
    json: AsJson = False,
) -> int:
    """List the runs recorded here, the newest first."""
    from skyward.cli import run_records
    from skyward.errors import InvalidArgument
    from skyward.telemetry.event_log import records

    if limit is not None and limit < 1:
        raise InvalidArgument(f"--limit {limit}: must be at least 1")
    paths = records()
    shown = paths[: limit or (None if json else DEFAULT_LIMIT)]
    known = [found for path in shown if (found := run_records.summary(path)) is not None]
    if json:
        print(dumps(known, indent=2))
    elif not known:
        print(run_records.NONE)
    else:
        print("\n".join(run_records.table(known)))
        if left := len(paths) - len(shown):
            print(f"{left} older; list more with --limit {len(paths)}")
    return 0


def logs(
    run: RunName = None,
    /,
    *,
    node: Annotated[int | None, Parameter(converter=whole, help="Only from this node.")] = None,
    slot: Annotated[int | None, Parameter(converter=whole, help="Only from this slot of each node.")] = None,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], help="Go on until the run ends.", negative="")] = False,
    raw: Annotated[bool, Parameter(help="Write control sequences as they came.", negative="")] = False,
) -> int:
    """Print everything the tasks of a run printed and logged."""
    from skyward.cli import run_records
    from skyward.events import Logged, Printed
    from skyward.telemetry.event_log import read
    from skyward.view.escape import colored, final
    from skyward.view.output_filter import prefix

    path = run_records.chosen(run)
    silent = True
    with run_records.reading(path):
        for event in run_records.followed(path) if follow else read(path):
            if isinstance(event, Printed | Logged) and node in (None, event.node) and slot in (None, event.slot):
                silent = False
                head = prefix(event.node, event.slot)
                lines = run_records.text(event).split("\n")
                print("\n".join(head + (line if raw else colored(final(line))) for line in lines), flush=follow)
    if silent:
        print(f"skyward: {run_records.NO_OUTPUT}", file=sys.stderr)
    return 0


def report(
    run: RunName = None,
    /,
    *,
    save: Annotated[Path | None, Parameter(help="Save the page of the run to this file.")] = None,
    json: AsJson = False,
) -> int:
    """Print the figures of a run, or save its page."""
    from skyward.cli import run_records
    from skyward.telemetry.event_log import read

    path = run_records.chosen(run)
    with run_records.reading(path):
        if save is not None:
            from skyward.view import page

            return run_records.saved(save, page.page(read(path)))
        told = run_records.known_of(path, read(path))
    if json:
        print(dumps(told, indent=2))
        return 0
    return run_records.reported(path, told)
