"""`skyward run`, on nodes of this machine, and what is known of runs afterwards."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from skyward.cli import run_records
from skyward.events import Printed, RunEnded, RunStarted, to_json
from skyward.telemetry.event_log import EventLog
from tests import kit
from tests.command import ENDS, Ran, run, run_here

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


def written(folder: Path) -> Path:
    (folder / "helper.py").write_text("def double(number): return 2 * number\n")
    (folder / "job.py").write_text(JOB)
    (folder / "pyproject.toml").write_text("[tool.skyward]\nnodes = 2\nconcurrency = 1\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path)


@dataclass(frozen=True)
class Runs:
    """What two runs in a folder said: one that went well, and after it one whose script raised."""

    folder: Path
    good: Ran
    bad: Ran


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = written(tmp_path_factory.mktemp("runs"))
    good = run(folder, "run", "job.py", "--nodes", "7")
    return Runs(folder, good, run(folder, "run", "-q", "--nodes=1", "job.py", "fail"))


def test_a_script_runs_unchanged_on_a_pool(ended: Runs) -> None:
    ran = ended.good

    assert ran.returncode == 3, ran.stderr
    shown = ran.stdout.splitlines()
    assert "['--nodes', '7'] [0, 2, 4, 6] False" in shown
    assert {line.partition("] ")[2] for line in shown if line.startswith("[node")} == {f"task {n}" for n in range(4)}
    assert "Tasks: 4\nNodes: 2\nConcurrency: 1\n" in ran.stderr


def test_a_module_runs_too_and_options_win_over_the_file(folder: Path) -> None:
    ran = run(folder, "run", "--nodes=1", "-m", "job")

    assert ran.returncode == 3, ran.stderr
    assert "Nodes: 1\n" in ran.stderr


def test_tasks_have_the_variables_and_files_of_the_options_and_of_an_image(folder: Path) -> None:
    (folder / "job.py").write_text(
        "import os\nfrom joblib import Parallel, delayed\n"
        "def task(): return os.environ['LEVEL'], os.environ['TOKEN'], os.environ['A'], open('data.csv').read()\n"
        "if __name__ == '__main__': print(*Parallel(n_jobs=2)([delayed(task)()]))\n"
    )
    (folder / "here.csv").write_text("1,2")
    (folder / "image.toml").write_text("env = {A = '1', LEVEL = 'info'}\n")
    options = ["--env", "LEVEL=debug", "--env", "TOKEN", "--files", "data.csv=here.csv", "--retries", "1"]
    ran = run(folder, "run", "-q", "--image", "image.toml", *options, "--dashboard", "job.py", TOKEN="x")

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "('debug', 'x', '1', '1,2')\n"
    assert "skyward: watch it at http://127.0.0.1:" in ran.stderr


def test_what_the_script_raises_is_shown_as_python_shows_it(ended: Runs) -> None:
    ran = ended.bad

    assert ran.returncode == 1
    shown = [line for line in ran.stderr.splitlines() if "nodes ready" not in line]  # of a start that took its time
    first, second, *_, last = shown
    assert first == "Traceback (most recent call last):"
    assert "job.py" in second
    assert last == "ValueError: no"


def test_a_script_of_which_no_call_reached_the_pool_is_told_so(folder: Path) -> None:
    (folder / "own.py").write_text(
        "import skyward as sky\nwith sky.Compute() as compute:\n    print(compute.submit(pow, 2, 5).result())\n"
    )
    ran = run(folder, "run", "own.py", "--fast")
    assert (ran.returncode, ran.stdout) == (0, "32\n")
    assert "skyward: own.py did not use the pool that `skyward run` opened: " in ran.stderr
    assert ran.stderr.endswith(f"run it without `skyward run`: {shlex.join([sys.executable, 'own.py'])} --fast\n")
    assert "Efficiency" not in ran.stderr


def test_ctrl_c_ends_script_and_pool(folder: Path) -> None:
    (folder / "job.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(600)\n")
    (nodes := folder / "nodes").mkdir()
    command = [sys.executable, "-c", INTERRUPTIBLE, "run", "job.py"]
    env = os.environ | ENDS | {"XDG_STATE_HOME": str(folder / "state"), "TMPDIR": str(nodes)}
    running = subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE)
    said = kit.interrupted(running, "here\n")
    assert running.returncode == 130, said
    kit.assert_nothing_left(nodes, [])


@pytest.mark.parametrize(
    ("table", "words", "said"),
    [
        ("nods = 2", ["job.py"], "[tool.skyward] has the unknown key 'nods'; known: "),
        ("nodes = 0", ["job.py"], "pyproject.toml: [tool.skyward]: nodes=0: must be at least 1"),
        ("nodes = [", ["job.py"], "pyproject.toml: cannot be read"),
        ("\udcff", ["job.py"], "pyproject.toml: cannot be read"),
        ("[tool.skyward.local]\nspeed = 3", ["job.py"], "speed"),
        (
            "[tool.skyward.image]\npackages = 3",
            ["job.py"],
            "[tool.skyward]: packages=3: must be a list",
        ),
        ("", ["nojob.py"], "skyward: nojob.py: no such script\n"),
        ("", ["--nodes", "many", "job.py"], "skyward: --nodes many: not a number of nodes"),
        ("", ["--nodes", "0", "job.py"], "skyward: --nodes 0: must be at least 1"),
        (
            "",
            ["--nodes", "10-2", "job.py"],
            "skyward: --nodes 10-2: the smaller number comes first; write --nodes 2-10",
        ),
        ("nodes = 2", ["--retries", "-1", "job.py"], "skyward: --retries -1: must be at least 0"),
        ("", ["--provider", "ssh", "job.py"], "skyward: --provider ssh needs --hosts, for example --hosts "),
        ("", ["--hosts", "a", "job.py"], "skyward: --hosts needs --provider ssh; the provider is local\n"),
        ("", ["--region", "us-east-1", "job.py"], "skyward: --region needs --provider aws; the provider is local\n"),
        ("", ["--provider", "aws", "--region", "europe", "job.py"], "skyward: --region europe: is not a region"),
        ("", ["--provider", "ssh", "--hosts", "a b", "job.py"], "skyward: --hosts a b: 'a b' is not a machine"),
        ("", ["--image", "no.toml", "job.py"], "skyward: no.toml: cannot be read: "),
        ("", ["--image", "bad.toml", "job.py"], "skyward: --image bad.toml: packages=3: must be a list; give packages"),
        ("", ["--env", "NO_SUCH_NAME", "job.py"], "--env NO_SUCH_NAME: no such variable is set here"),
    ],
)
def test_what_cannot_be_meant_is_said_in_a_line(folder: Path, table: str, words: list[str], said: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.skyward]\n{table}\n", errors="surrogateescape")
    (folder / "bad.toml").write_text("packages = 3\n")
    ran = run_here(folder, "run", *words)

    assert ran.returncode == 2
    assert ran.stderr.startswith("skyward: ")
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool]\nskyward = 5", "tool.skyward=5: must be a table; write [tool.skyward] and settings below it"),
        ("tool = 'a'", "tool='a': must be a table; write [tool.skyward] and settings below it"),
    ],
)
def test_a_table_that_is_none_is_refused(folder: Path, text: str, said: str) -> None:
    (folder / "pyproject.toml").write_text(text)
    ran = run_here(folder, "run", "job.py")

    assert (ran.returncode, ran.stderr) == (2, f"skyward: {folder}/pyproject.toml: {said}\n")


def test_before_the_first_run_nothing_is_known(tmp_path: Path) -> None:
    assert run_here(tmp_path, "runs").stdout.startswith("no runs recorded yet")
    assert run_here(tmp_path, "report").returncode == 2


def test_what_is_known_of_runs_is_told_afterwards(ended: Runs) -> None:
    folder = ended.folder
    newest, oldest = json.loads(run_here(folder, "runs", "--json").stdout)
    assert (newest["nodes"], oldest["nodes"], oldest["program"]) == (1, 2, "job.py")
    header, *rows = run_here(folder, "runs").stdout.splitlines()
    assert header.split() == list(run_records.HEADER)
    assert [row.split()[0] for row in rows] == [newest["run"], oldest["run"]]
    assert [row.split()[3:5] for row in rows] == [["job.py", "local"]] * 2
    assert rows[1][header.index("TASKS") :].split()[0] == "4"
    assert rows[1][header.index("STATUS") :] == "finished"
    assert rows[0][header.index("STATUS") :] == "failed: ValueError: no"
    assert (newest["status"], oldest["status"]) == ("failed", "finished")

    said = run_here(folder, "logs", oldest["run"][:-1]).stdout.splitlines()
    assert sorted(line.partition("] ")[2] for line in said) == [f"task {number}" for number in range(4)]
    some = run_here(folder, "logs", oldest["run"], "--node", "1", "--follow").stdout.splitlines()
    assert some == [line for line in said if line.startswith("[node 1 ")]

    assert run_here(folder, "report", oldest["run"]).stdout.startswith("Tasks: 4\nNodes: 2\n")
    assert json.loads(run_here(folder, "report", "--json").stdout)["report"]["tasks"] == 4
    assert run_here(folder, "report", "--save", "run.html").returncode == 0
    assert (folder / "run.html").read_text().startswith("<!doctype html>")


@pytest.fixture
def record(ended: Runs, tmp_path: Path) -> Path:
    """A copy of the record of the run that went well."""
    oldest = min((ended.folder / "state/skyward/runs").iterdir(), key=lambda path: path.stat().st_mtime)
    (runs := tmp_path / "state/skyward/runs").mkdir(parents=True)
    return Path(shutil.copy(oldest, runs))


def test_a_run_that_was_killed_has_no_report_but_a_page(record: Path, tmp_path: Path) -> None:
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(line for line in lines if '"report": ' not in line))

    ran = run_here(tmp_path, "report")
    assert ran.returncode == 1
    assert "has no report: its program was killed; " in ran.stderr
    assert run_here(tmp_path, "runs").stdout.endswith(" killed\n")
    assert run_here(tmp_path, "report", "--save", "run.html").returncode == 0


def test_of_a_run_that_failed_before_it_had_a_report_the_error_is_told(tmp_path: Path) -> None:
    made = EventLog("07311200-0123abcd", tmp_path / "state/skyward/runs")
    made.put(RunStarted(1.0, made.run, "local", 1, 1, 1, "process", "job.py", "1", "3.12"))
    made.put(RunEnded(2.0, "Refused: a: unknown\nand more", (), {}))
    list(made.events())  # which writes it down

    ran = run_here(tmp_path, "report")
    assert ran.returncode == 1
    assert ran.stderr == f"skyward: {made.run} has no report: the run failed: Refused: a: unknown; see --save\n"


def test_of_a_run_that_was_killed_the_last_report_is_told(record: Path, tmp_path: Path) -> None:
    *lines, last = record.read_text().splitlines()
    end = json.loads(last)
    then = {"event": "Reported", "at": end["at"], "report": end["report"]}
    record.write_text("".join(f"{line}\n" for line in [*lines, json.dumps(then)]))

    ran = run_here(tmp_path, "report")
    assert ran.returncode == 0
    assert ran.stdout.startswith("Tasks: 4\n")
    assert ran.stdout.endswith(": its program was killed.\n")
    assert run_here(tmp_path, "runs").stdout.endswith(" killed\n")


def test_what_runs_is_said_to_run_until_its_program_ends(tmp_path: Path) -> None:
    made = EventLog("07311200-0123abcd", tmp_path / "state/skyward/runs")
    made.put(RunStarted(1.0, made.run, "local", 1, 1, 1, "process", "job.py", "1", "3.12"))
    list(made.events())  # which writes it down
    assert run_here(tmp_path, "runs").stdout.endswith(" running\n")
    assert json.loads(run_here(tmp_path, "runs", "--json").stdout)[0]["status"] == "running"
    assert "has no report: the run is still running; " in run_here(tmp_path, "report").stderr

    made.put(RunEnded(61.0, "ValueError: no\nat all", (), {}))
    made.close()
    row = run_here(tmp_path, "runs").stdout.splitlines()[1]
    assert row.endswith(" failed: ValueError: no")
    assert "  1m  " in row


def test_as_many_runs_are_listed_as_asked_for(tmp_path: Path) -> None:
    (folder := tmp_path / "state/skyward/runs").mkdir(parents=True)
    for number in range(25):
        name = f"07311200-{number:08x}"
        (folder / f"{name}.jsonl").write_text(
            to_json(RunStarted(1.0, name, "local", 1, 1, 1, "process", "job.py", "1", "3.12"))
        )
        os.utime(folder / f"{name}.jsonl", (number, number))

    shown = run_here(tmp_path, "runs").stdout.splitlines()
    assert [row.split()[0] for row in shown[1:-1]] == [f"07311200-{number:08x}" for number in range(24, 4, -1)]
    assert shown[-1] == "5 older; list more with --limit 25"
    assert len(run_here(tmp_path, "runs", "--limit", "25").stdout.splitlines()) == 26
    assert len(run_here(tmp_path, "runs", "-n1").stdout.splitlines()) == 3
    assert len(json.loads(run_here(tmp_path, "runs", "--json").stdout)) == 25
    assert run_here(tmp_path, "runs", "--limit", "0").stderr == "skyward: --limit 0: must be at least 1\n"


@pytest.mark.parametrize("command", ["", "run", "runs", "logs", "report", "ls", "down", "doctor", "doctor ssh"])
def test_the_help_of_each_command_fits_a_screen(command: str, tmp_path: Path) -> None:
    shown = run_here(tmp_path, *command.split(), "--help").stdout.splitlines()
    assert 3 < len(shown) <= (44 if command == "run" else 24)
    assert max(map(len, shown)) <= 80


# ---------------------------------------------------------------- records as they may be found


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The record of a run whose tasks printed a lot, and what Unicode has no place for."""
    (runs := tmp_path / "state/skyward/runs").mkdir(parents=True)
    made = EventLog("07311200-0123abcd", runs)
    made.put(RunStarted(1.0, made.run, "local", 1, 1, 1, "process", "job.py", "1", "3.12"))
    for number in range(5000):
        made.put(Printed(2.0, 0, 0, "stdout", f"line {number} \udcff ü\n"))
    made.put(RunEnded(3.0, "", (), {}))
    made.close()
    assert made.path is not None
    return made.path


def test_a_page_that_cannot_be_saved_is_said_in_a_line(tmp_path: Path, old: Path) -> None:
    ran = run_here(tmp_path, "report", "--save", "no/such/x.html", old.stem)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("skyward: --save no/such/x.html: No such file or directory; name a writable file")


def test_text_that_the_terminal_has_no_place_for_is_escaped(tmp_path: Path, old: Path) -> None:
    ran = run(tmp_path, "logs", old.stem, PYTHONIOENCODING="ascii:strict")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == "[node 0 slot 0] line 4999 \\udcff \\xfc"


def test_control_sequences_are_shown_unless_they_are_wanted(tmp_path: Path) -> None:
    (tmp_path / "state/skyward/runs").mkdir(parents=True)
    made = EventLog("07311200-0123abcd", tmp_path / "state/skyward/runs")
    made.put(RunStarted(1.0, made.run, "local", 1, 1, 1, "process", "job\x1b[2J.py", "1", "3.12"))
    made.put(Printed(2.0, 0, 0, "stdout", "\x1b[2Jgone \x1b[31mred\n1%\r2%\n"))
    made.put(RunEnded(3.0, "no\x07", (), {}))
    made.close()

    assert run_here(tmp_path, "logs").stdout == "[node 0 slot 0] \\x1b[2Jgone \x1b[31mred\x1b[0m\n[node 0 slot 0] 2%\n"
    raw = run_here(tmp_path, "logs", "--raw").stdout  # read with universal newlines
    assert raw == "[node 0 slot 0] \x1b[2Jgone \x1b[31mred\n[node 0 slot 0] 1%\n2%\n"
    assert "job\\x1b[2J.py" in (listed := run_here(tmp_path, "runs").stdout)
    assert "failed: no\\x07" in listed


def test_a_run_that_printed_nothing_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "state/skyward/runs").mkdir(parents=True)
    made = EventLog("07311200-0123abcd", tmp_path / "state/skyward/runs")
    made.put(RunStarted(1.0, made.run, "local", 1, 1, 1, "process", "job.py", "1", "3.12"))
    made.put(RunEnded(3.0, "", (), {}))
    made.close()

    ran = run_here(tmp_path, "logs")

    assert (ran.returncode, ran.stdout) == (0, "")
    assert "has printed or logged anything" in ran.stderr


@pytest.mark.parametrize("words", [("logs", "07"), ("logs", "07", "--follow"), ("runs",)])
def test_who_reads_on_no_more_ends_it_in_silence(tmp_path: Path, old: Path, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ran = run(tmp_path, *words, stdout=writing)
    os.close(writing)

    assert (ran.returncode, ran.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_what_the_system_refuses_is_said_in_a_line(tmp_path: Path, old: Path) -> None:
    for words in (("logs", old.stem), ("runs",)):
        with Path("/dev/full").open("w") as full:
            ran = run(tmp_path, *words, stdout=full)
        assert (ran.returncode, ran.stderr) == (1, "skyward: No space left on device\n")


def test_files_that_are_no_records_are_told_of_in_a_line(tmp_path: Path, old: Path) -> None:
    started = old.read_text().splitlines()[0]
    odd = {
        "00000001-00000000": "\0\udcff\n5\n[]\n{}\n" + "[" * 200_000,
        "00000002-00000000": f"{started}\n{to_json(RunEnded(2.0, '', (), {'a': 1}))}",
        "00000003-00000000": started.replace("1.0", '"x"'),
        "00000004-00000000": f"{started}\n{to_json(Printed(2.0, 0, 0, 'stdout', 'a')).replace(': 0', ': null')}",
    }
    for name, text in odd.items():
        (old.parent / f"{name}.jsonl").write_text(text, errors="surrogateescape")
    (old.parent / "00000005-00000000.jsonl").symlink_to("nowhere")
    (old.parent / "00000006-00000000.jsonl").mkdir()
    (old.parent / "mine.jsonl").write_text("5")

    ran = run_here(tmp_path, "runs")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert sorted(line.split()[0] for line in ran.stdout.splitlines()[1:]) == sorted(
        [*odd, "00000006-00000000", old.stem]
    )
    for words, code in (
        (("runs", "--limit", "1"), 0),
        (("report", "00000002"), 2),
        (("report", "--save", "x.html", "00000002"), 2),
        (("logs", "00000004"), 2),
        (("logs", "00000005"), 1),
        (("report", "00000006"), 1),
    ):
        ran = run_here(tmp_path, *words)
        assert ran.returncode == code
        assert len(ran.stderr.splitlines()) == bool(code), ran.stderr
        assert ran.stderr.startswith("skyward: " if code else "")
