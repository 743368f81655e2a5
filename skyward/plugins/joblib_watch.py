"""Notices `joblib.Parallel` calls that run on this machine while a pool is open whose joblib plugin was forgotten.

joblib is neither imported nor changed for that: Python's own monitoring says when `Parallel.__call__` begins, which
costs nothing anywhere else.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from types import CodeType

from skyward.formatting import dollars
from skyward.plugins.joblib import JoblibPlugin
from skyward.remote.function import Remote

log = logging.getLogger("skyward")

MONITORING_TOOLS = (4, 3)
"""Numbers of monitoring tools that Python keeps for no purpose of its own."""

FIX = "write sky.Compute(plugins=[sky.plugins.joblib()], ...) to run it on the pool"

PROCESSES = frozenset({"LokyBackend", "MultiprocessingBackend"})
"""joblib's backends that a call has which asks for nothing special."""


class Watch:
    """Looks on from `begin` to `end` of a block.

    Parameters
    ----------
    used
        Says whether a call has been sent to the pool.
    """

    def __init__(self, used: Callable[[], bool]) -> None:
        self._used = used
        self._begun = self._was_imported = self._seen = self._said = False

    def begin(self, plugins: Sequence[object]) -> None:
        """Notice calls from now on, unless the plugin is there."""
        if not any(isinstance(plugin, JoblibPlugin) for plugin in plugins):
            self._begun, self._was_imported = True, "joblib" in sys.modules
            _Monitor.add(self)

    def note(self, parallel: object) -> None:
        """Hear of a call that begins, and say so if it should have gone to the pool.

        Where there are remote functions nothing is said before the end: they may yet be called.
        """
        backend = type(getattr(parallel, "_backend", None))
        if backend.__module__ != "joblib._parallel_backends":  # of a plugin, or of somebody else
            return
        self._seen = True
        several = backend.__name__ in PROCESSES and getattr(parallel, "n_jobs", 1) != 1
        if several and not (self._said or self._used() or Remote.exist):
            self._said = True
            log.warning("a Parallel call runs on this machine, not on the pool: %s", FIX)

    def end(self, *, failed: bool, cost: float) -> None:
        """Notice no more calls. Say that none reached the pool if `Parallel` was called, and what the pool has cost."""
        if not self._begun:
            return
        _Monitor.remove(self)
        called = self._seen or ("joblib" in sys.modules and not self._was_imported)
        if failed or self._used() or not called:
            return
        paid = f", whose machines cost {dollars(cost)}" if cost else ""
        if not self._said:
            log.warning("no call reached the pool%s: Parallel ran on this machine; %s", paid, FIX)
        elif cost:
            log.warning("no call reached the pool%s", paid)


class _Monitor:
    """What all watches of this process share: the number of a monitoring tool, and the code of `Parallel.__call__`."""

    lock = threading.Lock()
    watches: tuple[Watch, ...] = ()
    watched: tuple[int, CodeType] | None = None

    @classmethod
    def add(cls, watch: Watch) -> None:
        with cls.lock:
            cls.watches += (watch,)
            code = _code()
            tool = next((each for each in MONITORING_TOOLS if sys.monitoring.get_tool(each) is None), None)
            if cls.watched is None and code is not None and tool is not None:
                started = sys.monitoring.events.PY_START
                sys.monitoring.use_tool_id(tool, __name__)
                sys.monitoring.register_callback(tool, started, cls.begun)
                sys.monitoring.set_local_events(tool, code, started)
                cls.watched = tool, code

    @classmethod
    def remove(cls, watch: Watch) -> None:
        with cls.lock:
            cls.watches = tuple(each for each in cls.watches if each is not watch)
            if not cls.watches and cls.watched is not None:
                tool, code = cls.watched
                sys.monitoring.set_local_events(tool, code, sys.monitoring.events.NO_EVENTS)
                sys.monitoring.register_callback(tool, sys.monitoring.events.PY_START, None)
                sys.monitoring.free_tool_id(tool)
                cls.watched = None

    @classmethod
    def begun(cls, code: CodeType, offset: int) -> None:
        """Hear from Python that `Parallel.__call__` begins."""
        parallel = sys._getframe(1).f_locals.get("self")
        for watch in cls.watches:
            watch.note(parallel)

    @classmethod
    def forget(cls) -> None:
        """Watch nothing in a process that was forked."""
        cls.lock, cls.watches = threading.Lock(), ()


os.register_at_fork(after_in_child=_Monitor.forget)


def _code() -> CodeType | None:
    """The code of `joblib.Parallel.__call__`, if joblib has been imported."""
    kind = getattr(sys.modules.get("joblib.parallel"), "Parallel", None)
    code = getattr(getattr(kind, "__dict__", {}).get("__call__"), "__code__", None)
    return code if isinstance(code, CodeType) else None
