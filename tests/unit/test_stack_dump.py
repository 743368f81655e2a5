import os
import subprocess
import sys

from skyward.remote.node import stack_dump
from tests import kit

WRITTEN = """Thread 0x00007f01 (most recent call first):
  File "/home/me/job.py", line 3 in train
  File "/home/me/job.py", line 9 in fit
  File "/venv/skyward/remote/serialization/call_codec.py", line 102 in execute
  File "/venv/skyward/remote/node/zygote.py", line 350 in execute

Current thread 0x00007f02 [python] (most recent call first):
  File "/usr/lib/python3.12/threading.py", line 7 in wait
  <truncated rest of calls>
"""

STUCK = """
import ctypes, os, sys, threading
from skyward.remote.node import stack_dump
stack_dump.write_to(int(sys.argv[1]))
def stuck():
    print(threading.get_ident(), flush=True)
    ctypes.PyDLL(None).sleep(600)  # with the interpreter's lock held
stuck()
"""


def test_the_stacks_of_threads_end_where_ours_begin() -> None:
    assert stack_dump.threads(WRITTEN) == {
        0x7F01: '  File "/home/me/job.py", line 3 in train\n  File "/home/me/job.py", line 9 in fit',
        0x7F02: '  File "/usr/lib/python3.12/threading.py", line 7 in wait',
    }
    assert stack_dump.threads("") == {}


def test_a_process_that_is_stuck_in_c_says_where_it_is() -> None:
    page = os.memfd_create("stacks")
    command = [sys.executable, "-c", STUCK, str(page)]
    with subprocess.Popen(command, pass_fds=[page], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        ident = int(running.stdout.readline())
        running.send_signal(stack_dump.SIGNAL)
        kit.until(lambda: b"in <module>" in os.pread(page, 10000, 0))
        running.kill()
    stack = stack_dump.threads(os.pread(page, 10000, 0).decode())[ident]
    os.close(page)
    assert "in stuck" in stack
