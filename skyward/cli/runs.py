"""`skyward runs`, `skyward logs` and `skyward report`: what is known of runs, also of those whose program is gone."""

import datetime as dt
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from skyward.cli.table import columns, counted, span
from skyward.errors import InvalidArgument
from skyward.events import Event, Logged, Printed, Reported, RunEnded, RunStarted, from_json
from skyward.record import find, read, records
from skyward.report import Report, dollars
from skyward.view import page
from skyward.view.escape import colored, escape, final
from skyward.view.prints import label

LOOK = 0.2
"""Seconds between two looks at a record that grows."""

type Run = Annotated[str | None, Parameter(help="A run, by a beginning of its name, or a file; else the last one.")]
type AsJson = Annotated[bool, Parameter(help="Print a list for programs.", negative="")]


def runs(*, json: AsJson = False) -> int:
    """List the runs that are recorded here, the newest first."""
    known: list[dict[str, Any]] = []
    rows: list[tuple[str, ...]] = []
    for path in records():
        try:
            with _reading(path):
                told = known_of(path, read(path))
                rows.append(_row(told))
        except FileNotFoundError:  # another program has removed it just now
            continue
        except (InvalidArgument, OSError):
            told = known_of(path, ())
            rows.append(_row(told))
        known.append(told)
    if json:
        print(dumps(known, indent=2))
    else:
        print("\n".join(columns(rows)) if rows else "no run is recorded here")
    return 0


def logs(
    run: Run = None,
    /,
    *,
    node: Annotated[int | None, Parameter(help="Only of this node.")] = None,
    slot: Annotated[int | None, Parameter(help="Only of this slot of each node.")] = None,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], help="Go on until the run ends.", negative="")] = False,
    raw: Annotated[bool, Parameter(help="Write control sequences as they came.", negative="")] = False,
) -> int:
    """Print what the tasks of a run printed and logged, whole."""
    path = chosen(run)
    with _reading(path):
        for event in _followed(path) if follow else read(path):
            if isinstance(event, Printed | Logged) and node in (None, event.node) and slot in (None, event.slot):
                head = label(event.node, event.slot)
                lines = _text(event).split("\n")
                print("\n".join(head + (line if raw else colored(final(line))) for line in lines), flush=follow)
    return 0


def report(
    run: Run = None,
    /,
    *,
    save: Annotated[Path | None, Parameter(help="Write its page to this file.")] = None,
    json: AsJson = False,
) -> int:
    """Print what a run did with its slots' time, or save the page that shows it."""
    path = chosen(run)
    with _reading(path):
        if save is not None:
            return _saved(save, page.page(read(path)))
        return _reported(path, known_of(path, read(path)), json=json)


def _saved(save: Path, drawn: str) -> int:
    try:
        save.write_text(drawn, encoding="utf-8")
    except OSError as error:
        fix = "give a file that can be written, in a folder that there is"
        raise InvalidArgument.of("save", str(save), error.strerror or str(error), fix) from None
    print(save)
    return 0


def _reported(path: Path, told: dict[str, Any], *, json: bool) -> int:
    if json:
        print(dumps(told, indent=2))
        return 0
    found = told["report"]
    if not found:
        text = f"skyward: {path.stem} has no report: it {_end(told)}; --save draws how far it came"
        print(escape(text), file=sys.stderr)
        return 1
    known = Report.from_dict(found)
    print(escape(f"{known}\n\n{known.explain()}"))
    if told["ended"] is None:
        print(f"\nThat was so at {_clock(told['reported'], '%H:%M:%S')}: the run {_end(told)}.")
    elif told["error"]:
        print(escape(f"\nIt was ended by {told['error']}"))
    return 0


def chosen(run: str | None) -> Path:
    """Return the record of a run, of the last one if none is named."""
    if run is not None:
        return find(run)
    if not (there := records()):
        raise InvalidArgument("no run is recorded here: records are made unless Options(record=False) says otherwise")
    return there[0]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say of a file that it is no record, whatever is wrong in it: others may have written it, or a newer Skyward."""
    try:
        yield
    except InvalidArgument:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InvalidArgument(f"{path}: it is not a record that can be read: {type(error).__name__}: {error}") from None


def known_of(path: Path, events: Iterable[Event]) -> dict[str, Any]:
    """Return what a record says of its run as a whole, as what JSON knows; times are seconds since 1970."""
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
    told["reported"], told["report"] = at, found
    return told


def _row(told: dict[str, Any]) -> tuple[str, ...]:
    began = told["began"]
    if began is None:
        return told["run"], "", "", "", "it cannot be read"
    found = Report.from_dict(told["report"]) if told["report"] else None
    did = "" if found is None else f"{counted(found.tasks, 'task')}, {found.efficiency:.0%}"
    cost = f", {dollars(found.cost)}" if found is not None and found.cost else ""
    when = _clock(began, "%Y-%m-%d %H:%M")
    end = f"{_end(told)}{', ' if did else ''}{did}{cost}"
    return told["run"], when, f"{told['program']}", f"{told['provider']}", end


def _text(event: Printed | Logged) -> str:
    if isinstance(event, Printed):
        return event.text.removesuffix("\n")
    trace = f"\n{event.trace}" if event.trace else ""
    return f"{logging.getLevelName(event.level)} {event.logger}: {event.text}{trace}"


def _clock(at: float, form: str) -> str:
    """Say in local time when something was."""
    return dt.datetime.fromtimestamp(at, dt.UTC).astimezone().strftime(form)


def _end(told: dict[str, Any]) -> str:
    if told["ended"] is not None:
        error = told["error"].partition("\n")[0]
        return f"failed: {error}" if error else f"took {span(told['ended'] - told['began'])}"
    return "has not ended, or its program was killed"


def _followed(path: Path) -> Iterator[Event]:
    """Yield the events of a record as it grows, until its run has ended."""
    rest = ""
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            rest += file.readline()
            if not rest.endswith("\n"):
                time.sleep(LOOK)
                continue
            event, rest = from_json(rest), ""
            if event is not None:
                yield event
            if isinstance(event, RunEnded):
                return
