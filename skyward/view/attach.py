"""The listeners to a run from its beginning: its record, the console, the output of tasks, and the live page."""

import logging
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from skyward.config.spec import Options, PoolSpec
from skyward.errors import InvalidArgument
from skyward.events import RunStarted
from skyward.telemetry.event_log import EventLog, now
from skyward.view.console import show
from skyward.view.output_echo import OutputEcho, tame

if TYPE_CHECKING:
    from skyward.view.dashboard import Dashboard

log = logging.getLogger("skyward")


def begin(blueprint: PoolSpec, pool: str) -> "tuple[EventLog, Dashboard | None]":
    """Return the record of a run that begins, and its live page if it has one."""
    options, nodes, worker = blueprint.options, blueprint.nodes, blueprint.worker
    record = EventLog(pool, _records(options))
    dashboard = None
    if options.dashboard:
        from skyward.view.dashboard import Dashboard  # not above: it needs the extra

        dashboard = Dashboard(record)
    tame(log)
    where = "compute.events()" if record.path is None else str(record.path)
    record.listen(OutputEcho(where, raw=options.console_raw))  # first: what tasks print is above the last line
    show(record, options.console)
    record.put(
        RunStarted(
            now(),
            pool,
            blueprint.provider.name,
            nodes.count,
            nodes.max or nodes.count,
            worker.concurrency,
            worker.executor,
            os.path.basename(sys.argv[0]) if sys.argv else "",
            version("skyward"),
            platform.python_version(),
        )
    )
    if dashboard is not None:
        dashboard.open()
    return record, dashboard


def _records(options: Options) -> Path | None:
    try:
        return options.records()
    except InvalidArgument as error:  # no home folder: a container's user, who may not even know that there is a record
        log.warning("this run's record is kept in memory only, and lost when the program ends: %s", error)
        return None
