"""`python -m skyward.remote.node FOLDER`: one node. This is its parent process, which watches its lease.

FOLDER is private to the node and holds `node.json`, a `NodeConfig`, and the files of its identity. Before casty is
imported, this process forks two others into a process group of their own: the zygote, whose children are the workers,
and the actor process, which imports casty. To end the node, for whatever reason, it kills that group, removes FOLDER
and exits.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from skyward.remote import failure_line
from skyward.remote.node import lease, process_tree, zygote
from skyward.remote.node.worker import Setting
from skyward.remote.node_config import ALIVE_FILE, CONFIG_FILE, WORK_FOLDER, NodeConfig
from skyward.remote.node_messages import NodeEnding, encode

SILENCE_FILE = "silent"
"""The file in the folder with the seconds since the last renewal, when this process took over from the shell."""

FOLDER_POLL_INTERVAL_S, IDLE_POLL_INTERVAL_S = 0.5, 2.0
"""Seconds between two checks of the folder: for `ALIVE_FILE`, and later only whether the folder is still there."""

PIDS_FILE = "pids"
"""The file in the folder with the pid of this process, and that of the zygote, which leads the group of the others."""

LOCK_FILE = "lock"
"""The file in the folder that is locked while the folder is in use; see `skyward.providers.scratch`."""

IMPORTING_SIZE = 256
"""Bytes of the shared memory in which the zygote leaves the name of the module it imports."""

EXIT_TIMEOUT_S = 7.0
"""Seconds that the node's other processes have to end by themselves: longer than the actor process gives workers, and
shorter than providers give this process."""

CRASH_WAIT_S = 5.0
"""Seconds to wait for the exit status of a process that seems to have crashed."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
"""Variables that limit the threads of numerical libraries, as joblib sets them for its own workers; the last one is how
many processors joblib itself counts with in a task."""


def cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(folder: Path) -> None:
    """Run the node until its lease expires, or something else ends it."""
    lock = _take_lock(folder)
    config = NodeConfig.decode((folder / CONFIG_FILE).read_bytes())
    if (work := folder / WORK_FOLDER).is_dir():
        os.chdir(work)
        sys.path[0] = str(work)  # where `-m` looks first, as if the node had been started there
    slots = config.concurrency or cpus()
    os.environ.update(config.env)
    share = str(max(1, cpus() // slots))
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, share)
    with contextlib.suppress(ValueError, OSError):  # a socket for each slot and a few for each client
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    process_tree.adopt_orphans()  # so that what tasks leave running can be ended

    ours, theirs = socket.socketpair()
    heard, hear = os.pipe()
    importing = mmap.mmap(-1, IMPORTING_SIZE)
    starvations = process_tree.starvations()
    group = os.fork()
    if group == 0:
        os.setpgid(0, 0)
        _forget(heard, hear, ours, *lock, stdin=True)
        zygote.serve(theirs, _setting(config, slots, folder), importing)
    os.setpgid(group, group)
    try:
        actors = os.fork()
    except OSError as error:
        failure_line.report_exception("cannot fork the node's actor process", error)
        _end(group, 0, folder)
    if actors == 0:
        os.setpgid(0, group)
        _die_with_parent()
        _forget(heard, theirs, *lock, stdin=True)
        from skyward.remote.node import actor_process

        actor_process.serve(config, slots, folder, ours, hear)
    os.setpgid(actors, group)
    ours.close()
    theirs.close()
    os.close(hear)
    (folder / PIDS_FILE).write_text(f"{os.getpid()} {group}")
    try:
        reason = _watch(config, heard, folder)
        if reason == lease.ACTORS_GONE:
            _report_crash(actors, group, importing, starvations)
        with contextlib.suppress(BrokenPipeError):
            os.write(2, encode(NodeEnding(reason)))
    finally:
        _end(group, actors, folder)


def _take_lock(folder: Path) -> tuple[int, ...]:
    """Lock the folder for as long as this process lives, if it has a lock; return the descriptors that hold it."""
    try:
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return ()
    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return (lock,)


def _report_crash(actors: int, zygote: int, importing: mmap.mmap, starvations: int) -> None:
    """Report which process of the node has crashed, and how, unless it has reported that itself."""
    code, text = _wait(actors, starvations)
    if code == failure_line.SAID:
        return
    if code != failure_line.ZYGOTE_GONE:
        failure_line.report(f"its process ended: {text}")
        return
    code, text = _wait(zygote, starvations)
    module = importing[:].rstrip(b"\0").decode(errors="replace")
    if not module:
        failure_line.report(f"the parent of the node's workers ended: {text}")
    else:
        outside = code in (None, -signal.SIGKILL, -signal.SIGTERM)  # not of its own doing: perhaps not the next time
        failure_line.report(f"the import of {module!r} (preload) ended the process: {text}", final=not outside)


def _wait(pid: int, starvations: int) -> tuple[int | None, str]:
    """Return the exit code of a child that is ending, as `os.waitstatus_to_exitcode` has it, and how it ended."""
    deadline = time.monotonic() + CRASH_WAIT_S
    while time.monotonic() < deadline:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            text = process_tree.ending(status, used.ru_maxrss, process_tree.starvations() > starvations)
            return os.waitstatus_to_exitcode(status), text
        time.sleep(0.005)
    return None, "it no longer answers"


def _setting(config: NodeConfig, slots: int, folder: Path) -> Setting:
    return Setting(
        node=config.node,
        nodes=config.nodes,
        slots=slots,
        preload=config.preload,
        hooks=config.hooks,
        folder=str(folder),
        modules=config.modules,
        levels=config.levels,
    )


def _forget(*ends: int | socket.socket, stdin: bool) -> None:
    """Close what belongs to another process, and do not read the standard input of the parent process."""
    for end in ends:
        end.close() if isinstance(end, socket.socket) else os.close(end)
    if stdin:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)


def _watch(config: NodeConfig, heard: int, folder: Path) -> str:
    """Wait until the node must end; return why."""
    stop, stopping = socket.socketpair()
    stopping.setblocking(False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(stopping.fileno(), warn_on_full_buffer=False)
    began = time.monotonic() - _silence(folder)
    state = lease.Lease(config.lease, config.first_contact, began)
    watched = [heard, stop.fileno()] + ([0] if config.stdin else [])
    event: lease.LeaseEvent = lease.Elapsed(time.monotonic())
    interval = FOLDER_POLL_INTERVAL_S
    while True:
        state, decision = lease.step(state, event)
        if isinstance(decision, lease.EndNode):
            signal.set_wakeup_fd(-1)
            return decision.reason
        ready, _, _ = select.select(watched, [], [], max(0.0, min(interval, decision.until - time.monotonic())))
        event = lease.Elapsed(time.monotonic())
        if stop.fileno() in ready:
            event = lease.StopRequested()
        elif 0 in ready and not os.read(0, 4096):
            event = lease.DriverGone()
        elif heard in ready:
            event = lease.Renewed(time.monotonic()) if os.read(heard, 65536) else lease.ActorsGone()
            interval = IDLE_POLL_INTERVAL_S
        elif not _is_there(folder):
            event = lease.FolderGone()
        elif interval == FOLDER_POLL_INTERVAL_S and _is_renewed(folder):
            event = lease.Renewed(time.monotonic())


def _silence(folder: Path) -> float:
    """Return the seconds since the last renewal, as far as is known."""
    try:
        return float((folder / SILENCE_FILE).read_text())
    except (OSError, ValueError):
        return 0.0


def _is_there(folder: Path) -> bool:
    """Whether the folder is still there. A file in it is touched, as old files may be cleared away."""
    with contextlib.suppress(OSError):
        try:
            os.utime(folder / PIDS_FILE)
        except FileNotFoundError:
            return False
    return True


def _is_renewed(folder: Path) -> bool:
    """Whether the driver has renewed the lease since the last check."""
    try:
        (folder / ALIVE_FILE).unlink()
    except OSError:
        return False
    return True


def _end(group: int, actors: int, folder: Path) -> NoReturn:
    """Give the actor process a moment to exit in order, and the zygote to print what the workers wrote; then kill
    everything, orphans included, and remove the folder."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(actors or group, signal.SIGTERM)
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    for each in (actors, group):
        while time.monotonic() < deadline and not _ended(each):
            time.sleep(0.005)
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        for orphan in process_tree.children(os.getpid()):  # those of the slots among them; elsewhere the group must do
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        time.sleep(0.005)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _ended(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    return True


def _die_with_parent() -> None:
    """Die with the parent process (Linux: PR_SET_PDEATHSIG); zygote and slots end when this process does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
