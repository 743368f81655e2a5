"""A link that can be slow, silent or cut: a forward between driver and node, and a provider whose nodes are behind one.

It stands where a tunnel stands. What passes is encrypted, so a moment is chosen by what passed: so many bytes that way.
"""

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent import futures
from typing import Any, Literal, Self

import uvloop

from skyward.providers.local import Local, LocalHost, LocalProcess
from skyward.providers.provider import Content, Instance, Order

CHUNK = 64 << 10

type Way = Literal["there", "back"]
"""`there` is from the driver to the node."""


class Forward:
    """One loopback port that leads to another. Its methods may be called from any thread, and return when it is done.

    Attributes
    ----------
    port
        The port to connect to.
    delay
        Seconds that every byte takes, each way.
    rate
        Bytes that pass each way in a second; 0 for as many as there are.
    passed
        Bytes that went each way.
    arrived
        Bytes that came out at the node's end.
    cuts
        How often it was cut.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, target: int, delay: float) -> None:
        self._loop, self._target, self.delay = loop, target, delay
        self._bound = _bound(0)  # it never listens, and keeps the port ours while the link is down
        self.port: int = self._bound.getsockname()[1]
        self.rate = 0.0
        self.passed: dict[Way, int] = {"there": 0, "back": 0}
        self.arrived = 0
        self.cuts = 0
        self._marks: deque[tuple[Way, int]] = deque()
        self._cut_by_mark: float | None = None
        self._server: asyncio.Server | None = None
        self._lives: set[asyncio.Task[None]] = set()
        self._clear = asyncio.Event()
        self._clear.set()

    async def open(self) -> Self:
        """Let connections in."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=_bound(self.port))
        return self

    def cut(self, down: float = 0.0) -> None:
        """Break every connection, and refuse new ones for `down` seconds."""
        self._do(self._cut(down))

    def cut_after(self, *marks: tuple[Way, int], down: float = 0.0) -> None:
        """Cut once so many bytes have passed each way in turn. What reaches a mark of one byte is lost with the link.

        `("back", 300_000), ("there", 1)` is: after an answer of so many bytes, before the driver says another word.
        """
        self._do(self._arm(marks, down))

    def freeze(self) -> None:
        """Swallow nothing and pass nothing on, until `thaw`."""
        self._loop.call_soon_threadsafe(self._clear.clear)

    def thaw(self) -> None:
        """Pass on what was held back, and all that comes."""
        self._loop.call_soon_threadsafe(self._clear.set)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    async def _arm(self, marks: Sequence[tuple[Way, int]], down: float) -> None:
        self._marks, self._cut_by_mark = deque(marks), down

    async def _cut(self, down: float) -> None:
        self.cuts += 1
        if down and self._server is not None:
            self._server.close()
            self._server = None
            self._loop.call_later(down, lambda: self._loop.create_task(self.open()))
        for life in self._lives:
            life.cancel()

    async def close(self) -> None:
        """End it."""
        if self._server is not None:
            self._server.close()
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)
        self._bound.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        life = asyncio.current_task()
        assert life is not None
        self._lives.add(life)
        ends = [writer]
        try:
            await self._clear.wait()
            over, on = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(on)
            pumps = (self._pump("there", reader, on), self._pump("back", over, writer))
            async with asyncio.TaskGroup() as both:
                for pump in pumps:
                    both.create_task(pump)
        except* (OSError, EOFError):
            pass
        except* asyncio.CancelledError:
            pass
        finally:
            self._lives.discard(life)
            for end in ends:
                end.transport.abort()

    async def _pump(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read, and write each piece when its time has come."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1000)

        async def write() -> None:
            while True:
                due, data = await held.get()
                await self._clear.wait()
                if (rest := due - self._loop.time()) > 0:
                    await asyncio.sleep(rest)
                writer.write(data)
                await writer.drain()
                self.arrived += len(data) if way == "there" else 0
                if self.rate:
                    await asyncio.sleep(len(data) / self.rate)

        writing = asyncio.create_task(write())
        try:
            while data := await reader.read(CHUNK):
                await self._clear.wait()
                if self._is_marked(way, len(data)):
                    await self._cut(self._cut_by_mark or 0.0)
                    await asyncio.Event().wait()
                self.passed[way] += len(data)
                await held.put((self._loop.time() + self.delay, data))
            raise EOFError
        finally:
            writing.cancel()

    def _is_marked(self, way: Way, size: int) -> bool:
        """Whether this piece reaches the last mark."""
        if not self._marks or self._marks[0][0] != way:
            return False
        left = self._marks[0][1] - size
        if left > 0:
            self._marks[0] = way, left
            return False
        self._marks.popleft()
        return not self._marks


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


class Links:
    """A thread with a loop for forwards, and `sky.Local` with each node behind one: give `provider` to a `Compute`.

    Parameters
    ----------
    folder
        Where the nodes make their scratch folders.
    delay
        Seconds that every byte takes, each way.

    Attributes
    ----------
    latest
        The last forward to each node that was made, by number of node.
    hold_back
        Called, in a thread, before a machine is let go of: while it waits, a lost node can still be heard.
    """

    def __init__(self, folder: object = None, *, delay: float = 0.0) -> None:
        self.delay = delay
        self.latest: dict[int, Forward] = {}
        self.provider = _Distant(Local(folder=folder), self)  # type: ignore[arg-type]
        self.hold_back: Callable[[], object] = lambda: None
        self._made: list[Forward] = []
        self._started: futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = futures.Future()
        self._thread = threading.Thread(target=uvloop.run, args=(self._main(),), name="forwards", daemon=True)

    async def make(self, node: int, target: int) -> Forward:
        """Make a forward to a node; called on the pool's loop."""
        made = asyncio.run_coroutine_threadsafe(self._make(target), self._loop)
        self.latest[node] = forward = await asyncio.wrap_future(made)
        return forward

    async def _make(self, target: int) -> Forward:
        self._made.append(Forward(self._loop, target, self.delay))
        return await self._made[-1].open()

    async def _main(self) -> None:
        closing = asyncio.Event()
        self._started.set_result((asyncio.get_running_loop(), closing))
        await closing.wait()
        for forward in self._made:
            await forward.close()

    def __enter__(self) -> Self:
        self._thread.start()
        self._loop, self._closing = self._started.result(60)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(60)


class _Distant:
    """`sky.Local`, but for the way to its nodes."""

    name = "distant"
    bare = False

    def __init__(self, local: Local, links: Links) -> None:
        self._local, self._links = local, links

    async def launch(self, order: Order) -> Instance:
        return await self._local.launch(order)

    async def reach(self, instance: Instance) -> "_DistantHost":
        return _DistantHost(await self._local.reach(instance), self._links, int(instance.name.split("-")[-2]))

    async def find(self, pool: str) -> Sequence[Instance]:
        return await self._local.find(pool)

    async def terminate(self, instance: Instance) -> None:
        await self._local.terminate(instance)


class _DistantHost:
    tethered = True
    shares_memory = False

    def __init__(self, host: LocalHost, links: Links, node: int) -> None:
        self._host, self._links, self._node = host, links, node
        self.folder, self.python = host.folder, host.python

    def acknowledged(self) -> int:
        return self._links.latest[self._node].arrived

    async def write(self, files: Mapping[str, Content]) -> None:
        await self._host.write(files)

    async def start(self, command: Sequence[str]) -> LocalProcess:
        return await self._host.start(command)

    async def tunnel(self, port: int) -> int:
        return (await self._links.make(self._node, port)).port

    async def close(self) -> None:
        """Let go of the machine; a test may have it wait, so that what the node still says is heard."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(self._links.hold_back), 20)
        await self._host.close()
