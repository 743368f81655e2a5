"""Connections to a real sshd on this machine: by the configuration of `ssh`, and what becomes of commands and files."""

import asyncio
import getpass
import os
import re
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import psutil
import pytest

import skyward as sky
from skyward.cli.doctor import needs
from skyward.errors import Unreachable
from skyward.providers.health_checks import Finding
from skyward.providers.provider import Order
from skyward.providers.ssh.host_doctor import examine
from skyward.providers.ssh.target import NotAllowed, Refused, Target
from skyward.providers.ssh.tunnel import Lost, Tunnel
from tests import kit, sshd
from tests.sshd import Sshd

pytestmark = pytest.mark.skipif(sshd.MISSING is not None, reason=sshd.MISSING or "")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd.running(tmp_path_factory.mktemp("sshd")) as started:
        yield started


def opened(to: Target, scene: Callable[[Tunnel], Coroutine[Any, Any, None]]) -> None:
    """Run something with a tunnel."""

    async def main() -> None:
        async with asyncio.timeout(50):
            tunnel = await Tunnel(to).open()
            try:
                await scene(tunnel)
            finally:
                await tunnel.close()

    asyncio.run(main())


async def until(true: Callable[[], object], every: float = 0.01) -> None:
    """Look until it is true: there is no event for what goes on in other processes."""
    async with asyncio.timeout(kit.SOON):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(every)


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
    with pytest.raises(NotAllowed, match="failed: /not-there is not there: correct its IdentityFile in the configurat"):
        opened(to, answers)


# ---------------------------------------------------------------- keys that need something


@pytest.fixture
def locked(server: Sshd, tmp_path: Path) -> Path:
    """The key that may log in, with a passphrase."""
    key = tmp_path / "locked"
    key.touch(0o600)
    key.write_bytes(server.key.read_bytes())
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(key)], check=True, timeout=kit.SOON)
    return key


@contextmanager
def an_agent(folder: Path, *keys: Path) -> Iterator[str]:
    """Run an agent that holds these keys, and return its socket."""
    path = str(folder / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # then it listens

            async def add() -> None:
                async with asyncssh.connect_agent(path) as asked:
                    await asked.add_keys([asyncssh.read_private_key(str(key)) for key in keys])

            asyncio.run(add())
            yield path
        finally:
            process.terminate()


def named(server: Sshd, key: Path, **more: Any) -> Target:
    """Return the server, to be logged in to with this key."""
    return replace(server.destination(), keys=(str(key),), **more)


def test_a_key_that_needs_a_passphrase_is_named_with_what_gives_it_to_the_agent(
    server: Sshd, locked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = f"login as {getpass.getuser()} failed: {locked} needs a passphrase: give it to the agent with "
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(NotAllowed, match=re.escape(f'{denied}eval "$(ssh-agent)"; ssh-add {locked}')):
        opened(named(server, locked, agent=True), answers)
    with an_agent(tmp_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with pytest.raises(NotAllowed, match=re.escape(f"{denied}ssh-add {locked}") + "$"):
            opened(named(server, locked, agent=True), answers)
        to = server.config(f"Host box\n  HostName 127.0.0.1\n  Port {server.port}\n  IdentityAgent {path}\n")
        config = Path(str((to.config or ("",))[0]))
        config.write_text(config.read_text().replace(f"IdentityFile {server.key}", f"IdentityFile {locked}"))
        with pytest.raises(NotAllowed, match=re.escape(f"{denied}ssh-add {locked}") + "$"):
            opened(to, answers)


def test_a_key_that_needs_a_passphrase_is_used_when_the_agent_has_it(
    server: Sshd, locked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with an_agent(tmp_path, server.key) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        opened(named(server, locked, agent=True), answers)


def test_without_any_key_it_is_said_that_there_is_none(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    to = server.config(f"Host box\n  HostName 127.0.0.1\n  Port {server.port}\n")
    config = Path(str((to.config or ("",))[0]))
    config.write_text(config.read_text().replace(f"IdentityFile {server.key}", "IdentityFile none"))
    with pytest.raises(NotAllowed, match="there is no key to log in with, in no file and with no agent"):
        opened(to, answers)


KEYS = {
    "public": ("ssh-ed25519 AAAA me\n", r"public is a public key: name the private one$"),
    "key.pub": ("ssh-ed25519 AAAA me\n", r"key.pub is a public key: name the private one, .*/key$"),
    "key.ppk": (
        "PuTTY-User-Key-File-3: x\n",
        r"key.ppk is a key of PuTTY: convert it with puttygen .*/key.ppk -O priv",
    ),
    "rubbish": ("rubbish", r"rubbish is not a private key that can be read here \(.*\): give another key$"),
}


@pytest.mark.parametrize(("name", "text", "said"), [(name, *rest) for name, rest in KEYS.items()], ids=KEYS)
def test_what_is_named_as_a_key_and_is_none_is_refused_with_what_it_is(
    server: Sshd, tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(Refused, match=f"127.0.0.1:{server.port}: {tmp_path}/{said}"):
        opened(named(server, tmp_path / name), answers)


def test_doctor_says_what_is_wrong_with_keys(
    server: Sshd, locked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(to: Target) -> Finding:
        return next(each for each in asyncio.run(examine(to, needs())) if each.check == "key")

    said = found(named(server, locked))
    assert (said.verdict, said.text) == ("FAIL", f"{locked} needs a passphrase")
    assert said.fix == f"give it to the agent with ssh-add {locked}"
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    to = server.config(f"Host box\n  HostName 127.0.0.1\n  Port {server.port}\n")
    config = Path(str((to.config or ("",))[0]))
    config.write_text(config.read_text().replace(f"IdentityFile {server.key}", f"IdentityFile {locked}"))
    checks = {each.check: each for each in asyncio.run(examine(to, needs()))}
    assert (checks["key"].verdict, checks["login"].verdict) == ("warn", "FAIL")
    assert checks["key"].text == f"no key can be used: {locked} needs a passphrase"
    assert (
        checks["key"].fix == checks["login"].fix == f'give it to the agent with eval "$(ssh-agent)"; ssh-add {locked}'
    )
    (opened_to_all := tmp_path / "open").write_bytes(server.key.read_bytes())
    opened_to_all.chmod(0o644)
    said = found(named(server, opened_to_all))
    assert (said.verdict, said.text) == ("warn", f"others can read {opened_to_all}, which ssh refuses")
    assert said.fix == f"chmod 600 {opened_to_all}"
    assert found(server.destination()) == Finding("key", "ok", str(server.key))


# ---------------------------------------------------------------- what becomes of commands and files


def test_commands_that_are_cancelled_are_ended_and_give_their_sessions_back(server: Sshd) -> None:
    """For root too, whose sessions sshd sends no signals to."""

    async def scene(tunnel: Tunnel) -> None:
        pids = server.folder / "pids"
        pids.touch()
        for _ in range(12):
            before = len(pids.read_text().split())
            run = asyncio.create_task(tunnel.run(f"trap '' TERM; echo $$ >>{pids}; sleep 600; sleep 600"))
            await until(lambda before=before: len(pids.read_text().split()) > before)  # type: ignore[misc]
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
        await asyncio.gather(*(answers(tunnel) for _ in range(10)))
        await until(lambda: not any(is_running(int(pid)) for pid in pids.read_text().split()))

    opened(server.destination(), scene)


def test_a_command_that_is_cancelled_at_once_is_ended(server: Sshd) -> None:
    async def scene(tunnel: Tunnel) -> None:
        for delay in (0.0, 0.001, 0.005, 0.01, 0.02, 0.03) * 4:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(tunnel.run("exec sleep 600 # cancelled"), delay)
        await asyncio.gather(*(answers(tunnel) for _ in range(10)))
        await until(lambda: not server.commands())

    opened(server.destination(), scene)


def test_a_command_that_is_followed_ends_when_its_tunnel_is_closed(server: Sshd) -> None:
    async def scene(tunnel: Tunnel) -> None:
        process = await tunnel.start("echo $$; exec sleep 600")
        lines = process.lines()
        pids.append(int((await anext(lines))[1]))

    pids: list[int] = []
    opened(server.destination(), scene)
    kit.until(lambda: not is_running(pids[0]))


def test_what_the_shell_prints_of_its_own_stays_what_it_prints(server: Sshd) -> None:
    async def scene(tunnel: Tunnel) -> None:
        ran = await tunnel.run("echo out; echo err >&2; cat; exit 3", stdin=b"given")
        assert (ran.code, ran.stdout, ran.stderr) == (3, "out\ngiven", "err\n")
        process = await tunnel.start("printf 'one\\ntwo'; exit 4")
        assert [line async for line in process.lines()] == [("stdout", "one"), ("stdout", "two")]
        assert await process.wait() == 4
        assert (await tunnel.run("kill -9 $$")).code == -9

    opened(server.destination(), scene)


def test_a_command_whose_connection_is_cut_has_no_exit_code_but_is_lost(server: Sshd) -> None:
    async def scene(tunnel: Tunnel) -> None:
        process = await tunnel.start("echo begun; exec sleep 600")
        await anext(process.lines())
        runs = [asyncio.create_task(tunnel.run("exec sleep 600")) for _ in range(3)]
        server.cut()
        for run in runs:
            with pytest.raises(Lost):
                await run
        with pytest.raises(Lost):
            await process.wait()
        await answers(tunnel)  # by a new connection

    opened(server.destination(), scene)


@pytest.mark.parametrize("has_sftp", [True, False])
def test_a_file_whose_transfer_is_cut_is_not_there(tmp_path: Path, has_sftp: bool) -> None:
    more = [] if has_sftp else ["Subsystem other /bin/false"]
    folder = tmp_path / "there"

    async def scene(tunnel: Tunnel) -> None:
        data = os.urandom(40 << 20)
        put = asyncio.create_task(tunnel.put(str(folder), {"large": data}))
        await until(lambda: any(each.stat().st_size for each in folder.glob("*")), 0.0)
        started.cut()
        with pytest.raises(Lost):
            await put
        assert not (folder / "large").exists()
        await tunnel.put(str(folder), {"large": data})
        assert (folder / "large").read_bytes() == data
        assert (folder / "large").stat().st_mode & 0o777 == 0o600

    with sshd.running(tmp_path, *more) as started:
        opened(started.destination(), scene)


def is_running(pid: int) -> bool:
    """Whether it lives, and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_machine_that_cannot_be_used_is_named_when_another_takes_its_place(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        provider = sky.SSH(hosts=["no..such", "127.0.0.1:1"])
        with pytest.raises(Refused) as refused:
            await provider.reach(await provider.launch(Order(pool="pool", name="pool-0-0")))
        assert not refused.value.final

    asyncio.run(main())
    told = "using another machine in place of no..such: the host name 'no..such' is unknown. Is it spelled right?"
    assert told in caplog.messages


def test_machines_that_fail_at_the_same_time_name_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyward.providers.ssh.ssh.OTHER_ATTEMPTS_S", kit.SOON)

    async def main() -> None:
        both = asyncio.Barrier(2)

        async def together(tunnel: object) -> None:
            await both.wait()

        monkeypatch.setattr("skyward.providers.ssh.remote_host.shut", together)
        provider = sky.SSH(hosts=["127.0.0.1:1", "127.0.0.1:2"])
        instances = [await provider.launch(Order(pool="pool", name=f"pool-{number}-0")) for number in range(2)]
        errors = await asyncio.gather(*map(provider.reach, instances), return_exceptions=True)
        assert [len(str(error).splitlines()) for error in errors] == [3, 3]

    asyncio.run(main())


def test_one_error_names_each_machine_that_cannot_be_reached_with_its_own_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("skyward.providers.ssh.ssh.OTHER_ATTEMPTS_S", kit.SOON)
    unknown = "no..such: the host name 'no..such' is unknown. Is it spelled right?"
    refusing = "127.0.0.1:1: cannot connect to 127.0.0.1:1: connection refused. Is sshd running there?"
    also = "Other machines that cannot be reached:"

    async def main() -> None:
        provider = sky.SSH(hosts=["no..such", "127.0.0.1:1"])
        instances = [await provider.launch(Order(pool="pool", name=f"pool-{number}-0")) for number in range(2)]
        errors = await asyncio.gather(*map(provider.reach, instances), return_exceptions=True)
        assert [str(error).splitlines() for error in errors] == [
            [unknown, also, f"  {refusing}"],
            [refusing, also, f"  {unknown}"],
        ]
        assert [type(error) for error in errors] == [Refused, Unreachable]
        one_by_one = []
        for generation in range(1, 3):
            for instance in instances:
                await provider.terminate(instance)
            instances = [await provider.launch(Order(pool="other", name=f"other-0-{generation}"))]
            with pytest.raises(Unreachable) as failed:
                await provider.reach(instances[0])
            one_by_one.append(str(failed.value).splitlines())
        assert one_by_one == [[unknown], [refusing, also, f"  {unknown}"]]

    asyncio.run(main())
