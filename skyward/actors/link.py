"""What is said to one node over its line: assign, revoke, collect.

Commands go one at a time and numbered, and each is repeated until it is answered; outcomes are collected by one long
poll after the other, each acknowledging what came before. So a broken connection delays things and changes nothing.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skyward.actors import router, routing
from skyward.actors.line import Line
from skyward.actors.office import Office
from skyward.remote.protocol import Assign, Batch, Collect, Revoke

DEADLINE = 5.0
"""Seconds after which a request that was not answered is repeated; a large one is given longer."""

POLL = 10.0
"""Seconds that a node may leave a `Collect` unanswered when it has nothing."""

BULK = 8 << 20
"""Bytes of payload after which an `Assign` is sent and the next one begun."""


@dataclass(frozen=True, slots=True)
class _Revocation:
    batches: tuple[int, ...]
    kill: bool


class Link:
    """The connection to one node, once it is up.

    Parameters
    ----------
    office
        The driver's tables.
    node
        The number of the node.
    cluster, address
        The name of the node's cluster, and the address it listens on over there.
    port
        The port of 127.0.0.1 here that leads to it.
    heard
        Called with whether the node was heard, whenever that changes.
    """

    def __init__(
        self, office: Office, node: int, *, cluster: str, address: str, port: int, heard: Callable[[bool], None]
    ) -> None:
        self._office, self._node, self._heard = office, node, heard
        self._line = Line(office, cluster=cluster, address=address, port=port, heard=heard, measured=self._measured)
        self._orders: deque[tuple[int, ...] | _Revocation] = deque()
        self._forget: list[str] = []
        self._known: set[str] = set()
        self._wake = asyncio.Event()
        self._number = 0
        self._told = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, timeout: float) -> None:
        """Connect, and begin to collect.

        Raises
        ------
        Unreachable
            The node did not accept the connection within `timeout` seconds.
        """
        await self._line.open(timeout)
        self._router = router.ref(self._office)
        loops = (self._send(), self._collect(), self._line.watch())
        self._tasks = [asyncio.create_task(each) for each in loops]
        for task in self._tasks:
            task.add_done_callback(self._stopped)

    async def close(self) -> None:
        """Stop, and let go of the connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._line.close()

    def assign(self, batches: Sequence[int]) -> None:
        """Send these batches, soon, together with others that are waiting to be sent."""
        self._orders.append(tuple(batches))
        self._wake.set()

    def revoke(self, batches: Sequence[int], *, kill: bool) -> None:
        """Ask these batches back, after everything that was assigned before."""
        self._orders.append(_Revocation(tuple(batches), kill))
        self._wake.set()

    def forget(self, functions: Sequence[str]) -> None:
        """Have the node drop these functions, with the next batches that it is sent."""
        self._forget += [name for name in functions if name in self._known]
        self._known.difference_update(functions)

    @property
    def round_trip(self) -> float:
        """Seconds that the way there and back takes."""
        return self._line.round_trip

    def _measured(self, seconds: float) -> None:
        """Tell the router of a round trip that has changed by a tenth."""
        if abs(seconds - self._told) > 0.1 * self._told:
            self._told = seconds
            router.ref(self._office).tell(routing.Measured(self._node, seconds))

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._orders:
                if isinstance(order := self._orders[0], _Revocation):
                    self._orders.popleft()
                    await self._revoke(order)
                else:
                    await self._assign()

    async def _assign(self) -> None:
        batches: list[Batch] = []
        gone: list[int] = []
        functions: dict[str, bytes] = {}
        size = 0
        while self._orders and not isinstance(order := self._orders[0], _Revocation) and size < BULK:
            taken = 0
            for number in order:
                taken += 1
                entry = self._office.entries.get(number)
                if entry is None:  # cancelled in the meantime
                    gone.append(number)
                    continue
                batches.append(Batch(number, entry.packed.payload, entry.packed.functions, entry.terms.timeout))
                size += len(entry.packed.payload)
                for name in entry.packed.functions:
                    if name not in self._known:
                        self._known.add(name)
                        functions[name] = entry.functions[name]
                        size += len(functions[name])
                if size >= BULK:
                    break
            self._orders.popleft()
            if taken < len(order):
                self._orders.appendleft(order[taken:])
        if gone:
            self._router.tell(routing.GaveBack(self._node, tuple(gone), tuple(gone)))
        forget, self._forget = tuple(self._forget), []
        self._number += 1
        self._office.ledger.send(self._node, size)
        await self._line.ask(Assign(self._number, tuple(batches), functions, forget), DEADLINE + size / 1e6)

    async def _revoke(self, order: _Revocation) -> None:
        self._number += 1
        answer = await self._line.ask(Revoke(self._number, order.batches, order.kill), DEADLINE)
        self._router.tell(routing.GaveBack(self._node, order.batches, answer.batches))

    async def _collect(self) -> None:
        after = 0
        while True:
            news = await self._line.ask(Collect(after, POLL), POLL + DEADLINE)
            if news.number <= after:
                continue
            fresh = news.outcomes[len(news.outcomes) - (news.number - after) :]
            after = news.number
            self._office.ledger.receive(self._node, time.perf_counter(), fresh)
            done, killed, died, ran = [], [], [], 0.0
            for outcome in fresh:
                match outcome.status:
                    case "killed":
                        killed.append(outcome.batch)
                    case "died":
                        cause = f"slot {outcome.slot} of node {self._node}: {outcome.payload.decode()}"
                        died.append(routing.Died(outcome.batch, cause))
                    case _:
                        done.append(outcome.batch)
                        ran += outcome.seconds
                        self._office.outcomes[outcome.batch] = outcome, self._node
            self._router.tell(
                routing.Answered(self._node, tuple(done), tuple(killed), tuple(died), ran / max(1, len(done)))
            )

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """A loop ends by being cancelled; anything else is a bug, and the node is of no more use."""
        if not task.cancelled() and (error := task.exception()):
            logging.getLogger("skyward").error("the link to node %s failed", self._node, exc_info=error)
            self._heard(False)
