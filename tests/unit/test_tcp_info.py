"""What gets through a connection is known, and so is one that is dead."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
import uvloop

from skyward.providers.ssh import tcp_info as module
from skyward.providers.ssh.tcp_info import MIN_BUSY_BYTES, silence, traffic


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
        other, _ = server.accept()
        with other:
            yield one, other


def test_what_gets_through_is_counted(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    before = traffic(one)
    one.sendall(bytes(1000))
    assert len(other.recv(1000, socket.MSG_WAITALL)) == 1000
    other.sendall(bytes(300))
    assert len(one.recv(300, socket.MSG_WAITALL)) == 300  # it acknowledges as well

    after = traffic(one)
    assert before is not None
    assert after is not None
    assert (after.acknowledged - before.acknowledged, after.received - before.received) == (1000, 300)


def test_of_what_is_no_connection_nothing_is_known(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = socket.socketpair()
    assert traffic(one) is None
    one.close()
    other.close()
    ends[0].close()
    assert traffic(ends[0]) is None
    assert traffic(None) is None


def test_of_a_transport_that_is_closed_nothing_is_known(ends: tuple[socket.socket, socket.socket]) -> None:
    async def scenario() -> None:
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ends[0])
        held = transport.get_extra_info("socket")
        assert traffic(held) is not None
        transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert traffic(held) is None

    uvloop.run(scenario())


@pytest.mark.parametrize("says", [b"", b"x"])
def test_a_connection_over_which_nothing_comes_is_dead(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, says: bytes
) -> None:
    monkeypatch.setattr(module, "KEEPALIVE_INTERVAL_S", 0.01)
    one, other = ends

    async def scenario() -> None:
        async def speak() -> None:
            while True:  # what is sent and acknowledged, but never answered, is no sign of life
                one.sendall(says)
                other.recv(10, socket.MSG_DONTWAIT) if says else None
                await asyncio.sleep(0.005)

        speaking = asyncio.create_task(speak())
        await asyncio.wait_for(silence(one), 5)
        speaking.cancel()

    asyncio.run(scenario())


@pytest.mark.parametrize(("there", "back"), [(2 * MIN_BUSY_BYTES, 0), (0, 1)])
def test_one_that_something_gets_through_is_not(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, there: int, back: int
) -> None:
    monkeypatch.setattr(module, "KEEPALIVE_INTERVAL_S", 0.05)
    one, other = ends

    async def scenario() -> None:
        waiting = asyncio.create_task(silence(one))
        for _ in range(40):
            one.sendall(bytes(there))
            other.recv(there, socket.MSG_WAITALL)
            other.sendall(bytes(back))
            one.recv(back)
            await asyncio.sleep(0.01)
        assert not waiting.done()
        waiting.cancel()

    asyncio.run(scenario())
