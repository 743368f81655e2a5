"""The record of a run as a row of `skyward runs`, the lines of `skyward logs`, the text of `skyward report`."""

import datetime as dt
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from skyward.cli.table import columns
from skyward.errors import InvalidArgument
from skyward.events import Event, Logged, Printed, Reported, RunEnded, RunStarted, from_json
from skyward.formatting import dollars, span
from skyward.telemetry.event_log import find_record, is_written, read, records
from skyward.telemetry.report import Report
from skyward.view.escape import escape

RECORD_POLL_INTERVAL_S = 0.2
"""Seconds between two looks at a record that grows."""

NONE = "no runs recorded yet (recording is on unless Options(record=False))"

NO_OUTPUT = "no task of this run, or of the given node or slot, has printed or logged anything"

HEADER = ("RUN", "STARTED", "PROGRAM", "PROVIDER", "DURATION", "TASKS", "EFFICIENCY", "COST", "STATUS")


def chosen(run: str | None) -> Path:
    """Return the record of a run, of the last one if none is named."""
    if run is not None:
        return find_record(run)
    if not (there := records()):
        raise InvalidArgument(NONE)
    return there[0]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of a file that it is no record, whatever is wrong in it: others may have written it, or a newer Skyward."""
    try:
        yield
    except InvalidArgument:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidArgument(
            f"{path}: not a readable record, or one of another version of Skyward: {reason}"
        ) from None


def summary(path: Path) -> dict[str, Any] | None:
    """Return what a record says of its run; None if another program has removed it meanwhile."""
    try:
        with reading(path):
            told = known_of(path, read(path))
            _row(told)  # a report that cannot be shown is as bad as none
            return told
    except FileNotFoundError:
        return None
    except (InvalidArgument, OSError):
        return known_of(path, ()) | {"status": "unreadable"}


def known_of(path: Path, events: Iterable[Event]) -> dict[str, Any]:
    """Return what a record says of its run as a whole, as what JSON knows; times are seconds since 1970."""
    is_running = is_written(path)  # before the events are read: a run that ends meanwhile was not killed
    first: RunStarted | None = None
    last: Event | None = None
    at, found = None, dict[str, Any]()
    for event in events:
        last = event
        if isinstance(event, RunStarted):
            first = event
        elif isinstance(event, Reported | RunEnded) and event.report:
            at, found = event.at, event.report
    told: dict[str, Any] = {"run": path.stem, "file": str(path)}
    told |= {} if first is None else {name: value for name, value in asdict(first).items() if name not in ("at", "run")}
    told["began"] = None if first is None else first.at
    told["ended"] = last.at if isinstance(last, RunEnded) else None
    told["heard"] = None if last is None else last.at
    told["error"] = last.error if isinstance(last, RunEnded) else ""
    told["status"] = _status(last, is_running)
    told["reported"], told["report"] = at, found
    return told


def _status(last: Event | None, is_running: bool | None) -> str:
    if isinstance(last, RunEnded):
        return "failed" if last.error else "finished"
    return {True: "running", False: "killed", None: "unknown"}[is_running]


def table(known: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of `skyward runs`: a header, and a row for each run."""
    return columns([HEADER, *map(_row, known)])


def _row(told: dict[str, Any]) -> tuple[str, ...]:
    began = told["began"]
    if began is None:
        return told["run"], *[""] * (len(HEADER) - 2), "unreadable" if told["status"] != "running" else "starting"
    found = Report.from_dict(told["report"]) if told["report"] else None
    until = time.time() if told["status"] == "running" else told["heard"]
    error = told["error"].partition("\n")[0]
    return (
        told["run"],
        _clock(began, "%Y-%m-%d %H:%M"),
        str(told["program"]),
        str(told["provider"]),
        span(until - began),
        "" if found is None else f"{found.tasks:,}",
        "" if found is None else f"{found.efficiency:.0%}",
        dollars(found.cost) if found is not None and found.cost else "",
        f"{told['status']}: {error}" if error else told["status"],
    )


def saved(save: Path, drawn: str) -> int:
    """Write a page to a file."""
    try:
        save.write_text(drawn, encoding="utf-8")
    except OSError as error:
        fix = "name a writable file in an existing folder"
        raise InvalidArgument(f"--save {save}: {error.strerror or error}; {fix}") from None
    print(save)
    return 0


def reported(path: Path, told: dict[str, Any]) -> int:
    """Print the report of a run."""
    with reading(path):
        if not told["report"]:
            print(escape(f"skyward: {path.stem} has no report: {_end(told)}; see --save"), file=sys.stderr)
            return 1
        known = Report.from_dict(told["report"])
        print(escape(f"{known}\n\n{known.explain()}"))
    if told["ended"] is None:
        print(f"\nAs of {_clock(told['reported'], '%H:%M:%S')}: {_end(told)}.")
    elif told["error"]:
        print(escape(f"\nThe run failed: {told['error']}"))
    return 0


def _end(told: dict[str, Any]) -> str:
    match told["status"]:
        case "running":
            return "the run is still running"
        case "killed":
            return "its program was killed"
        case "unknown":
            return "the run has not finished, or its program was killed"
        case "failed":
            return f"the run failed: {told['error'].partition('\n')[0]}"
        case _:
            return "the run has finished"


def text(event: Printed | Logged) -> str:
    """Return what a task printed or logged, without the last line break."""
    if isinstance(event, Printed):
        return event.text.removesuffix("\n")
    trace = f"\n{event.trace}" if event.trace else ""
    return f"{logging.getLevelName(event.level)} {event.logger}: {event.text}{trace}"


def _clock(at: float, form: str) -> str:
    """Return a time in local time."""
    return dt.datetime.fromtimestamp(at, dt.UTC).astimezone().strftime(form)


def followed(path: Path) -> Iterator[Event]:
    """Yield the events of a record as it grows, until its run has ended."""
    rest = ""
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            rest += file.readline()
            if not rest.endswith("\n"):
                time.sleep(RECORD_POLL_INTERVAL_S)
                continue
            event, rest = from_json(rest), ""
            if event is not None:
                yield event
            if isinstance(event, RunEnded):
                return
