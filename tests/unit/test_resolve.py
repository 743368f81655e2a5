"""What the configuration makes of a destination; no connection is made."""

import os
import shutil
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skyward.errors import Unreachable
from skyward.providers.ssh import resolve
from skyward.providers.ssh.resolve import ResolvedTarget
from skyward.providers.ssh.target import Target

REAL_HOME = resolve.home

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh to ask")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, without an agent."""
    monkeypatch.setattr(resolve, "home", lambda: str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def of(home: Path, text: str, host: str = "box", **more: object) -> ResolvedTarget:
    (home / "config").write_text(text)
    return ResolvedTarget.of(replace(Target(host, config=(str(home / "config"),)), **more))  # type: ignore[arg-type]


PLACES = {
    "an alias": ("Host box\n  HostName 10.0.0.5\n  Port 2200\n  User bob\n", "bob@10.0.0.5:2200"),
    "a trailing comment": ("Host box # mine\n  Port 2200 # not the usual\n  User bob\n", "bob@box:2200"),
    "a quoted value": ("Host box\n  User 'bob'\n  HostName \"10.0.0.5\"\n", "bob@10.0.0.5:22"),
    "a negated pattern": ("Host * !box\n  Port 2200\nHost *\n  Port 2201\n  User bob\n", "bob@box:2201"),
    "times": ("Host *\n  ServerAliveInterval 1m\n  ConnectTimeout 1m\n  Port 2200\n  User bob\n", "bob@box:2200"),
    "tokens": ("Host *\n  HostName %h.example.org\n  User bob\n", "bob@box.example.org:22"),
    "Match final": (
        "Match final host 10.0.0.5\n  Port 2200\nHost box\n  HostName 10.0.0.5\n  User bob\n",
        "bob@10.0.0.5:2200",
    ),
    "Match exec with tokens": (
        'Host box\n  HostName 10.0.0.5\nMatch exec "test %h:%n = 10.0.0.5:box"\n  Port 2200\nMatch all\n  User bob\n',
        "bob@10.0.0.5:2200",
    ),
    "Match exec that fails": ("Match exec false\n  Port 2200\nHost *\n  User bob\n", "bob@box:22"),
    "Match originalhost and user": (
        "Host *\n  User bob\nMatch originalhost b*x user bob\n  Port 2200\n",
        "bob@box:2200",
    ),
    "Match !host": ("Match !host other user *\n  Port 2200\nMatch all\n  User bob\n", "bob@box:2200"),
    "CanonicalizeHostname": (
        "CanonicalizeHostname yes\nMatch canonical\n  Port 2200\nHost *\n  HostName 127.0.0.1\n  User bob\n",
        "bob@127.0.0.1:2200",
    ),
}


@pytest.mark.parametrize(("text", "place"), PLACES.values(), ids=PLACES)
def test_a_host_is_where_ssh_finds_it(home: Path, text: str, place: str) -> None:
    plan = of(home, text)

    assert f"{plan.user}@{plan.host}:{plan.port}" == place


def test_other_files_are_included(home: Path) -> None:
    (home / "more").write_text("Host box\n  Port 2200\n")

    assert of(home, f"Include {home}/mo*\nHost *\n  Port 2201\n").port == 2200


def test_match_final_reads_again_what_a_jump_host_is(home: Path) -> None:
    plan = of(home, "Match final host 10.0.0.5\n  ProxyJump gate:2222\n  Port 2200\nHost box\n  HostName 10.0.0.5\n")

    assert (plan.jump, plan.port, plan.direct) == ("gate:2222", 2200, False)


def test_what_is_said_goes_before_the_configuration(home: Path) -> None:
    plan = of(home, "Host *\n  Port 2200\n  User bob\nMatch user alice\n  HostName 10.0.0.5\n", port=22, user="alice")

    assert (plan.host, plan.port, plan.user, plan.name) == ("10.0.0.5", 22, "alice", "10.0.0.5")


def test_without_a_configuration_a_destination_is_what_it_says() -> None:
    plan = ResolvedTarget.of(Target("gpu-box", 2222, "alice", config=()))

    assert (plan.host, plan.port, plan.user, plan.name) == ("gpu-box", 2222, "alice", "[gpu-box]:2222")
    assert (plan.direct, plan.algorithms, plan.settings) == (True, {}, {})


def test_a_user_without_a_name_and_a_home_has_no_keys_and_no_known_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", dict[int, Any]().__getitem__)
    monkeypatch.setattr(resolve, "home", REAL_HOME)
    plan = ResolvedTarget.of(Target("box", user="alice", config=()))

    assert (plan.host, plan.user, plan.keys) == ("box", "alice", [])
    assert [each for each in plan.files if each.startswith("~")] == plan.files[:2]


@pytest.mark.parametrize(("jump", "found"), [(None, "gate"), ("", ""), ("a@[fe80::1]:22,two", "a@[fe80::1]:22,two")])
def test_jump_hosts_that_are_said_go_before_those_of_the_configuration(
    home: Path, jump: str | None, found: str
) -> None:
    assert of(home, "Host box\n  ProxyJump gate\n", jump=jump).jump == found


def test_a_proxy_command_is_run_by_the_shell_as_by_ssh(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/dash")
    plan = of(home, "Host box\n  HostName 10.0.0.5\n  ProxyCommand nc -x 'a b' %h %p %n %%\n")

    assert plan.proxy == ["/bin/dash", "-c", "exec nc -x 'a b' 10.0.0.5 22 box %"]
    assert not plan.direct
    assert not of(home, "Host box\n  ProxyCommand nc %h %p\n", jump="gate").proxy


def test_keys_are_those_that_are_there(home: Path) -> None:
    (home / "my key").touch()
    (home / "box-22").touch()
    text = 'Host *\n  IdentityFile "~/my key"\n  IdentityFile ~/not-there\n  IdentityFile %d/%n-%p\n'

    assert of(home, text).keys == [str(home / "my key"), str(home / "box-22")]
    assert of(home, "IdentityFile none\n").keys == []
    given = of(home, text, keys=("/given",))
    assert (given.keys, given.given) == (("/given",), True)


def test_a_variable_of_the_environment_is_replaced(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYWARD_TEST_KEY", "key")
    (home / "key").touch()

    assert of(home, "IdentityFile ~/${SKYWARD_TEST_KEY}\n").keys == [str(home / "key")]


@pytest.mark.parametrize(
    ("text", "agent"),
    [
        ("", ""),
        ("IdentityAgent none", None),
        ("IdentityAgent SSH_AUTH_SOCK", ""),
        ("IdentityAgent $SKYWARD_TEST_AGENT", "/agent"),
        ("IdentityAgent /agent-%n-100%%", "/agent-box-100%"),
    ],
)
def test_the_agent_is_the_one_of_the_configuration(
    home: Path, text: str, agent: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYWARD_TEST_AGENT", "/agent")

    assert of(home, text).agent == agent
    assert of(home, text, agent=False).agent is None


def test_host_keys_are_in_the_files_of_the_configuration(home: Path) -> None:
    named = of(home, f"UserKnownHostsFile ~/one {home}/of-%h\nGlobalKnownHostsFile none\nHostKeyAlias pool\n")

    assert named.files[1:] == [f"{home}/of-box"]
    assert of(home, "").files[-2:] == ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"]
    assert (named.name, of(home, "", alias="other").name) == ("pool", "other")


def test_timeouts_addresses_and_algorithms_are_taken(home: Path) -> None:
    text = "ConnectTimeout 1m\nAddressFamily inet\nBindAddress 127.0.0.1\nCiphers aes256-ctr\nKexAlgorithms -ecdh*\n"
    plan = of(home, text)

    assert (plan.connect_timeout, plan.family.name, plan.bind) == (60.0, "AF_INET", "127.0.0.1")  # type: ignore[attr-defined]
    assert plan.algorithms["ciphers"] == ["aes256-ctr"]
    assert "curve25519-sha256" in plan.algorithms["kexalgorithms"]
    assert plan.algorithms.keys() == {"ciphers", "kexalgorithms"}
    assert of(home, "").connect_timeout == resolve.TCP_CONNECT_TIMEOUT_S


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Host box\n  Prot 2200\n", r"config: line 2: Bad configuration option: prot"),
        ("RevokedHostKeys /keys\n", "says revokedhostkeys, which Skyward does not support"),
        ("IdentityFile %z\n", "has '%z' in '%z'"),
    ],
)
def test_what_cannot_be_followed_is_said(home: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        of(home, text)


@pytest.mark.parametrize("name", ["$(true)", "a;b", "-oX", "a b", "`a`"])
def test_a_name_that_a_shell_would_act_on_is_refused(home: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a host"):
        of(home, 'Match exec "echo %h"\n', host=name)
    with pytest.raises(ValueError, match="is not the name of a user"):
        of(home, "", user=name)


def test_a_configuration_that_hangs_is_given_up_with_what_it_started(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "RESOLVE_TIMEOUT_S", 2.0)
    with pytest.raises(Unreachable, match=r"box: `ssh -G` did not answer within 2 s; does a `Match exec` hang"):
        of(home, f'Match exec "echo $$ > {home}/pid; exec sleep 600"\n  Port 2200\n')

    pid, deadline = int((home / "pid").read_text()), time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}") and "sleep" in Path(f"/proc/{pid}/cmdline").read_text():
        assert time.monotonic() < deadline


def test_several_files_are_refused() -> None:
    with pytest.raises(ValueError, match="give one, which may include others"):
        ResolvedTarget.of(Target("box", config=("/a", "/b")))


# ---------------------------------------------------------------- without ssh


@pytest.fixture
def no_ssh(monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    monkeypatch.setattr(resolve, "program", lambda: None)
    return home


def test_without_ssh_a_simple_configuration_is_read(no_ssh: Path) -> None:
    plan = of(no_ssh, "Host box\n  HostName 10.0.0.5\n  Port 2200\n  User bob\n")

    assert (plan.host, plan.port, plan.user) == ("10.0.0.5", 2200, "bob")
    assert of(no_ssh, "Host *\n  Port 2200\n  User bob\n", port=22, user="alice").name == "box"


def test_without_ssh_what_is_not_understood_is_said(no_ssh: Path) -> None:
    with pytest.raises(
        ValueError, match=r"config, line 3: 'match' .+ needs the program `ssh`, which is not installed here"
    ):
        of(no_ssh, "Host box\n  Port 2200\nMatch final\n  Port 2201\n")
    with pytest.raises(ValueError, match="/not-there: No such file"):
        ResolvedTarget.of(Target("box", config=("/not-there",)))


def test_without_ssh_the_usual_files_are_read(no_ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "CONFIG", ("~/.ssh/config", "/not-there"))
    (no_ssh / ".ssh" / "config").write_text("Host box\n  Port 2200\n")
    (no_ssh / ".ssh" / "id_ed25519").touch()
    plan = ResolvedTarget.of(Target("box"))

    assert plan.port == 2200
    assert plan.keys == [f"{no_ssh}/.ssh/id_ed25519"]


def test_a_program_that_is_no_ssh_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = home / "ssh"
    other.write_text("#!/bin/sh\necho 'unknown option -G' >&2; exit 1\n")
    other.chmod(other.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(home), prepend=os.pathsep)
    with pytest.raises(ValueError, match="`ssh -G` says: unknown option -G"):
        of(home, "")
