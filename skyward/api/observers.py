"""What watches a run: its event log, the console, the output of tasks, and the live page. Only this file knows both the
arguments of a pool and its views."""

import logging
import os
import platform
import sys
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from skyward.config.spec import Options, PoolSpec
from skyward.errors import InvalidArgument
from skyward.events import RunStarted
from skyward.telemetry.event_log import EventLog, now
from skyward.telemetry.report import Report
from skyward.view.console import show
from skyward.view.output_echo import OutputEcho, tame

if TYPE_CHECKING:
    from skyward.view.dashboard import Dashboard

log = logging.getLogger("skyward")


class Observers:
    """The event log of a run that begins, and the views that draw its events.

    Parameters
    ----------
    blueprint
        The arguments of the pool.
    run
        The name of the run.
    """

    def __init__(self, blueprint: PoolSpec, run: str) -> None:
        options, nodes, worker = blueprint.options, blueprint.nodes, blueprint.worker
        self.record = record = EventLog(run, _records(options))
        self._dashboard: Dashboard | None = None
        if options.dashboard:
            from skyward.view import dashboard  # not above: it needs the extra

            self._dashboard = dashboard.Dashboard(record)
        tame(log)
        where = "compute.events()" if record.path is None else str(record.path)
        record.listen(OutputEcho(where, raw=options.console_raw))  # first: what tasks print is above the last line
        show(record, options.console)
        record.put(
            RunStarted(
                now(),
                run,
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
        if self._dashboard is not None:
            self._dashboard.open()

    def save(self, report: Report, path: str | PathLike[str]) -> None:
        """Write the page of the run so far to a file."""
        from skyward.view import page  # not above: most runs write none

        page.save(path, self.record.events(), report)

    def close(self) -> None:
        """Write and show the last events, and close the live page."""
        self.record.close()
        if self._dashboard is not None:
            self._dashboard.close()


def _records(options: Options) -> Path | None:
    try:
        return options.records()
    except InvalidArgument as error:  # no home folder: a container's user, who may not even know that there is a record
        log.warning("this run's record is kept in memory only, and lost when the program ends: %s", error)
        return None
