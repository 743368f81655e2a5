"""`skyward run`, and what is known of runs afterwards: as processes of their own, on nodes of this machine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from skyward.events import Printed, RunEnded, RunStarted, to_json
from skyward.record import Record
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


def skyward(
    folder: Path, *words: str, stdout: int | IO[str] = subprocess.PIPE, **environment: str
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "skyward", *words]
    env = os.environ | ENDS | {"XDG_STATE_HOME": str(folder / "state"), "PYTHONUNBUFFERED": ""} | environment
    return subprocess.run(
        command, env=env, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=50, check=False
    )


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
        ("\udcff", ["job.py"], "pyproject.toml: it cannot be read"),
        ("[tool.skyward.local]\nspeed = 3", ["job.py"], "speed"),
        ("", ["nojob.py"], "nojob.py: there is no such script"),
        ("", ["--nodes", "many", "job.py"], "nodes='many': is no number of nodes"),
        ("", ["--provider", "ssh", "job.py"], "hosts"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_line(folder: Path, table: str, words: list[str], said: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.skyward]\n{table}\n", errors="surrogateescape")
    ran = skyward(folder, "run", *words)

    assert ran.returncode == 2
    assert ran.stderr.startswith("skyward: ")
    assert said in ran.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool]\nskyward = 5", "tool.skyward=5: must be a table; write [tool.skyward] and settings below it"),
        ("tool = 'a'", "tool='a': must be a table; write [tool.skyward] and settings below it"),
    ],
)
def test_a_table_that_is_none_is_refused(folder: Path, text: str, said: str) -> None:
    (folder / "pyproject.toml").write_text(text)
    ran = skyward(folder, "run", "job.py")

    assert (ran.returncode, ran.stderr) == (2, f"skyward: {folder}/pyproject.toml: {said}\n")


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
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(line for line in lines if '"report": ' not in line))

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


# ---------------------------------------------------------------- records as they may be found


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """The record of a run whose tasks printed a lot, and what Unicode has no place for."""
    (runs := tmp_path / "state/skyward/runs").mkdir(parents=True)
    made = Record("07311200-0123abcd", runs)
    made.put(RunStarted(1.0, made.run, "local", 1, 1, 1, "process", "job.py", "1", "3.12"))
    for number in range(5000):
        made.put(Printed(2.0, 0, 0, "stdout", f"line {number} \udcff ü\n"))
    made.put(RunEnded(3.0, "", (), {}))
    made.close()
    assert made.path is not None
    return made.path


def test_a_page_that_cannot_be_saved_is_said_in_a_line(tmp_path: Path, recorded: Path) -> None:
    ran = skyward(tmp_path, "report", "--save", "no/such/x.html", recorded.stem)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("skyward: save='no/such/x.html': No such file or directory; give a file that can be")


def test_text_that_the_terminal_has_no_place_for_is_escaped(tmp_path: Path, recorded: Path) -> None:
    ran = skyward(tmp_path, "logs", recorded.stem, PYTHONIOENCODING="ascii:strict")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == "[node 0 slot 0] line 4999 \\udcff \\xfc"


def test_control_sequences_are_shown_unless_they_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "state/skyward/runs").mkdir(parents=True)
    made = Record("07311200-0123abcd", tmp_path / "state/skyward/runs")
    made.put(RunStarted(1.0, made.run, "local", 1, 1, 1, "process", "job\x1b[2J.py", "1", "3.12"))
    made.put(Printed(2.0, 0, 0, "stdout", "\x1b[2Jgone \x1b[31mred\n1%\r2%\n"))
    made.put(RunEnded(3.0, "no\x07", (), {}))
    made.close()

    assert skyward(tmp_path, "logs").stdout == "[node 0 slot 0] \\x1b[2Jgone \x1b[31mred\x1b[0m\n[node 0 slot 0] 2%\n"
    raw = skyward(tmp_path, "logs", "--raw").stdout  # read with universal newlines
    assert raw == "[node 0 slot 0] \x1b[2Jgone \x1b[31mred\n[node 0 slot 0] 1%\n2%\n"
    assert "job\\x1b[2J.py" in (listed := skyward(tmp_path, "runs").stdout)
    assert "failed: no\\x07" in listed


@pytest.mark.parametrize("words", [("logs", "07"), ("logs", "07", "--follow"), ("runs",)])
def test_who_reads_on_no_more_ends_it_in_silence(tmp_path: Path, recorded: Path, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ran = skyward(tmp_path, *words, stdout=writing)
    os.close(writing)

    assert (ran.returncode, ran.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_what_the_system_refuses_is_said_in_a_line(tmp_path: Path, recorded: Path) -> None:
    for words in (("logs", recorded.stem), ("runs",)):
        with Path("/dev/full").open("w") as full:
            ran = skyward(tmp_path, *words, stdout=full)
        assert (ran.returncode, ran.stderr) == (1, "skyward: No space left on device\n")


def test_files_that_are_no_records_are_told_of_in_a_line(tmp_path: Path, recorded: Path) -> None:
    started = recorded.read_text().splitlines()[0]
    odd = {
        "00000001-00000000": "\0\udcff\n5\n[]\n{}\n" + "[" * 200_000,
        "00000002-00000000": f"{started}\n{to_json(RunEnded(2.0, '', (), {'a': 1}))}",
        "00000003-00000000": started.replace("1.0", '"x"'),
        "00000004-00000000": f"{started}\n{to_json(Printed(2.0, 0, 0, 'stdout', 'a')).replace(': 0', ': null')}",
    }
    for name, text in odd.items():
        (recorded.parent / f"{name}.jsonl").write_text(text, errors="surrogateescape")
    (recorded.parent / "00000005-00000000.jsonl").symlink_to("nowhere")
    (recorded.parent / "00000006-00000000.jsonl").mkdir()
    (recorded.parent / "mine.jsonl").write_text("5")

    ran = skyward(tmp_path, "runs")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert sorted(line.split()[0] for line in ran.stdout.splitlines()) == sorted(
        [*odd, "00000006-00000000", recorded.stem]
    )
    for words, code in (
        (("logs", "00000001"), 0),
        (("report", "00000002"), 2),
        (("report", "--save", "x.html", "00000002"), 2),
        (("logs", "00000004"), 2),
        (("logs", "00000005"), 1),
        (("report", "00000006"), 1),
    ):
        ran = skyward(tmp_path, *words)
        assert ran.returncode == code
        assert len(ran.stderr.splitlines()) == bool(code), ran.stderr
        assert ran.stderr.startswith("skyward: " if code else "")
