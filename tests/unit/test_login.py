"""What a configuration makes of a destination; no connection is made."""

import os
from pathlib import Path

import pytest

from skyward.providers import login
from skyward.providers.destination import Destination
from skyward.providers.login import Plan


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, without an agent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(login, "CONFIG", (str(tmp_path / ".ssh" / "config"),))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def configured(home: Path, text: str) -> None:
    (home / ".ssh" / "config").write_text(text)


def test_without_a_configuration_a_destination_is_what_it_says() -> None:
    plan = Plan.of(Destination("gpu-box", 2222, "alice"))

    assert (plan.options.host, plan.options.port, plan.options.username) == ("gpu-box", 2222, "alice")
    assert plan.name == "[gpu-box]:2222"


def test_an_alias_is_what_the_configuration_says(home: Path) -> None:
    configured(home, "Host gpu-box\n  HostName 10.0.0.5\n  Port 2200\n  User bob\n  ProxyJump bastion\n")
    plan = Plan.of(Destination("gpu-box"))

    assert (plan.options.host, plan.options.port, plan.options.username) == ("10.0.0.5", 2200, "bob")
    assert plan.options.tunnel == "bastion"
    assert plan.name == "[10.0.0.5]:2200"


def test_what_is_said_goes_before_the_configuration(home: Path) -> None:
    configured(home, "Host *\n  Port 2200\n  User bob\n")
    plan = Plan.of(Destination("gpu-box", 22, "alice"))

    assert (plan.options.port, plan.options.username) == (22, "alice")
    assert plan.name == "gpu-box"


def test_no_configuration_at_all_is_read_when_none_is_wanted(home: Path) -> None:
    configured(home, "Host *\n  Port 2200\n")

    assert Plan.of(Destination("gpu-box", config=())).options.port == 22


def test_keys_that_are_not_there_are_passed_over_as_by_ssh(home: Path) -> None:
    (home / "there").touch()
    configured(home, "Host *\n  IdentityFile ~/there\n  IdentityFile ~/not-there\n")

    assert Plan.of(Destination("gpu-box")).more["client_keys"] == [str(home / "there")]


def test_the_agent_is_not_asked_when_only_keys_that_are_not_there_may_be_used(home: Path) -> None:
    configured(home, "Host *\n  IdentityFile ~/not-there\n  IdentitiesOnly yes\n")

    assert Plan.of(Destination("gpu-box")).more["agent_path"] is None


def test_the_agent_is_not_asked_when_it_may_not_be() -> None:
    assert Plan.of(Destination("gpu-box", agent=False)).more["agent_path"] is None
    assert "agent_path" not in Plan.of(Destination("gpu-box")).more


def test_host_keys_come_from_the_usual_files(home: Path) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFfVu/0AvvCLrgWRN46HyqH6zC4OtzyRFNNC+0+LpJiu"
    (home / ".ssh" / "known_hosts").write_text(f"this is no key\ngpu-box {key}\nbroken\n")
    plan = Plan.of(Destination("gpu-box"))

    assert plan.files[0] == os.path.join(home, ".ssh", "known_hosts")
    assert [len(keys) for keys in plan.trust.match("gpu-box", "", 22)[:3]] == [1, 0, 0]
    assert not any(plan.trust.match("other", "", 22))


def test_a_host_key_alias_is_the_name_that_is_looked_for(home: Path) -> None:
    configured(home, "Host *\n  HostKeyAlias pool\n")

    assert Plan.of(Destination("gpu-box", 2222)).name == "pool"
    assert Plan.of(Destination("gpu-box", alias="other")).name == "other"
