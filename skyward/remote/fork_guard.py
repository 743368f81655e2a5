"""A process that a task forks and that comes back from the task ends here: only its parent answers for the call."""

import atexit
import contextlib
import os
import sys
import threading
import traceback
from typing import NoReturn


class _Here:
    """The number of this process: to ask the system takes a microsecond where it looks at every call that is made."""

    def __init__(self) -> None:
        self.look()
        os.register_at_fork(after_in_child=self.look)

    def look(self) -> None:
        self.process = os.getpid()


_process = _Here()


def process() -> int:
    """Return the number of this process, as `os.getpid` does."""
    return _process.process


def forget_exit_functions() -> None:
    """Have processes that are forked from here run only those exit functions that they register themselves."""
    os.register_at_fork(after_in_child=atexit._clear)


def end_if_forked(parent: int, error: BaseException | None) -> None:
    """End this process if it is not `parent`, as a Python program does that returns or raises `error`."""
    if _process.process != parent:
        _end(_exit_code(error))


def _exit_code(error: BaseException | None) -> int:
    match error:
        case None | SystemExit(code=None):
            return 0
        case SystemExit(code=int(code)):
            return code & 0xFF
        case SystemExit(code=text):
            print(text, file=sys.stderr)
            return 1
        case _:
            with contextlib.suppress(BaseException):  # user code: a `__str__`
                traceback.print_exception(error)
            return 1


def _end(code: int) -> NoReturn:
    """Wait for threads, run exit functions, write out what was printed, and end."""
    for step in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):  # type: ignore[attr-defined]
        with contextlib.suppress(BaseException):  # user code
            step()
    os._exit(code)
