"""A tunnel to real hosts: what it carries, and what becomes of it when the way is cut."""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from skyward.errors import Unreachable
from skyward.providers.ssh.tunnel import Lost, Refused, Tunnel
from tests.lab.conftest import Hosts
from tests.lab.host import Host, until
from tests.lab.lab import Key, Lab
from tests.lab.scenes import opened, within

pytestmark = pytest.mark.timeout(120)

ECHO = """
import socket, threading
server = socket.create_server(("127.0.0.1", 5000))
def serve(line):
    while data := line.recv(65536):
        line.sendall(data)
    line.close()
while True:
    threading.Thread(target=serve, args=[server.accept()[0]]).start()
"""


def listen(host: Host) -> None:
    """Have something on the host that sends back what it is sent."""
    host.run(f"setsid python3 -c '{ECHO}' </dev/null >/dev/null 2>&1 &")
    until(lambda: host.listens(5000), "the peer listens")


type Scene = Callable[[Callable[[Tunnel], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def on(host: Host, lab: Lab) -> Scene:
    """Run something with a tunnel to the host, within a deadline."""

    return lambda scene: on_host(host, lab, scene)


def on_host(host: Host, lab: Lab, scene: Callable[[Tunnel], Coroutine[Any, Any, None]]) -> None:
    within(lambda: opened(lab.destination(host), scene))


async def echo(port: int, text: bytes = b"hello") -> bytes:
    """What comes back through a forward, b"" if it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(text)
        writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


async def flood(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(bytes(1 << 20))
        await writer.drain()


async def echoed(port: int) -> None:
    """Wait until there is an answer."""
    async with asyncio.timeout(15):
        while await echo(port) != b"hello":  # noqa: ASYNC110 - there is no event: to try is to know
            await asyncio.sleep(0.05)


# ---------------------------------------------------------------- what it carries


def test_a_command_has_its_exit_code_and_both_outputs(on: Scene) -> None:
    async def scene(tunnel: Tunnel) -> None:
        ran = await tunnel.run("cat; echo oops >&2; exit 3", stdin=b"given\n")
        assert (ran.code, ran.stdout, ran.stderr) == (3, "given\n", "oops\n")
        assert (await tunnel.run(["printf", "%s", "a b;c"])).stdout == "a b;c"
        assert (await tunnel.run("kill -9 $$")).code == -9

    on(scene)


@pytest.mark.parametrize("account", ["ubuntu", "root"])
def test_a_command_that_is_cancelled_is_ended_and_gives_its_session_back(hosts: Hosts, lab: Lab, account: str) -> None:
    (host,) = hosts(accounts=(account,), sshd="PermitRootLogin yes\n")

    async def scene(tunnel: Tunnel) -> None:
        for _ in range(12):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(tunnel.run("sleep 1000"), 0.1)
        assert (await tunnel.run("echo on")).stdout == "on\n"

    on_host(host, lab, scene)
    until(lambda: not any("sleep" in command for command in host.processes().values()), "they have ended")


def test_a_command_is_read_line_by_line_until_it_ends(on: Scene) -> None:
    async def scene(tunnel: Tunnel) -> None:
        process = await tunnel.start("echo one; echo two >&2; printf three; exit 4")
        lines = {line async for line in process.lines()}
        assert lines == {("stdout", "one"), ("stderr", "two"), ("stdout", "three")}
        assert await process.wait() == 4

    on(scene)


def test_more_commands_than_sshd_has_sessions_wait_their_turn(on: Scene) -> None:
    async def scene(tunnel: Tunnel) -> None:
        ran = await asyncio.gather(*(tunnel.run(f"echo {number}") for number in range(60)))
        assert [int(each.stdout) for each in ran] == list(range(60))

    on(scene)


def test_files_arrive_whole_and_are_readable_by_nobody_else(on: Scene, host: Host) -> None:
    files = {f"{number}": os.urandom(2000) for number in range(50)} | {"deep/down/large": os.urandom(20 << 20)}

    async def scene(tunnel: Tunnel) -> None:
        await tunnel.put("/home/ubuntu/run/1", files)
        await tunnel.put("/home/ubuntu/run/1", {"0": b"again"})

    on(scene)
    listed = host.run("cd /home/ubuntu/run/1 && find . -printf '%m %y %s %P\\n'").splitlines()
    assert {line[:5] for line in listed} == {"600 f", "700 d"}
    assert sum(line.startswith("600") for line in listed) == 51
    assert host.run("cat /home/ubuntu/run/1/0") == "again"


def test_files_are_not_written_into_a_folder_that_others_may_enter(on: Scene, host: Host) -> None:
    async def scene(tunnel: Tunnel) -> None:
        host.run("mkdir -m 777 /tmp/open && mkdir -m 700 /tmp/roots && ln -s /home/ubuntu/.ssh /tmp/link")
        for folder in ("/tmp/open", "/tmp/roots", "/tmp/link"):
            with pytest.raises(OSError, match="not a folder of this user alone"):
                await tunnel.put(folder, {"secret": b"x"})

    on(scene)


def test_a_full_disk_is_named(on: Scene, host: Host) -> None:
    async def scene(tunnel: Tunnel) -> None:
        await tunnel.put("/home/ubuntu/run", {})
        host.fill()
        with pytest.raises(OSError, match=r"(?i)no space left"):
            await tunnel.put("/home/ubuntu/run", {"file": bytes(1 << 20)})
        host.unfill()
        await tunnel.put("/home/ubuntu/run", {"file": bytes(1 << 20)})

    on(scene)


@pytest.mark.parametrize("sshd", ["# no Subsystem", "Subsystem sftp /nowhere"])
def test_without_sftp_files_are_written_by_commands(hosts: Hosts, lab: Lab, sshd: str) -> None:
    (host,) = hosts(sshd=f"{sshd}\n")
    test_files_arrive_whole_and_are_readable_by_nobody_else(lambda scene: on_host(host, lab, scene), host)
    test_files_are_not_written_into_a_folder_that_others_may_enter(lambda scene: on_host(host, lab, scene), host)
    test_a_full_disk_is_named(lambda scene: on_host(host, lab, scene), host)
    assert host.run("find /home/ubuntu -name '*.part'") == ""


def test_a_file_of_which_the_connection_brings_a_part_does_not_appear(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(sshd="# no Subsystem\n", slow=True)
    run = "/home/ubuntu/run"

    async def scene(tunnel: Tunnel) -> None:
        await tunnel.put(run, {})
        host.slow(rate=1e6)
        putting = asyncio.create_task(tunnel.put(run, {"file": bytes(20 << 20)}))
        await asyncio.to_thread(until, lambda: host.run(f"find {run} -name '*.part' -size +100k"), "a part is there")
        await asyncio.to_thread(host.restart_sshd)
        with pytest.raises(Lost):
            await putting
        host.slow()
        await asyncio.to_thread(until, lambda: host.run(f"ls -A {run}") == "", "the part is gone")

    on_host(host, lab, scene)


def test_it_knows_what_the_machine_has_received(on: Scene, host: Host) -> None:
    async def scene(tunnel: Tunnel) -> None:
        before = tunnel.acknowledged()
        assert len(await echo(await tunnel.forward(5000), bytes(1 << 20))) == 1 << 20
        assert 1 << 20 <= tunnel.acknowledged() - before < 2 << 20
        await tunnel.close()
        assert tunnel.acknowledged() == 0

    listen(host)
    on(scene)


def test_a_forward_carries_many_connections_at_once(on: Scene, host: Host) -> None:
    async def scene(tunnel: Tunnel) -> None:
        port = await tunnel.forward(5000)
        texts = [os.urandom(300_000) for _ in range(20)]
        assert await asyncio.gather(*(echo(port, text) for text in texts)) == texts
        assert port == await tunnel.forward(5000)

    listen(host)
    on(scene)


def test_a_forward_to_nothing_connects_and_ends(on: Scene, host: Host) -> None:
    async def scene(tunnel: Tunnel) -> None:
        port = await tunnel.forward(5000)
        assert await echo(port) == b""
        listen(host)
        assert await echo(port) == b"hello"

    on(scene)


def test_whoever_does_not_read_stops_the_sender_and_not_the_others(on: Scene, host: Host) -> None:
    async def scene(tunnel: Tunnel) -> None:
        port = await tunnel.forward(5000)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(writer), 2)
        assert await echo(port) == b"hello"
        assert reader.at_eof() is False
        writer.transport.abort()

    listen(host)
    on(scene)


# ---------------------------------------------------------------- when the way is cut


def test_a_short_cut_costs_time_and_nothing_else(on: Scene, host: Host) -> None:
    async def scene(tunnel: Tunnel) -> None:
        host.cut(2.0)
        assert (await tunnel.run("echo there")).stdout == "there\n"

    on(scene)


def test_a_dead_host_is_noticed_within_ten_seconds_and_a_command_is_lost(on: Scene, host: Host) -> None:
    async def scene(tunnel: Tunnel) -> None:
        running = asyncio.create_task(tunnel.run("sleep 1000"))
        process = await tunnel.start("echo up; sleep 1000")
        async for line in process.lines():
            assert line == ("stdout", "up")
            break
        began = time.monotonic()
        host.freeze()
        with pytest.raises(Lost):
            await running
        with pytest.raises(Lost):
            await process.wait()
        assert time.monotonic() - began < 10
        with pytest.raises(Lost):
            await tunnel.run("true", within=0.1)
        host.thaw()
        await tunnel.up(20)
        assert (await tunnel.run("echo back")).stdout == "back\n"

    on(scene)


def test_a_forward_keeps_its_port_when_sshd_restarts(host: Host, lab: Lab) -> None:
    heard: list[str | None] = []

    async def scene() -> None:
        tunnel = await Tunnel(lab.destination(host), changed=heard.append).open()
        port = await tunnel.forward(5000)
        assert await echo(port) == b"hello"
        for _ in range(2):
            host.restart_sshd()
            await echoed(port)
        assert heard == ["the connection was lost", None] * 2
        await tunnel.close()

    listen(host)
    within(scene)


def test_connections_through_a_forward_end_when_the_tunnel_is_lost(on: Scene, host: Host) -> None:
    async def scene(tunnel: Tunnel) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", await tunnel.forward(5000))
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        host.stop_sshd()
        async with asyncio.timeout(5):
            with pytest.raises((ConnectionError, EOFError)):
                await reader.readexactly(1)
        writer.transport.abort()

    listen(host)
    on(scene)


def test_a_machine_that_comes_back_with_another_key_is_not_trusted_again(host: Host, lab: Lab) -> None:
    async def scene() -> None:
        told, other = asyncio.Event(), Key()
        tunnel = await Tunnel(
            lab.destination(host), changed=lambda why: told.set() if why and "changed" in why else None
        ).open()
        host.change_key(other.private, other.public)
        await asyncio.wait_for(told.wait(), 10)
        with pytest.raises(Refused, match="has changed"):
            await tunnel.run("true")
        await tunnel.close()

    within(scene)


def test_a_tunnel_whose_keeper_fails_says_so_and_is_over(
    host: Host, lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        told = asyncio.Event()

        def changed(why: str | None) -> None:
            if why == "the connection was lost":
                raise LookupError("a bug")
            told.set()

        tunnel = await Tunnel(lab.destination(host), changed=changed).open()
        host.restart_sshd()
        await asyncio.wait_for(told.wait(), 10)
        with pytest.raises(Unreachable, match="the tunnel failed: LookupError: a bug"):
            await tunnel.run("true")
        await tunnel.close()

    within(scene)
    assert "the tunnel failed" in caplog.text


def test_a_machine_that_boots_is_waited_for_as_long_as_one_is_told(host: Host, lab: Lab) -> None:
    async def scene() -> None:
        host.stop_sshd()
        with pytest.raises(Unreachable):
            await Tunnel(lab.destination(host)).open(0.5)
        host.stop_sshd(1.0)
        tunnel = await Tunnel(lab.destination(host)).open(20)
        await tunnel.close()

    within(scene)


def test_letting_go_of_a_dead_host_takes_no_time(on: Scene, host: Host) -> None:
    async def scene(tunnel: Tunnel) -> None:
        host.cut()
        began = time.monotonic()
        await tunnel.close()
        assert time.monotonic() - began < 2
        with pytest.raises(Lost):
            await tunnel.run("true")

    on(scene)


def test_a_slow_and_lossy_link_carries_everything(hosts: Hosts, lab: Lab) -> None:
    (host,) = hosts(slow=True)
    listen(host)

    async def scene(tunnel: Tunnel) -> None:
        host.slow(delay=0.04, loss=0.01)
        text = os.urandom(1 << 20)
        assert await echo(await tunnel.forward(5000), text) == text

    within(lambda: opened(lab.destination(host), scene))
