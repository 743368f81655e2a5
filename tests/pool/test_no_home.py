"""A user without a home folder and without a name, as containers have them."""

import os
import subprocess
import sys

PROGRAM = """
import pwd, sys
pwd.getpwuid = {}.__getitem__
import skyward as sky
if __name__ == "__main__":
    with sky.Compute(worker=sky.Worker(concurrency=1), plugins=[sky.plugins.joblib()]) as compute:
        print(compute.submit(abs, -7).result())
"""


def test_a_user_without_a_home_has_pools_and_is_told_that_the_record_is_not_kept() -> None:
    gone = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_STATE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in gone}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert (ran.stdout, ran.returncode) == ("7\n", 0)
    (line,) = ran.stderr.splitlines()
    lost = "this run's record is kept in memory only, and lost when the program ends"
    assert line.startswith(f"{lost}: there is no home folder for the records of runs")
