"""`skyward doctor ssh`, told of real hosts: of each what is right and what is wrong with it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.conftest import Hosts
from tests.lab.host import Host
from tests.lab.lab import Key, Lab

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]
DISK = "2g"


@dataclass(frozen=True)
class Told:
    """What the command has said, by machine and check."""

    code: int
    found: dict[str, dict[str, dict[str, str]]]

    def wrong(self, machine: str) -> dict[str, str]:
        return {check: each["verdict"] for check, each in self.found[machine].items() if each["verdict"] != "ok"}


def doctor(*words: str | Path) -> Told:
    command = [sys.executable, "-m", "skyward", "doctor", "ssh", *map(str, words), "--json"]
    # no agent, and no uv but one that is installed for this Python
    environment = {"PYTHONPATH": str(ROOT), "HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=80, check=False)
    assert ran.stderr == ""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for each in json.loads(ran.stdout):
        found.setdefault(each["machine"], {})[each["check"]] = each
    return Told(ran.returncode, found)


def test_hosts_that_are_well_are_said_to_be_and_left_as_they_were(hosts: Hosts, lab: Lab) -> None:
    machines = hosts(3, python=True, disk=DISK)
    told = doctor(*(host.name for host in machines), "--config", lab.config)

    assert {name: told.wrong(name) for name in told.found} == {name: {} for name in told.found}
    assert told.code == 0
    assert list(told.found["here"]) == ["extra"]
    checks = ["key", "name", "port", "host key", "login", "round trip", "forwarding", "shell", "files", "clock"]
    for host in machines:
        assert list(told.found[host.name]) == [*checks, "system", "tools", "python", "disk", "memory"]
        assert host.run("find /home/ubuntu -newer /run/sshd.pid -type f") == ""


def test_each_host_is_told_apart_from_the_others(hosts: Hosts, lab: Lab) -> None:
    names = ["well", "changed", "dead", "deaf", "bare", "full"]
    well, changed, dead, deaf, bare, full = (
        hosts(name=name, python=name != "bare", disk=DISK, accounts=("ubuntu", "mallory"))[0] for name in names
    )
    other = Key()
    changed.change_key(other.private, other.public)
    dead.kill()
    deaf.stop_sshd()
    full.fill()
    told = doctor(*names, "--config", lab.config)

    assert told.code == 1
    assert {name: told.wrong(name) for name in names} == {
        "well": {},
        "changed": {"host key": "FAIL"},
        "dead": {"port": "FAIL"},
        "deaf": {"port": "FAIL"},
        "bare": {"python": "warn" if (Path(sys.executable).parent / "uv").exists() else "FAIL"},
        "full": {"disk": "FAIL"},
    }
    assert f"-R '{changed.place}' && echo '{changed.place} {other.public}'" in told.found["changed"]["host key"]["fix"]
    assert "check whether it is on" in told.found["dead"]["port"]["fix"]
    assert told.found["deaf"]["port"]["text"] == "port 22: Connection refused"
    assert well.name == "well"
    assert bare.name == "bare"


def test_the_fix_of_an_unknown_key_accepts_it(host: Host, lab: Lab, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host *\n  UserKnownHostsFile {tmp_path / 'known'}\n" + lab.config.read_text())
    told = doctor(host.name, "--config", config)
    assert told.wrong(host.name) == {"host key": "FAIL"}
    assert "is not known" in told.found[host.name]["host key"]["text"]

    subprocess.run(told.found[host.name]["host key"]["fix"], shell=True, check=True)
    assert "host key" not in doctor(host.name, "--config", config).wrong(host.name)


def test_who_may_not_log_in_is_named_with_what_to_do(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(accounts=("ubuntu", "mallory"))
    told = doctor(host.name, "--user", "mallory", "--key", lab.key("ubuntu"), "--config", lab.config)

    assert told.wrong(f"{host.name}") == {"login": "FAIL"}
    assert "login as mallory failed" in told.found[host.name]["login"]["text"]
    assert f"ssh-copy-id mallory@{host.address}" in told.found[host.name]["login"]["fix"]


def test_what_a_host_lacks_or_forbids_is_named(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(python=True, disk=DISK, sshd="# no Subsystem\nAllowTcpForwarding no\n")
    late = "#!/bin/sh\necho $(($(/bin/date +%s) - 3600))"
    host.run(f"cat >/usr/local/bin/date <<'END'\n{late}\nEND\nchmod 755 /usr/local/bin/date")
    host.run("rm /usr/bin/setsid; mkdir -m 755 /home/ubuntu/.cache")
    told = doctor(host.name, "--config", lab.config)

    verdicts = {"forwarding": "FAIL", "files": "warn", "clock": "warn", "tools": "warn", "disk": "FAIL"}
    assert told.wrong(host.name) == verdicts
    assert "3600 s behind" in told.found[host.name]["clock"]["text"]
    assert told.found[host.name]["disk"]["text"] == "ubuntu cannot write to /home/ubuntu/.cache"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "echo 'echo Welcome' >/home/ubuntu/.bashrc; usermod -s /bin/bash ubuntu",
            "its start-up files print 'Welcome'",
        ),
        ("usermod -s /usr/bin/python3.12 ubuntu", "the login shell is not a POSIX shell"),
    ],
)
def test_a_shell_that_our_scripts_would_not_run_in_is_named(hosts: Hosts, lab: Lab, change: str, said: str) -> None:
    (host,) = hosts(python=True, disk=DISK)
    host.run(change)
    told = doctor(host.name, "--config", lab.config)

    assert told.wrong(host.name) == {"shell": "FAIL"}
    assert told.found[host.name]["shell"]["text"].startswith(said)


def test_a_host_behind_another_is_examined_through_it(hosts: Hosts, lab: Lab) -> None:
    (gate,) = hosts(name="gate")
    (inner,) = hosts(name="inner", behind=gate, python=True, disk=DISK)
    told = doctor(inner.name, "--config", lab.config)

    assert told.code == 0
    assert told.found["inner"]["way"]["text"] == "through gate"
