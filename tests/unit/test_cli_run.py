"""`skyward run`, and what is known of runs afterwards: as processes of their own, on nodes of this machine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import kit

pytestmark = pytest.mark.timeout(60)

JOB = """
import os, sys
from joblib import Parallel, delayed
import helper

def task(number):
    print("task", number)
    return helper.double(number), os.getpid()

if __name__ == "__main__":
    found = Parallel(n_jobs=-1)(delayed(task)(number) for number in range(4))
    print(sys.argv[1:], [value for value, _ in found], os.getpid() in {pid for _, pid in found})
    if "fail" in sys.argv:
        raise ValueError("no")
    sys.exit(3)
"""
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may have been told to ignore it
from skyward.cli.main import main
main()
"""
ENDS = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("def double(number): return 2 * number\n")
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "pyproject.toml").write_text("[tool.skyward]\nnodes = 2\nconcurrency = 1\n")
    return tmp_path


def skyward(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "skyward", *words]
    env = os.environ | ENDS | {"XDG_STATE_HOME": str(folder / "state")}
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=50, check=False)


def test_a_script_runs_unchanged_on_a_pool(folder: Path) -> None:
    ran = skyward(folder, "run", "job.py", "--nodes", "7")

    assert ran.returncode == 3, ran.stderr
    shown = ran.stdout.splitlines()
    assert "['--nodes', '7'] [0, 2, 4, 6] False" in shown
    assert {line.partition("] ")[2] for line in shown if line.startswith("[node")} == {f"task {n}" for n in range(4)}
    assert "Tasks: 4\nNodes: 2\nConcurrency: 1\n" in ran.stderr


def test_a_module_runs_too_and_options_win_over_the_file(folder: Path) -> None:
    ran = skyward(folder, "run", "--nodes=1", "-m", "job")

    assert ran.returncode == 3, ran.stderr
    assert "Nodes: 1\n" in ran.stderr


def test_what_the_script_raises_is_shown_as_python_shows_it(folder: Path) -> None:
    ran = skyward(folder, "run", "-q", "job.py", "fail")

    assert ran.returncode == 1
    first, second, *_, last = ran.stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    assert "job.py" in second
    assert last == "ValueError: no"


def test_ctrl_c_ends_script_and_pool(folder: Path) -> None:
    (folder / "job.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(600)\n")
    (nodes := folder / "nodes").mkdir()
    command = [sys.executable, "-c", INTERRUPTIBLE, "run", "job.py"]
    env = os.environ | ENDS | {"XDG_STATE_HOME": str(folder / "state"), "TMPDIR": str(nodes)}
    running = subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE)
    assert running.stdout is not None
    assert running.stdout.readline() == "here\n"
    running.send_signal(signal.SIGINT)
    try:
        _, said = running.communicate(timeout=20)
    finally:
        running.kill()
    assert running.returncode == 130, said
    kit.assert_nothing_left(nodes, [])


@pytest.mark.parametrize(
    ("table", "words", "said"),
    [
        ("nods = 2", ["job.py"], "[tool.skyward] has 'nods', which nothing reads"),
        ("nodes = 0", ["job.py"], "nodes=0: must be at least 1"),
        ("nodes = [", ["job.py"], "pyproject.toml: it cannot be read"),
        ("[tool.skyward.local]\nspeed = 3", ["job.py"], "speed"),
        ("", ["nojob.py"], "nojob.py: there is no such script"),
        ("", ["--nodes", "many", "job.py"], "nodes='many': is no number of nodes"),
        ("", ["--provider", "ssh", "job.py"], "hosts"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_line(folder: Path, table: str, words: list[str], said: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.skyward]\n{table}\n")
    ran = skyward(folder, "run", *words)

    assert ran.returncode == 2
    assert ran.stderr.startswith("skyward: ")
    assert said in ran.stderr


def test_what_is_known_of_runs_is_told_afterwards(folder: Path) -> None:
    assert "no run is recorded here" in skyward(folder, "runs").stdout
    assert skyward(folder, "report").returncode == 2
    skyward(folder, "run", "-q", "job.py")
    skyward(folder, "run", "-q", "--nodes=1", "job.py", "fail")

    newest, oldest = json.loads(skyward(folder, "runs", "--json").stdout)
    assert (newest["nodes"], oldest["nodes"], oldest["program"]) == (1, 2, "job.py")
    rows = skyward(folder, "runs").stdout.splitlines()
    assert [row.split()[0] for row in rows] == [newest["run"], oldest["run"]]
    assert "4 tasks" in rows[1]

    said = skyward(folder, "logs", oldest["run"][:-1]).stdout.splitlines()
    assert sorted(line.partition("] ")[2] for line in said) == [f"task {number}" for number in range(4)]
    some = skyward(folder, "logs", oldest["run"], "--node", "1", "--follow").stdout.splitlines()
    assert some == [line for line in said if line.startswith("[node 1 ")]

    assert skyward(folder, "report", oldest["run"]).stdout.startswith("Tasks: 4\nNodes: 2\n")
    assert json.loads(skyward(folder, "report", "--json").stdout)["report"]["tasks"] == 4
    assert skyward(folder, "report", "--save", "run.html").returncode == 0
    assert (folder / "run.html").read_text().startswith("<!doctype html>")


def test_a_run_that_was_killed_has_no_report_but_a_page(folder: Path) -> None:
    skyward(folder, "run", "-q", "job.py")
    (record,) = (folder / "state/skyward/runs").iterdir()
    record.write_text("".join(record.read_text().splitlines(keepends=True)[:-1]))

    ran = skyward(folder, "report")
    assert ran.returncode == 1
    assert "has no report: it has not ended, or its program was killed" in ran.stderr
    assert "has not ended" in skyward(folder, "runs").stdout
    assert skyward(folder, "report", "--save", "run.html").returncode == 0


def test_of_a_run_that_was_killed_the_last_report_is_told(folder: Path) -> None:
    skyward(folder, "run", "-q", "job.py")
    (record,) = (folder / "state/skyward/runs").iterdir()
    *lines, last = record.read_text().splitlines()
    end = json.loads(last)
    then = {"event": "Reported", "at": end["at"], "report": end["report"]}
    record.write_text("".join(f"{line}\n" for line in [*lines, json.dumps(then)]))

    ran = skyward(folder, "report")
    assert ran.returncode == 0
    assert ran.stdout.startswith("Tasks: 4\n")
    assert ran.stdout.endswith(": the run has not ended, or its program was killed.\n")
    assert "has not ended, or its program was killed, 4 tasks" in skyward(folder, "runs").stdout


@pytest.mark.parametrize("command", ["", "run", "runs", "logs", "report", "ls", "down", "doctor", "doctor ssh"])
def test_the_help_of_each_command_fits_a_screen(command: str, tmp_path: Path) -> None:
    shown = skyward(tmp_path, *command.split(), "--help").stdout.splitlines()
    assert 3 < len(shown) <= 24
    assert max(map(len, shown)) <= 80
