"""Connections to a real sshd on this machine: by the configuration of `ssh`, and what becomes of commands and files."""

import asyncio
import getpass
import re
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skyward.providers.destination import Destination, Refused
from skyward.providers.tunnel import Tunnel
from tests import sshd
from tests.sshd import Sshd

pytestmark = pytest.mark.skipif(sshd.MISSING is not None, reason=sshd.MISSING or "")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd.running(tmp_path_factory.mktemp("sshd")) as started:
        yield started


def opened(to: Destination, scene: Callable[[Tunnel], Coroutine[Any, Any, None]]) -> None:
    """Run something with a tunnel."""

    async def main() -> None:
        async with asyncio.timeout(50):
            tunnel = await Tunnel(to).open()
            try:
                await scene(tunnel)
            finally:
                await tunnel.close()

    asyncio.run(main())


async def answers(tunnel: Tunnel) -> None:
    """See that a command runs there."""
    assert (await tunnel.run("echo here")).stdout == "here\n"


CONFIGS = {
    "an alias": "Host box\n  HostName 127.0.0.1\n  Port {port}\n",
    "comments and times": "Host box # mine\n  HostName 127.0.0.1\n  Port {port} # its\n  ServerAliveInterval 1m\n",
    "Match final": "Match final host 127.0.0.1\n  Port {port}\nHost box\n  HostName 127.0.0.1\n",
    "Match exec": 'Host box\n  HostName 127.0.0.1\nMatch exec "test %h = 127.0.0.1"\n  Port {port}\n',
    "ProxyJump": "Host box gate\n  HostName 127.0.0.1\n  Port {port}\nHost box\n  ProxyJump gate\n",
    "ProxyJump and Match final": (
        "Match final originalhost box host 127.0.0.1\n  ProxyJump gate\nMatch final host 127.0.0.1\n  Port {port}\n"
        "Host box gate\n  HostName 127.0.0.1\n"
    ),
    "a proxy command": (
        "Host box\n  HostName 127.0.0.1\n  Port {port}\n"
        "  ProxyCommand ssh -F {folder}/config -o 'StrictHostKeyChecking yes' -l {user} -W %h:%p gate\n"
        "Host gate\n  HostName 127.0.0.1\n  Port {port}\n"
    ),
    "chosen algorithms": "Host box\n  HostName 127.0.0.1\n  Port {port}\n  Ciphers aes256-ctr\n  MACs hmac-sha2-512\n",
}


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_a_host_of_the_configuration_is_reached(server: Sshd, text: str) -> None:
    said = text.format(port=server.port, folder=server.folder, user=getpass.getuser())
    opened(replace(server.config(said + "\nHost gate\n  User " + getpass.getuser())), answers)


@pytest.mark.parametrize("wish", ["StrictHostKeyChecking no", "StrictHostKeyChecking accept-new", "CheckHostIP no"])
def test_no_configuration_makes_it_trust_a_first_key(server: Sshd, wish: str) -> None:
    text = f"Host box\n  HostName 127.0.0.1\n  Port {server.port}\n  {wish}\n  NoHostAuthenticationForLocalhost yes\n"
    with pytest.raises(Refused, match="its host key is not known") as refused:
        opened(server.config(text, known=""), answers)
    assert f"echo '[127.0.0.1]:{server.port} {server.host_key}' >> {server.folder}/known" in str(refused.value)


def test_a_configuration_that_ssh_does_not_accept_is_refused_with_its_line(server: Sshd) -> None:
    with pytest.raises(Refused, match=r"box: `ssh -G` says: .*config: line 2: Bad configuration option: prot"):
        opened(server.config("Host box\n  Prot 22\n"), answers)


def test_a_key_that_is_named_and_not_there_does_not_make_it_take_others(server: Sshd) -> None:
    text = f"Host box\n  HostName 127.0.0.1\n  Port {server.port}\n  IdentityFile /not-there\n"
    to = server.config(text)
    config = Path(str((to.config or ("",))[0]))
    config.write_text(re.sub("  IdentityFile /.*/key\n", "", config.read_text()))
    with pytest.raises(Refused, match="may not log in"):
        opened(to, answers)
