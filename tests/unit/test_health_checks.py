"""What to think of a machine by what its shell says."""

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

from skyward.providers import health_checks
from skyward.providers.health_checks import Finding, HostRequirements
from skyward.remote import bootstrap
from skyward.remote.node_messages import MachineFact, encode

NEEDS = HostRequirements(
    "3.12",
    ".cpython-312-x86_64-linux-gnu.so",
    bootstrap.LOOKS,
    "Linux x86_64",
    uv=False,
    installer="python -m pip install",
)
WELL = {
    "user": "alice",
    "system": "Linux x86_64",
    "processors": "8",
    "setsid": "yes",
    "proc": "yes",
    "memory": str(4 << 20),
    "place": "/home/alice",
    "writable": "yes",
    "disk": "/dev/sda1 30000000 1000000 20480000 6% /",
    "python": ".cpython-312-x86_64-linux-gnu.so /usr/bin/python3.12",
    "over": "",
}


def judged(needs: HostRequirements = NEEDS, /, **changed: str | None) -> dict[str, Finding]:
    """What is found of a machine that is well but for this; None is what it does not say."""
    said = {name: text for name, text in (WELL | changed).items() if text is not None}
    told = "".join(encode(MachineFact(name, text)).decode() for name, text in said.items())
    return {each.check: each for each in health_checks.judged(f"Welcome!\n{told}", needs)}


def test_a_machine_that_is_well_is_said_to_be() -> None:
    assert list(judged().values()) == [
        Finding("system", "ok", "Linux x86_64, 8 processors"),
        Finding("tools", "ok", "a shell's usual commands, setsid, /proc"),
        Finding("python", "ok", "CPython 3.12: /usr/bin/python3.12"),
        Finding("disk", "ok", "20000 MB are free in /home/alice"),
        Finding("memory", "ok", "4096 MB are free"),
    ]


@pytest.mark.parametrize(
    ("changed", "check", "verdict", "text"),
    [
        ({"system": "Darwin arm64"}, "system", "FAIL", "Darwin arm64: nodes run on Linux"),
        ({"system": None}, "system", "FAIL", "an unknown system: nodes run on Linux"),
        ({"processors": None}, "system", "ok", "Linux x86_64"),
        ({"missing": "tail"}, "tools", "FAIL", "there is no tail"),
        ({"proc": None}, "tools", "FAIL", "/proc is not there"),
        ({"setsid": None}, "tools", "warn", "there is no setsid"),
        ({"python": ".so /usr/bin/python3"}, "python", "warn", "CPython 3.12: /usr/bin/python3, of another kind (.so)"),
        ({"python": None}, "python", "FAIL", "there is no CPython 3.12, which is what your program runs on, and no uv"),
        ({"python": None, "uv": "/bin/uv"}, "python", "warn", "there is no CPython 3.12: /bin/uv installs it"),
        ({"writable": None}, "disk", "FAIL", "alice cannot write to /home/alice"),
        ({"disk": ""}, "disk", "warn", "the free space in /home/alice is not known"),
        ({"disk": "/dev/sda1 9 9 512000 6% /"}, "disk", "warn", "500 MB are free in /home/alice"),
        ({"disk": "/dev/sda1 9 9 0 100% /"}, "disk", "FAIL", "0 MB are free in /home/alice"),
        ({"memory": None}, "memory", "warn", "the free memory is not known"),
        ({"memory": "204800"}, "memory", "warn", "200 MB are free"),
        ({"memory": "1024"}, "memory", "FAIL", "1 MB are free"),
    ],
)
def test_what_is_not_right_is_named(changed: dict[str, str | None], check: str, verdict: str, text: str) -> None:
    found = judged(NEEDS, **changed)[check]

    assert found.verdict == verdict
    assert found.text.startswith(text)
    assert bool(found.fix) == (verdict != "ok")


def test_a_uv_that_is_here_is_for_machines_of_the_same_kind() -> None:
    needs = replace(NEEDS, uv=True)

    assert "your uv is sent" in judged(needs, python=None)["python"].text
    assert judged(needs, python=None, system="Linux aarch64")["python"].verdict == "FAIL"


def test_what_did_not_come_to_its_end_says_nothing_else() -> None:
    assert [each.verdict for each in judged(over=None).values()] == ["FAIL"]


def test_of_the_programs_own_machine_its_python_is_not_asked() -> None:
    told = encode(MachineFact("over", "")).decode()

    assert "python" not in {each.check for each in health_checks.judged(told, NEEDS, bare=False)}


@pytest.mark.parametrize(
    ("ahead", "within", "verdict", "text"),
    [
        (0.2, 0.6, "ok", "within 1 s of"),
        (29.0, 0.6, "ok", "within 29 s of"),
        (3600.0, 0.6, "warn", "3600 s ahead of"),
        (-3600.0, 0.6, "warn", "3600 s behind"),
        (-90000.0, 0.6, "FAIL", "90000 s behind the one here: it will reject the certificates"),
        (90000.0, 0.6, "warn", "90000 s ahead of"),
        (40.0, 20.0, "ok", "within 40 s of"),
    ],
)
def test_a_clock_may_be_a_little_wrong(ahead: float, within: float, verdict: str, text: str) -> None:
    found = health_checks.clock(ahead, within)

    assert (found.verdict, found.text[: len(text)]) == (verdict, text)


def test_a_way_may_be_long_but_not_too_long() -> None:
    assert health_checks.round_trip(0.0004) == Finding("round trip", "ok", "0.4 ms")
    assert health_checks.round_trip(0.0804) == Finding("round trip", "ok", "80 ms")
    assert health_checks.round_trip(0.5).verdict == "warn"


@pytest.mark.parametrize("name", ["sh", "dash", "bash"])
def test_the_line_that_tries_a_shell_is_understood_by_one(name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here")
    ran = subprocess.run([name, "-c", health_checks.PROBE], capture_output=True, text=True, timeout=150, check=False)

    assert health_checks.shell(ran.returncode, ran.stdout).verdict == "ok"


def test_a_shell_that_is_none_or_talks_is_named() -> None:
    assert health_checks.shell(0, "Welcome!\na shell\n").text.startswith("its start-up files print 'Welcome!'")
    assert health_checks.shell(127, "fish: Unsupported use of '='\n").text.endswith("fish: Unsupported use of '='\"")
    assert health_checks.shell(0, "").verdict == "FAIL"


def test_an_error_that_ends_with_a_command_is_parted_from_it() -> None:
    assert health_checks.advised("a: it is not known, accept it by\n  echo b >> c", "a") == (
        "it is not known, accept it by",
        "echo b >> c",
    )
    assert health_checks.advised("a: it does not answer", "a") == ("it does not answer", "")


# ---------------------------------------------------------------- the script, run here


def told(name: str, home: Path, needs: HostRequirements = NEEDS, folder: str = "", path: str | None = None) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here")
    environment = {"HOME": str(home), "PATH": path or os.environ["PATH"]}
    words = [str(shutil.which(name)), "-c", health_checks.script(needs, folder)]
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=150, check=True)
    assert ran.stderr == ""
    return ran.stdout


@pytest.mark.parametrize("name", ["sh", "dash", "bash"])
def test_this_machine_is_well_by_the_script(name: str, tmp_path: Path) -> None:
    needs = replace(NEEDS, python="{}.{}".format(*sys.version_info), suffix=str(sysconfig.get_config_var("EXT_SUFFIX")))
    path = f"{Path(sys.executable).resolve().parent}:{os.environ['PATH']}"
    found = {each.check: each for each in health_checks.judged(told(name, tmp_path, needs, path=path), needs)}

    assert (found["python"].verdict, found["system"].verdict, found["tools"].verdict) == ("ok", "ok", "ok")
    assert str(tmp_path) in found["disk"].text
    assert not list(tmp_path.iterdir())  # it only looks


@pytest.mark.parametrize("name", ["sh", "dash", "bash"])
def test_the_script_finds_what_is_not_there(name: str, tmp_path: Path) -> None:
    needs = replace(NEEDS, python="3.99")
    (tmp_path / "file").touch()
    found = {
        each.check: each for each in health_checks.judged(told(name, tmp_path, needs, f"{tmp_path}/file/a"), needs)
    }

    assert found["python"].text.startswith("there is no CPython 3.99")
    assert found["disk"].verdict == "FAIL"
