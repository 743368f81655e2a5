"""Whom a tunnel trusts, and by which way it comes: as `ssh`, but never trusting a first key."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from skyward.providers.ssh.tunnel import Target, Tunnel
from tests.lab.conftest import Hosts
from tests.lab.host import Host
from tests.lab.lab import Key, Lab
from tests.lab.scenes import opened, refusal, within

pytestmark = pytest.mark.timeout(120)


def test_a_host_key_that_is_not_known_is_refused_with_the_line_that_accepts_it(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(port=2222)
    empty = lab.folder / "empty"
    empty.touch()
    config = lab.folder / "config-empty"
    config.write_text(f"Host *\n  UserKnownHostsFile {empty}\n" + lab.config.read_text())
    to = replace(lab.destination(host), config=(str(config),))
    said = asyncio.run(refusal(to))

    assert "is not known" in said
    assert said.endswith(f"echo '{host.place} {host.key}' >> {empty}")
    empty.write_text(f"{host.place} {host.key}\n")
    within(lambda: opened(to, lambda tunnel: tunnel.up()))


@pytest.mark.parametrize(
    "wish", ["StrictHostKeyChecking no", "StrictHostKeyChecking accept-new", "UserKnownHostsFile none"]
)
def test_no_configuration_makes_it_trust_a_first_key(host: Host, lab: Lab, wish: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host {host.name}\n  {wish}\n  UserKnownHostsFile {tmp_path / 'none'}\n" + lab.config.read_text()
    )

    assert "is not known" in asyncio.run(refusal(replace(lab.destination(host), config=(str(config),))))
    assert not (tmp_path / "none").exists()


def test_a_host_key_that_has_changed_is_refused_with_the_place_of_the_old_one(host: Host, lab: Lab) -> None:
    other = Key()
    host.change_key(other.private, other.public)
    said = asyncio.run(refusal(lab.destination(host)))

    assert "has changed" in said
    assert f"{lab.known_hosts} (line 1)" in said
    assert f"ssh-keygen -f {lab.known_hosts} -R '{host.place}' && echo '{host.place} {other.public}'" in said


def test_only_the_key_that_was_given_is_trusted(host: Host, lab: Lab) -> None:
    to = Target(host.address, user="ubuntu", keys=(lab.key("ubuntu").read_bytes(),), config=(), agent=False)

    within(lambda: opened(replace(to, trust=f"* {host.key}"), lambda tunnel: tunnel.up()))
    assert "a host key other than" in asyncio.run(refusal(replace(to, trust=f"* {Key().public}")))


def test_a_login_that_is_not_allowed_is_refused_at_once(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(accounts=("ubuntu", "mallory"))
    to = replace(lab.destination(host), user="mallory")  # with the key of ubuntu

    assert "login as mallory failed" in asyncio.run(refusal(to))
    within(lambda: opened(lab.destination(host, "mallory"), lambda tunnel: tunnel.up()))


def test_a_host_behind_another_is_reached_as_ssh_would(hosts: Hosts, lab: Lab) -> None:
    (jump,) = hosts(name="jump")
    (inner,) = hosts(name="inner", behind=jump)

    async def scene(tunnel: Tunnel) -> None:
        assert (await tunnel.run("hostname")).stdout == "inner\n"

    within(lambda: opened(lab.destination(inner), scene))
    by_hand = replace(lab.destination(inner), jump=f"ubuntu@{jump.name}")
    within(lambda: opened(by_hand, scene))


def test_jump_hosts_that_lead_in_a_circle_are_refused(host: Host, lab: Lab, tmp_path: Path) -> None:
    config = tmp_path / "config"
    to = Target(host.name, config=(str(config),))
    config.write_text(f"Host {host.name}\n  ProxyJump other\nHost other\n  ProxyJump {host.name}\n")

    assert "jump hosts form a loop" in asyncio.run(refusal(to))
    config.write_text("Host *\n  ProxyJump other\n")
    assert "jumphost loop via other" in asyncio.run(refusal(to))
