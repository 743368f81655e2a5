"""When a connection is replaced and requests are repeated; over a real wire it is in `tests/chaos/test_links.py`."""

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from casty import ConnectionLost, Unavailable

from skyward.actors import connection
from skyward.actors.connection import NodeConnection
from skyward.errors import Unreachable
from skyward.remote.node import gateway
from skyward.remote.protocol import Beat, Facts, Look, Seen

FACTS = Facts(2, 0, 0, 0.5, 1 << 30)
HOUR = 3600.0

type Answers = Literal["yes", "never", "gone"]


class Wire:
    """A client of a node and the actors that it reaches there. It answers, never answers, or says that all is gone."""

    def __init__(self, answers: Answers = "yes", *, slowly: int = 0, refusals: int = 0) -> None:
        self.answers, self.slowly, self.refusals = answers, slowly, refusals
        self.asked: list[object] = []
        self.asking: asyncio.Queue[object] = asyncio.Queue()
        self.is_open = False
        self.received = 0
        self.observer: Any = None

    async def __aenter__(self) -> "Wire":
        self.is_open = True
        return self

    async def __aexit__(self, *error: object) -> None:
        self.is_open = False

    def ref(self, definition: object, key: str, at: str) -> "Wire":
        return self

    def stats(self) -> SimpleNamespace:
        self.received += self.slowly
        return SimpleNamespace(bytes_sent=0, bytes_received=self.received)

    async def is_asked(self, kind: type) -> None:
        """Wait for a request of this kind that nobody has waited for before."""
        while not isinstance(await self.asking.get(), kind):
            pass

    async def ask(self, message: object) -> object:
        self.asked.append(message)
        self.asking.put_nowait(message)
        if isinstance(message, Look) and self.refusals:
            self.refusals -= 1
            raise Unavailable("busy")
        if self.answers == "gone":
            raise Unavailable("it is gone")
        if self.answers == "never":
            await asyncio.Event().wait()
        return FACTS if isinstance(message, Beat) else Seen(())


class Node:
    """A connection over these wires, one after the other, and what it says."""

    def __init__(self, *wires: Wire) -> None:
        self.wires = list(wires)
        self.heard: list[bool] = []
        self.changed = asyncio.Event()
        self.connection = NodeConnection(
            self._make,
            lambda client, address: client.ref(gateway.gateway, "actor", at=address),
            cluster="pool-0-0",
            address="127.0.0.1:4711",
            heard=self._hear,
        )

    def _make(self, observer: Any) -> Any:
        wire = self.wires.pop(0)
        wire.observer = observer
        return wire

    def _hear(self, alive: bool) -> None:
        self.heard.append(alive)
        self.changed.set()


def run(wires: Sequence[Wire], story: Callable[[Node], Any]) -> Node:
    """The node after the story, which is told while its connection is open and watched."""

    async def main() -> Node:
        node = Node(*wires)
        await node.connection.open(HOUR)
        watching = asyncio.create_task(node.connection.watch())
        try:
            await asyncio.wait_for(story(node), 30)
        finally:
            watching.cancel()
            await asyncio.wait({watching})
            await node.connection.close()
        return node

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REPEAT_DELAY_S", 0.0)
    monkeypatch.setattr(connection, "HEARTBEAT_INTERVAL_S", HOUR)


def test_an_answer_is_returned_over_the_connection_that_was_opened() -> None:
    wire = Wire()

    async def look(node: Node) -> None:
        assert await node.connection.ask(Look(), HOUR) == Seen(())

    node = run([wire], look)

    assert [type(each) for each in wire.asked] == [Beat, Look]
    assert node.heard == []
    assert not wire.is_open


def test_a_node_that_does_not_accept_the_connection_is_unreachable() -> None:
    async def main() -> None:
        node = Node(Wire("gone"))
        with pytest.raises(Unreachable, match="node pool-0-0 does not accept the connection: Unavailable"):
            await node.connection.open(HOUR)
        await node.connection.close()

    asyncio.run(main())


def test_a_connection_that_is_down_is_replaced_and_the_request_repeated() -> None:
    first, second, third = Wire(), Wire("gone"), Wire()

    async def lose(node: Node) -> None:
        first.answers = "gone"
        assert await node.connection.ask(Look(), HOUR) == Seen(())
        while node.heard != [False, True]:
            node.changed.clear()
            await node.changed.wait()
        assert third.is_open

    run([first, second, third], lose)

    assert Look in map(type, third.asked)
    assert not any(wire.is_open for wire in (first, second, third))


def test_a_connection_that_still_answers_is_kept_when_a_request_fails() -> None:
    wire = Wire(refusals=2)

    async def look(node: Node) -> None:
        assert await node.connection.ask(Look(), HOUR) == Seen(())

    assert run([wire], look).heard == []
    assert [type(each) for each in wire.asked].count(Look) == 3


def test_a_dead_connection_is_replaced_though_nothing_says_that_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEARTBEAT_INTERVAL_S", 0.001)
    first, second = Wire(), Wire()

    async def die(node: Node) -> None:
        first.answers = "never"
        assert await node.connection.ask(Look(), HOUR) == Seen(())

    assert run([first, second], die).heard[0] is False


def test_a_connection_that_is_only_busy_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEARTBEAT_INTERVAL_S", 0.001)
    wire = Wire(slowly=connection.MIN_LIVE_BYTES)

    async def keep_busy(node: Node) -> None:
        wire.answers = "never"
        for _ in range(4):
            await wire.is_asked(Beat)

    assert run([wire], keep_busy).heard == []


def test_what_waits_is_asked_again_when_casty_says_that_the_connection_was_lost() -> None:
    wire = Wire()

    async def lose(node: Node) -> None:
        wire.answers = "never"
        asking = asyncio.create_task(node.connection.ask(Look(), HOUR))
        await wire.is_asked(Look)
        wire.answers = "yes"
        wire.observer(object.__new__(ConnectionLost))
        assert await asking == Seen(())

    run([wire], lose)

    assert [type(each) for each in wire.asked].count(Look) == 2
