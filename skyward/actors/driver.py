"""The thread and event loop that a pool's actors live on, and the way in from the caller's threads."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

import uvloop

from skyward.actors import provisioner, router, routing, scaling
from skyward.actors.office import Node, Office
from skyward.errors import NoCompute, PoolFailed
from skyward.spec import Blueprint
from skyward.tasks import Entry
from skyward.trust import Authority, held

log = logging.getLogger("skyward")

OVER = "the pool was closed before this call was answered"


class Driver:
    """A pool as its actors see it from outside. Every method may be called from any thread.

    Parameters
    ----------
    blueprint
        What the user wants.
    pool
        The name of the pool.
    hooks
        What plugins do on the nodes, packed.
    numbers
        Gives the numbers of calls.
    """

    def __init__(self, blueprint: Blueprint, pool: str, hooks: bytes, numbers: Iterator[int]) -> None:
        self.numbers = numbers
        self._blueprint, self._pool, self._hooks = blueprint, pool, hooks
        self._retries = blueprint.options.retries
        self._incoming: deque[list[Entry] | tuple[int, ...]] = deque()
        self._draining = self._ended = False
        self._started: futures.Future[Office] = futures.Future()
        self._leaked: futures.Future[tuple[str, ...]] = futures.Future()
        self._thread = threading.Thread(target=self._run, name=f"skyward-{pool}", daemon=True)

    def start(self) -> None:
        """Start the loop and the actors, and return once every node is ready.

        Raises
        ------
        ProvisioningError, NodeError
            The nodes cannot be had; nothing of them is left.
        """
        self._thread.start()
        self._started.result()
        self._office.opened.result()

    def stop(self) -> tuple[str, ...]:
        """End the nodes and the loop; return the names of what could not be ended."""
        if self._thread.ident is None or self._started.exception() is not None:
            return ()
        self._loop.call_soon_threadsafe(self._closing.set)
        leaked = self._leaked.result()
        self._thread.join()
        self._ended = True
        for batch in tuple(self._office.entries):  # calls that came while it ended
            if (entry := self._office.entries.pop(batch, None)) is not None:
                entry.group.delivery.put([(entry, NoCompute(OVER), None)])
        return leaked

    def send(self, entries: list[Entry]) -> None:
        """Run these; they have one group and the same terms."""
        office = self._office
        if office.failure is not None:
            raise PoolFailed(f"the pool has failed: {office.failure}") from office.failure
        for entry in entries:
            office.entries[entry.future.batch] = entry
        if not self._ended:
            self._put(entries)
            return
        ours = [office.entries.pop(entry.future.batch, None) for entry in entries]
        if any(ours):  # else `stop` has failed them
            raise NoCompute(OVER)

    def forget(self, batches: Iterable[int]) -> None:
        """Nobody waits for these any more."""
        known = tuple(batch for batch in batches if self._office.entries.pop(batch, None) is not None)
        if known:
            self._put(known)

    def drop(self, functions: Iterable[str]) -> None:
        """No call will need these functions again."""
        names = tuple(functions)
        if names and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drop, names)

    def nodes(self) -> tuple[Node, ...]:
        """The nodes that take calls now, by number."""
        office = self._office
        return tuple(office.nodes[number] for number in sorted(office.up))

    def slots(self) -> int:
        """The slots of all nodes, those that are just being replaced included."""
        return sum(node.slots for node in tuple(self._office.nodes.values()))

    def waiting(self) -> list[futures.Future[Any]]:
        """The futures of the calls that have not been answered."""
        if not self._started.done() or self._started.exception() is not None:
            return []
        return [entry.future for entry in list(self._office.entries.values())]

    # ------------------------------------------------------------ on the loop

    def _run(self) -> None:
        try:
            self._leaked.set_result(uvloop.run(self._main()))
        except BaseException as error:  # noqa: BLE001 - whoever waits for the loop is told
            for future in (self._started, self._leaked):
                if not future.done():
                    future.set_exception(error)

    async def _main(self) -> tuple[str, ...]:
        authority = Authority.create(self._pool)
        with held(authority.issue("driver", server=False)) as identity:
            office = Office(self._blueprint, self._pool, authority, identity)
            office.hooks = self._hooks
            self._office, self._loop, self._closing = office, asyncio.get_running_loop(), asyncio.Event()
            async with office:
                router.ref(office)
                head = provisioner.ref(office)
                head.tell(scaling.Wanted(self._blueprint.nodes))
                self._started.set_result(office)
                await self._closing.wait()
                head.tell(scaling.Closing())
                return await office.closed

    def _put(self, incoming: list[Entry] | tuple[int, ...]) -> None:
        self._incoming.append(incoming)
        if not self._draining:
            self._draining = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        """Tell the router what has come in, calls of one group and terms in one message."""
        self._draining = False
        chief = router.ref(self._office)
        numbers: list[int] = []
        last: Entry | None = None
        while self._incoming:
            incoming = self._incoming.popleft()
            if isinstance(incoming, tuple):
                self._arrive(chief.tell, last, numbers)
                numbers, last = [], None
                chief.tell(routing.Cancelled(incoming))
                continue
            first = incoming[0]
            if last is not None and (last.group is not first.group or last.terms != first.terms):
                self._arrive(chief.tell, last, numbers)
                numbers = []
            last = first
            numbers.extend(entry.future.batch for entry in incoming)
        self._arrive(chief.tell, last, numbers)

    def _arrive(self, tell: Callable[[routing.Event], None], entry: Entry | None, numbers: list[int]) -> None:
        if entry is None or not numbers:
            return
        terms = entry.terms
        retries = self._retries if terms.retries is None else terms.retries
        tell(routing.Arrived(tuple(numbers), entry.group.number, entry.group.limit, terms.node, retries))

    def _drop(self, functions: tuple[str, ...]) -> None:
        for link in self._office.links.values():
            link.forget(functions)
