import os
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import atexit, os, sys, threading, time
from skyward.remote import fork_guard
atexit.register(print, "of the parent")
fork_guard.forget_exit_functions()
parent = os.getpid()
fork_guard.end_if_forked(parent, SystemExit(3))
if os.fork():
    _, status = os.wait()
    print("status", os.waitstatus_to_exitcode(status), flush=True)
    os._exit(0)
atexit.register(print, "of the child")
threading.Thread(target=lambda: (time.sleep(0.05), print("of its thread"))).start()
sys.stdout.write("said ")
fork_guard.end_if_forked(parent, {error})
"""

ENDS = {
    "None": (0, ""),
    "SystemExit()": (0, ""),
    "SystemExit(7)": (7, ""),
    "SystemExit(258)": (2, ""),
    "SystemExit('no')": (1, "no"),
    "ValueError('no')": (1, "ValueError: no"),
    "KeyboardInterrupt()": (1, "KeyboardInterrupt"),
}


@pytest.mark.parametrize("error", ENDS)
def test_a_forked_process_ends_as_a_program_does(error: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM).format(error=error)],
        capture_output=True,
        text=True,
        timeout=150,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    code, said = ENDS[error]

    assert ran.stdout == f"said of its thread\nof the child\nstatus {code}\n"
    assert ran.stderr.strip() == said
