"""The line to an actor of one node: asks until there is an answer, over as many connections as that takes.

A cut connection loses what was on the wire without a word, so whatever waits is asked again as soon as one is lost:
every request may be repeated. After a long break casty dials only every 15 s, so a line that is down is replaced.

What is long takes its time on a slow line, and all that is asked meanwhile waits behind it. While bytes get through,
nothing is late.
"""

import asyncio
import contextlib
import logging
import weakref
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from casty import (
    TLS,
    ActivationEnded,
    ActivationStarted,
    Askable,
    Client,
    ConnectionLost,
    Event,
    Observer,
    Ref,
    Refused,
    Runtime,
    System,
    Unavailable,
)

from skyward.actors.tls import IdentityFiles
from skyward.errors import Unreachable
from skyward.remote.node import gateway
from skyward.remote.protocol import COMPRESSION, LIMITS, Beat, Facts

log = logging.getLogger("skyward")

HEARTBEAT_INTERVAL_S = 2.0
"""Seconds between two beats, and how long one may take."""

REPEAT_DELAY_S = 0.05
"""Seconds before a request that failed at once is repeated."""

ROUND_TRIP_SAMPLES = 8
"""How many of the last beats the round trip is taken from."""

MIN_LIVE_BYTES = 16 << 10
"""If fewer bytes than this got through while a heartbeat went unanswered, the connection is dead, not busy: casty sends
a few even for a stuck node."""

CONNECT_TIMEOUTS_S = (0.5, 0.5, 1.0, 2.0)
"""Seconds, beside ten round trips, that attempts at a new connection are given in turn. Each dials at once."""


class DebugLog:
    """An observer that notes what casty reports as details: what matters of it, the supervisors say themselves."""

    def wants(self, kind: type[Event], /) -> bool:
        """Leave out the starts and ends of actors."""
        return kind not in (ActivationStarted, ActivationEnded)

    def __call__(self, event: Event, /) -> None:
        log.debug("casty: %s", event)


class Clients:
    """Makes the casty clients of a pool, with the identity of its driver.

    Attributes
    ----------
    identity
        The files of the driver's certificate and key.
    made
        All that were made, for `reclaim`.
    """

    def __init__(self, identity: IdentityFiles, runtime: Runtime) -> None:
        self.identity, self._runtime = identity, runtime
        self.made: list[Client] = []

    def make(self, cluster: str, address: str, port: int, observer: Observer) -> Client:
        """Make a client of the node that listens on `address` over there and is reached through `port` here."""
        identity = self.identity
        client = Client(
            seeds=(address,),
            name=cluster,
            tls=TLS(cert=str(identity.cert), key=str(identity.key), ca=str(identity.ca)),
            compression=COMPRESSION,
            limits=LIMITS,
            address_map=lambda _: f"127.0.0.1:{port}",
            ask_timeout=timedelta(days=1),
            sync_every=timedelta(seconds=1),
            observer=observer,
            runtime=self._runtime,
        )
        self.made.append(client)
        return client


class NodeConnection:
    """A connection to one node that outlives its breaks.

    Parameters
    ----------
    make
        Makes a client of the node that tells its events to an observer.
    to
        Gives the actor that is asked, from a client and the node's address.
    cluster, address
        The name of the node's cluster, and the address it listens on over there.
    heard
        Called with whether the node was heard, whenever that changes.
    measured
        Called with the seconds of a round trip after each beat.
    said
        Called with what the node says of itself at each beat.
    acknowledged
        Gives the bytes that the machine has acknowledged so far, of all that is sent to it: on the way there lies what
        this end has sent and nobody has got. None where nothing lies in between.
    """

    def __init__(
        self,
        make: Callable[[Observer], Client],
        to: Callable[[System, str], Ref[Any]],
        *,
        cluster: str,
        address: str,
        heard: Callable[[bool], None] = lambda _: None,
        measured: Callable[[float], None] = lambda _: None,
        said: Callable[[Facts], None] = lambda _: None,
        acknowledged: Callable[[], int] | None = None,
    ) -> None:
        self._make, self._to, self._cluster, self._address = make, to, cluster, address
        self._heard, self._measured, self._said, self._acknowledged = heard, measured, said, acknowledged
        self._ear = _Ear(weakref.WeakMethod(self._ask_again))  # casty never frees a client: it must not hold `self`
        self._client = make(self._ear)
        self._waiting: dict[asyncio.Timeout, float] = {}  # and the seconds that each is given
        self._hurry = asyncio.Event()
        self._alive = True
        self._entered = False
        self._ends: set[asyncio.Task[None]] = set()
        self._trips: deque[float] = deque(maxlen=ROUND_TRIP_SAMPLES)

    async def open(self, timeout: float) -> None:
        """Connect. From then on `watch` has to run.

        Raises
        ------
        Unreachable
            The node did not accept the connection within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._client.__aenter__()
                self._entered = True
                self._door = gateway.ref(self._client, self._address)
                self._asked = self._to(self._client, self._address)
                await self._beat()
        except (TimeoutError, Refused, Unavailable) as error:
            raise Unreachable(
                f"node {self._cluster} does not accept the connection: {type(error).__name__}: {error}"
            ) from error

    @property
    def round_trip(self) -> float:
        """Seconds to the node and back: the least of the last beats, which is what no traffic adds to."""
        return min(self._trips)

    async def close(self) -> None:
        """Let go of the connection; it need not have been opened."""
        if self._entered:
            await self._client.__aexit__(None, None, None)
        await asyncio.gather(*self._ends)

    async def ask[R](self, message: Askable[R], deadline: float) -> R:
        """Ask until there is an answer; again when the connection is lost, or for `deadline` seconds was not busy."""
        while True:
            try:
                async with asyncio.timeout(deadline) as scope:
                    self._waiting[scope] = deadline
                    try:
                        answer: R = await self._asked.ask(message)
                        return answer
                    finally:
                        del self._waiting[scope]
            except TimeoutError:
                self._hurry.set()
            except Unavailable:
                self._hurry.set()
                await asyncio.sleep(REPEAT_DELAY_S)

    async def watch(self) -> None:
        """Beat every few seconds, at once when something seems wrong; and replace a connection that is down."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_INTERVAL_S):
                    await self._hurry.wait()
            self._hurry.clear()
            attempt = 0
            while not await self._is_up():
                self._note(alive=False)
                await self._replace(CONNECT_TIMEOUTS_S[attempt % len(CONNECT_TIMEOUTS_S)] + 10 * self.round_trip)
                attempt += 1
            self._note(alive=True)

    async def _is_up(self) -> bool:
        """Whether the connection carries anything. A line busy with a large request may be too slow for a beat."""
        before = self._passed()
        try:
            async with asyncio.timeout(HEARTBEAT_INTERVAL_S):
                await self._beat()
        except Unavailable:
            return False
        except TimeoutError:
            if self._passed() - before < MIN_LIVE_BYTES:
                return False
            self._put_off()
        return True

    def _passed(self) -> int:
        """Bytes that got through to the node and from it, or as much as is known of it."""
        stats = self._client.stats()
        sent = stats.bytes_sent if self._acknowledged is None else self._acknowledged()
        return sent + stats.bytes_received

    def _put_off(self) -> None:
        """The line is busy: what waits has all its time before it."""
        now = asyncio.get_running_loop().time()
        for scope, deadline in self._waiting.items():
            if not scope.expired():
                scope.reschedule(now + deadline)

    async def _beat(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        facts = await self._door.ask(Beat())
        self._trips.append(clock() - began)
        self._measured(self.round_trip)
        self._said(facts)

    async def _replace(self, seconds: float) -> None:
        """Connect again, and repeat pending requests over the new connection; keep the old one if that fails."""
        fresh, entered = self._make(self._ear), False
        try:
            async with asyncio.timeout(seconds):
                await fresh.__aenter__()
                entered = True
                fresh_door = gateway.ref(fresh, self._address)
                await fresh_door.ask(Beat())
        except BaseException as error:  # cancelled, too: nothing of it must be left
            if entered:
                self._end(fresh)
            if not isinstance(error, TimeoutError | Refused | Unavailable):
                raise
            await asyncio.sleep(REPEAT_DELAY_S)
            return
        old, self._client, self._door = self._client, fresh, fresh_door
        self._asked = self._to(fresh, self._address)
        self._ask_again()
        self._end(old)

    def _end(self, client: Client) -> None:
        task = asyncio.create_task(client.__aexit__(None, None, None))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    def _ask_again(self) -> None:
        """A connection is gone, perhaps with requests or answers on it."""
        now = asyncio.get_running_loop().time()
        for scope in self._waiting:
            if not scope.expired():
                scope.reschedule(now)

    def _note(self, *, alive: bool) -> None:
        if alive != self._alive:
            self._alive = alive
            self._heard(alive)


class _Ear(DebugLog):
    """Hears that a connection was lost."""

    def __init__(self, lost: weakref.WeakMethod[Callable[[], None]]) -> None:
        self._lost = lost

    def __call__(self, event: Event, /) -> None:
        super().__call__(event)
        if isinstance(event, ConnectionLost) and (lost := self._lost()) is not None:
            lost()
