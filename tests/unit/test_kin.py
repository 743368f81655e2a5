import subprocess
import sys

import psutil

from skyward.remote import kin

PROGRAM = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); sys.stdin.read()"


def test_a_process_is_killed_with_all_that_it_has_started() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        assert kin.children(process.pid) == [child.pid]
        kin.kill(process.pid)
        assert process.wait(10) == -9
        assert psutil.wait_procs([child], timeout=10)[1] == []


def test_who_is_gone_has_no_kin() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait(10)
    assert kin.children(process.pid) == []
    kin.kill(process.pid)
