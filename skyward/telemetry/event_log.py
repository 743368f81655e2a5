"""The record of a run: every event as a line in a file that only this user can read, and the listeners to them.

The pool's event loop only queues events; a thread writes them and calls the listeners, so that neither a slow disk nor
a slow terminal slows down a run.
"""

import contextlib
import fcntl
import logging
import os
import re
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from skyward.errors import InvalidArgument
from skyward.events import Event, Logged, Printed, from_json, to_json
from skyward.telemetry.state_dir import state_dir

log = logging.getLogger("skyward")

MAX_LOGS = 100
"""Number of records that are kept, the newest ones."""

WRITE_INTERVAL_S = 0.1
"""Seconds between two writes of new events."""

MAX_OUTPUT_BYTES = 100 << 20
"""Maximum bytes of output of tasks in a record."""

SUFFIX = ".jsonl"

RECORD_NAME = re.compile(rf"\d{{8}}-[0-9a-f]{{8}}\{SUFFIX}", re.ASCII)
"""Names of records, after their runs; other files in the folder are left alone."""

_OFFSET = time.time() - time.perf_counter()


def now() -> float:
    """Return the seconds since 1970, of a clock that never goes backwards."""
    return _OFFSET + time.perf_counter()


def usual() -> Path:
    """Return the default folder of records: `~/.local/state/skyward/runs`, or below `XDG_STATE_HOME`.

    Raises
    ------
    InvalidArgument
        This user has no home folder, as in a container that runs under a user id without a name.
    """
    return state_dir("the records of runs") / "runs"


class EventLog:
    """The events of one run. Every method may be called from any thread.

    Parameters
    ----------
    run
        The name of the run, and of its file.
    folder
        Folder for the file; only the newest `MAX_LOGS` records stay in it. None keeps the record in memory until this
        process exits.
    """

    def __init__(self, run: str, folder: Path | None) -> None:
        self.run = run
        self.path = None if folder is None else folder / f"{run}{SUFFIX}"
        self._news: deque[Event] = deque()
        self._listeners: tuple[Callable[[Sequence[Event]], None], ...] = ()
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._ended = self._lacks = self._torn = False
        self._spoken = 0
        self._fd = self._open(folder)
        weakref.finalize(self, os.close, self._fd)
        self._thread = threading.Thread(target=self._run, name=f"skyward-record-{run}", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue an event."""
        self._news.append(event)

    def listen(self, listener: Callable[[Sequence[Event]], None]) -> None:
        """Call `listener` with later events, several at a time, in the record's thread."""
        with self._lock:
            self._write()
            self._listeners += (listener,)

    def close(self) -> None:
        """Write all queued events, pass them to the listeners, and stop."""
        self._ending.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def events(self, *, follow: bool = False) -> Iterator[Event]:
        """Yield the events so far, the oldest first; with `follow`, also later ones, until the run ends."""
        at, rest = 0, b""
        while True:
            ended = self._ended
            with self._lock:
                self._write()
            while piece := os.pread(self._fd, 1 << 16, at):
                at += len(piece)
                *lines, rest = (rest + piece).split(b"\n")
                yield from (event for line in lines if (event := from_json(line.decode(errors="replace"))) is not None)
            if ended or not follow:
                return
            self._ending.wait(WRITE_INTERVAL_S)

    # ------------------------------------------------------------ its thread

    def _run(self) -> None:
        ending = False
        while not ending:
            ending = self._ending.wait(WRITE_INTERVAL_S)
            with self._lock:
                self._write()
        self._ended = True

    def _write(self) -> None:
        news: list[Event] = []
        with contextlib.suppress(IndexError):
            while True:
                news.append(self._news.popleft())
        if not news:
            return
        try:
            _write_all(self._fd, b"".join((b"\n" if self._torn else b"", *self._kept(news))))
            self._torn = False
        except OSError as error:
            if not self._lacks:
                log.warning("the record of this run is incomplete: %s", error)
            self._lacks = self._torn = True
        for listener in self._listeners:
            try:
                listener(news)
            except Exception:
                log.exception("a listener of this run failed, and gets no more events")
                self._listeners = tuple(each for each in self._listeners if each is not listener)

    def _kept(self, news: Sequence[Event]) -> Iterator[bytes]:
        """Yield the lines to write: all events, but output of tasks only up to a limit."""
        for event in news:
            if not isinstance(event, Printed | Logged):
                yield f"{to_json(event)}\n".encode()
            elif self._spoken < MAX_OUTPUT_BYTES:
                line = f"{to_json(event)}\n".encode()
                self._spoken += len(line)
                if self._spoken >= MAX_OUTPUT_BYTES:
                    log.warning("tasks have printed %d MB; further output is not recorded", MAX_OUTPUT_BYTES >> 20)
                yield line

    def _open(self, folder: Path | None) -> int:
        try:
            if self.path is not None and folder is not None:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                for old in records(folder)[MAX_LOGS - 1 :]:
                    with contextlib.suppress(OSError):
                        old.unlink()
                fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                with contextlib.suppress(OSError):  # the file system may have no locks
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # see `is_written`
                return fd
        except OSError as error:
            log.warning("this run's record is kept in memory only, and lost when the program ends: %s", error)
            self.path = None
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def read(path: Path) -> Iterator[Event]:
    """Yield the events of a record, the oldest first."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if (event := from_json(line)) is not None:
                yield event


def is_written(path: Path) -> bool | None:
    """Whether the program that writes a record still runs; None if the file system cannot tell."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def find_record(name: str, folder: Path | None = None) -> Path:
    """Return the record of a run.

    Parameters
    ----------
    name
        Name of the run, a prefix that no other run has, or the path of its record.
    folder
        Folder of the records, if not the default one.

    Raises
    ------
    InvalidArgument
        No run matches, or several do; the text names them.
    """
    with contextlib.suppress(RuntimeError):  # ~nobody
        if (path := Path(name).expanduser()).is_file():
            return path
    where = usual() if folder is None else folder
    there, wanted = records(where), name.removesuffix(SUFFIX)
    match sorted(path for path in there if path.stem.startswith(wanted)):
        case [one]:
            return one
        case []:
            last = f"the latest is {there[0].stem}" if there else "there are no records"
            raise InvalidArgument.of("run", name, f"no record in {where} begins with this", last)
        case found:
            some = ", ".join(path.stem for path in found[:3]) + (", ..." if len(found) > 3 else "")
            raise InvalidArgument.of("run", name, f"{len(found)} runs begin with this: {some}", "give more of the name")


def records(folder: Path | None = None) -> list[Path]:
    """Return the paths of all records, the newest first."""
    where = usual() if folder is None else folder
    return sorted(
        (path for path in where.glob(f"*{SUFFIX}") if RECORD_NAME.fullmatch(path.name)), key=_age, reverse=True
    )


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another program has removed it just now
        return 0.0
