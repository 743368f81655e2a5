"""The lab is what it says it is."""

import os
import socket
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.lab import limits
from tests.lab.conftest import Hosts
from tests.lab.host import Host, until
from tests.lab.lab import Key, Lab

pytestmark = pytest.mark.timeout(60)

type Ssh = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ssh(lab: Lab) -> Ssh:
    """The ssh of this machine, with the lab's configuration."""

    def run(host: Host, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        words = ["ssh", "-F", str(lab.config), *options, "-o", "ConnectTimeout=2", host.name, command]
        return subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)

    return run


def test_a_host_has_its_own_name_address_files_and_processes(host: Host, ssh: Ssh) -> None:
    asked = ssh(host, "hostname; id -un; ls -A /root /opt /srv | wc -w; ip -o -4 addr show dev eth0; ps -e | wc -l")

    name, account, *_ = asked.stdout.split()
    assert (asked.returncode, name, account) == (0, host.name, "ubuntu")
    assert host.address in asked.stdout
    assert int(asked.stdout.split()[-1]) < 15


def test_ten_hosts_start_together(hosts: Hosts) -> None:
    started = hosts(10)

    assert len({host.address for host in started}) == 10
    assert all(host.is_alive and host.listens(22) for host in started)


def test_nothing_leads_out_of_the_lab(host: Host) -> None:
    assert "default" not in host.run("ip route")
    assert subprocess.run(["ip", "route", "get", "192.0.2.1"], capture_output=True, check=False).returncode != 0


def test_only_the_first_account_may_use_sudo_and_each_has_its_own_key(hosts: Hosts, lab: Lab, ssh: Ssh) -> None:
    host = hosts(accounts=("ubuntu", "mallory"))[0]
    as_mallory = ("-l", "mallory", "-i", str(lab.key("mallory")))

    assert ssh(host, "sudo id -u").stdout == "0\n"
    assert ssh(host, "id -un", *as_mallory).stdout == "mallory\n"
    assert ssh(host, "sudo -n id -u", *as_mallory).returncode != 0
    assert ssh(host, "ls /home/ubuntu /run/lab", *as_mallory).stdout == ""
    assert ssh(host, "true", "-l", "mallory").returncode != 0


def test_a_host_key_is_known_before_the_host_is_and_another_is_refused(host: Host, lab: Lab, ssh: Ssh) -> None:
    assert ssh(host, "true").returncode == 0
    other = Key()
    host.change_key(other.private, other.public)

    assert "HAS CHANGED" in ssh(host, "true").stderr


def test_a_host_behind_another_is_reached_through_it_alone(hosts: Hosts, ssh: Ssh) -> None:
    (jump,) = hosts(name="jump")
    (inner,) = hosts(name="inner", behind=jump)

    assert ssh(inner, "hostname").stdout == "inner\n"
    assert ssh(inner, "hostname", "-o", "ProxyJump=none").returncode != 0


def test_a_cut_lasts_as_long_as_it_is_told(host: Host, ssh: Ssh) -> None:
    began = time.monotonic()
    host.cut(1.0)

    assert ssh(host, "true", "-o", "ConnectTimeout=10").returncode == 0
    assert time.monotonic() - began > 1.0


def test_a_frozen_host_does_nothing_and_goes_on_when_thawed(host: Host, ssh: Ssh) -> None:
    host.freeze()
    assert ssh(host, "true").returncode != 0
    assert all(_state(pid) == "T" for pid in host.processes())
    host.thaw()

    assert ssh(host, "true", "-o", "ConnectTimeout=10").returncode == 0


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_a_killed_host_is_gone_with_all_its_processes(host: Host) -> None:
    pids = [host.pid, *host.processes()]
    host.kill()

    assert not host.is_alive
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def test_what_sshd_started_outlives_it(host: Host, ssh: Ssh) -> None:
    pid = ssh(host, "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $!").stdout.strip()
    host.stop_sshd()
    assert "refused" in ssh(host, "true").stderr
    host.start_sshd()

    assert ssh(host, f"kill -0 {pid} && echo alive").stdout == "alive\n"


def test_a_wiped_host_still_lets_in(host: Host, ssh: Ssh) -> None:
    ssh(host, "mkdir -p ~/a/b /tmp/c && touch ~/a/b/file /tmp/c/file")
    host.wipe()

    assert ssh(host, "ls ~ /tmp").stdout.split() == ["/home/ubuntu:", "/tmp:"]


def test_a_rebooted_host_has_its_address_and_key_but_not_its_files(host: Host, ssh: Ssh) -> None:
    ssh(host, "touch ~/file")
    host.reboot()

    assert ssh(host, "ls -A ~; echo up").stdout.split()[-1] == "up"
    assert "file" not in ssh(host, "ls ~").stdout


def test_a_full_disk_takes_nothing_more_until_there_is_space(host: Host, ssh: Ssh) -> None:
    host.fill()
    assert "No space" in ssh(host, "head -c 100000 /dev/zero > ~/file").stderr
    host.unfill()

    assert ssh(host, "head -c 100000 /dev/zero > ~/file").returncode == 0


def test_a_slow_link_takes_its_time_both_ways(hosts: Hosts) -> None:
    (host,) = hosts(slow=True)
    host.slow(delay=0.05)
    began = time.monotonic()
    with socket.create_connection((host.address, 22), timeout=5):
        assert time.monotonic() - began >= 0.1


def test_memory_of_a_host_can_be_limited(hosts: Hosts, ssh: Ssh) -> None:
    if reason := limits.why_not():
        pytest.skip(reason)
    (host,) = hosts(memory=200 << 20)

    assert ssh(host, "python3 -c 'bytearray(100 << 20)'").returncode == 0
    assert ssh(host, "python3 -c 'bytearray(400 << 20)'").returncode != 0
    assert ssh(host, "echo alive").stdout == "alive\n"


def test_a_host_may_have_a_python_of_its_own(hosts: Hosts, ssh: Ssh) -> None:
    (host,) = hosts(python=True)
    asked = ssh(host, "python3.12 -c 'import sys, ssl, sqlite3; print(sys.executable)'")

    assert asked.stdout == "/usr/bin/python3.12\n", asked.stderr


def test_user_data_runs_as_root(hosts: Hosts) -> None:
    (host,) = hosts(userdata=b"id -u > /opt/ran")

    until(lambda: host.run("cat /opt/ran 2>/dev/null || true") == "0\n", "the script ran")
