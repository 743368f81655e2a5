"""The command line: what it says and its exit codes, in this process and, where that matters, in one of its own."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests import kit
from tests.command import run, run_here


def test_this_machine_is_examined_line_by_line(tmp_path: Path) -> None:
    ran = run(tmp_path, "doctor", "local")

    assert (ran.returncode, ran.stderr) == (0, "")
    rows = [line.split(maxsplit=3)[:3] for line in ran.stdout.splitlines()]
    assert {tuple(row[:2]) for row in rows} <= {("here", "ok"), ("here", "warn")}
    assert [row[2] for row in rows] == ["system", "tools", "disk", "memory"]


def test_what_was_found_is_a_list_for_programs(tmp_path: Path) -> None:
    found = json.loads(run_here(tmp_path, "doctor", "local", "--json").stdout)

    assert [each["check"] for each in found] == ["system", "tools", "disk", "memory"]
    assert {frozenset(each) for each in found} == {frozenset(("machine", "check", "verdict", "text", "fix"))}


def test_a_machine_that_cannot_be_a_node_makes_the_code_one(tmp_path: Path) -> None:
    ran = run_here(tmp_path, "doctor", "local", PATH=str(tmp_path))

    assert ran.returncode == 1
    assert "here  FAIL  tools   there is no cat, no chmod" in ran.stdout
    assert "-> install coreutils" in ran.stdout


def test_a_machine_of_which_there_is_no_name_is_said_with_what_to_do(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.touch()
    ran = run_here(tmp_path, "doctor", "ssh", "nowhere.invalid", "--config", str(config))
    assert ran.returncode == 1
    assert [line.split()[1:3] for line in ran.stdout.splitlines()][-1] == ["FAIL", "name"]
    assert "HostName" in ran.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("doctor", "ssh"), "skyward: name at least one machine, for example: skyward doctor ssh "),
        (("doctor", "ssh", "a b"), "skyward: a b: 'a b' is not a machine; give machines as you name"),
        (("doctor", "local", "--jsn"), "skyward: Unknown option: --jsn"),
        (("doctor", "ssh", "a", "--key", "/no/such"), "skyward: --key /no/such: there is no such file"),
        (
            ("doctor", "aws", "--region", "europe"),
            "skyward: --region europe: is not a region; give a region, for example --",
        ),
        (
            ("doctor", "aws", "--region", "us-esat-1"),
            "skyward: --region us-esat-1: is not a region; did you mean 'us-east-1' or",
        ),
        (("doctor", "aws", "--instance-type", "huge"), "skyward: --instance-type huge: is not an instance type"),
        (("doctor", "aws", "--nodes", "0"), "skyward: --nodes 0: must be at least 1\n"),
        (("doctor", "aws", "--nodes", "1.5"), "skyward: Invalid value for --nodes: '1.5' is not a whole number\n"),
        (("runs", "x"), "skyward: runs takes no argument 'x'; see `skyward runs --help`\n"),
        (("run",), 'skyward: Command "run" parameter SCRIPT requires an argument; see `skyward run --help`\n'),
        (("run", "--budget", "$2", "x.py"), "skyward: Invalid value for --budget: '$2' is not a number\n"),
        (("run", "--concurrency", "1.5", "x.py"), "skyward: Invalid value for --concurrency: '1.5' is not a whole"),
        (("run", "-m", "no_such.module"), "skyward: no_such.module: no such module\n"),
        (("docter",), "skyward: Unknown command"),
    ],
)
def test_a_mistake_is_one_line_and_another_code(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    ran = run_here(tmp_path, *words)

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith(said)
    assert ran.stderr.count("\n") == 1


HANGING = """
import signal, socket, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may have been told to ignore it

def hang(*_, **__):
    print("asked", flush=True)
    time.sleep(600)

socket.getaddrinfo = hang
from skyward.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ls",), ""),
        (("down", "pool"), "skyward: interrupted; `skyward ls` lists what is left\n"),
        (("doctor", "aws"), ""),
    ],
)
def test_ctrl_c_ends_a_command_while_the_sdk_waits_for_the_network(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "HOME": str(tmp_path)}
    running = subprocess.Popen(
        [sys.executable, "-c", HANGING, *words, "--region", "eu-central-1"],
        env=os.environ | keys | {"XDG_STATE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with running:
        stderr = kit.interrupted(running, "asked\n")

    assert (running.returncode, stderr) == (130, said)


@pytest.mark.parametrize("words", [(), ("doctor",), ("doctor", "local"), ("doctor", "ssh"), ("doctor", "aws")])
def test_help_fits_a_screen(words: tuple[str, ...], tmp_path: Path) -> None:
    ran = run_here(tmp_path, *words, "--help")

    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(ran.stdout.splitlines()) <= 24
    assert max(map(len, ran.stdout.splitlines())) <= 80


def test_an_account_without_credentials_is_told_what_to_do(tmp_path: Path) -> None:
    nobody = {name: str(tmp_path / "none") for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    home = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    ran = run_here(tmp_path, "doctor", "aws", AWS_REGION="eu-west-1", **home, **nobody)

    assert (ran.returncode, ran.stderr) == (1, "")
    assert [line.split()[:3] for line in ran.stdout.splitlines()] == [
        ["here", "ok", "extra"],
        ["aws", "FAIL", "region"],
        ["aws", "FAIL", "credentials"],
    ]
    assert "AWS_REGION=eu-west-1 is not read, only AWS_DEFAULT_REGION is -> pass --region" in ran.stdout
    assert "there are no AWS credentials -> run `aws configure` with an access key" in ran.stdout


@pytest.mark.parametrize(
    ("region", "verdict", "text"),
    [
        ("us-esat-1", "FAIL", "us-esat-1 is not a region"),
        ("us-east-9", "warn", "does not know us-east-9"),
        ("us-east-1", "ok", "us-east-1"),
    ],
)
def test_a_region_is_judged_without_credentials(tmp_path: Path, region: str, verdict: str, text: str) -> None:
    nobody = {name: str(tmp_path / "none") for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")}
    rest = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true", "AWS_DEFAULT_REGION": region, **nobody}
    found = {each["check"]: each for each in json.loads(run_here(tmp_path, "doctor", "aws", "--json", **rest).stdout)}

    assert found["region"]["verdict"] == verdict
    assert text in found["region"]["text"]
    assert found["region"]["fix"].startswith("did you mean 'us-east-" if verdict != "ok" else "")
    assert found["credentials"]["verdict"] == "FAIL"


def test_a_profile_is_judged_by_what_is_known_of_it(tmp_path: Path) -> None:
    (config := tmp_path / "config").write_text(
        "[profile new]\nregion = eu-west-1\nlogin_session = arn:aws:iam::1:user/a\n"
    )
    rest = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": str(config)}
    ran = run_here(tmp_path, "doctor", "aws", "--profile", "new", **rest)
    assert ran.returncode == 1
    assert "aws   ok    region       eu-west-1\n" in ran.stdout
    assert 'run: eval "$(aws configure export-credentials --format env)"' in ran.stdout

    ran = run_here(tmp_path, "doctor", "aws", "--profile", "old", "--json", **rest)
    assert ran.returncode == 1
    assert (
        json.loads(ran.stdout)[-1]["text"] == "The config profile (old) could not be found; give one of ~/.aws/config"
    )
    assert json.loads(ran.stdout)[-1]["check"] == "profile"


@pytest.mark.parametrize(
    ("library", "extra", "code", "words"),
    [
        ("cyclopts", "cli", 2, ["doctor", "ssh", "a"]),
        ("asyncssh", "ssh", 1, ["doctor", "ssh", "a"]),
        ("aioboto3", "aws", 1, ["doctor", "aws"]),
    ],
)
def test_without_an_extra_the_line_that_installs_it_is_given(
    library: str, extra: str, code: int, words: list[str]
) -> None:
    program = f"import sys; sys.modules[{library!r}] = None\nfrom skyward.cli.main import main\nmain({words})"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150, check=False)

    assert ran.returncode == code
    assert f"{library} is not installed" in ran.stdout + ran.stderr
    assert f"[{extra}]'" in ran.stdout + ran.stderr


HEAVY = {"aioboto3", "asyncio", "asyncssh", "botocore", "casty", "cloudpickle", "cryptography", "joblib", "pydantic"}


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        ("--version", {*HEAVY, "cyclopts", "rich"}),
        ("--help", {*HEAVY, "markdown_it"}),
        ("run --help", {*HEAVY, "markdown_it"}),
        ("runs --help", {*HEAVY, "markdown_it"}),
        ("doctor aws --help", {*HEAVY, "markdown_it"}),
        ("ls --help", {*HEAVY, "markdown_it"}),
    ],
)
def test_help_and_version_load_nothing_that_takes_long(words: str, absent: set[str]) -> None:
    program = f"""
import sys
from skyward.cli.main import main
try:
    main({words.split()})
finally:
    print(*sys.modules, file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=150, check=False)

    assert ran.returncode == 0
    assert ran.stdout
    assert {module.partition(".")[0] for module in ran.stderr.split()} & absent == set()


def test_the_command_is_installed_with_the_package() -> None:
    command = Path(sysconfig.get_path("scripts"), "skyward")
    ran = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=150, check=True)

    assert ran.stdout.strip()
