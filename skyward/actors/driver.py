"""The thread and event loop that a pool's actors live on, and the way in from the caller's threads."""

import asyncio
import contextlib
import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

import uvloop
from casty import Runtime

from skyward.actors import provisioner, reclaim, router, routing, scaling
from skyward.actors.office import Office
from skyward.actors.tls import Authority, held
from skyward.calls.blob_store import BlobStore
from skyward.calls.completion import CompletionThreads, PendingCall
from skyward.config.spec import PoolSpec
from skyward.environment.user_modules import UserModules
from skyward.errors import BudgetExceeded, InvalidArgument, NoCompute, PoolFailed, SkywardError
from skyward.events import BatchesArrived, Reported, TasksCounted
from skyward.remote.future import result_of
from skyward.telemetry.event_log import EventLog, now
from skyward.telemetry.node import Node
from skyward.telemetry.report import Report
from skyward.telemetry.stacks import Stack

log = logging.getLogger("skyward")

MIN_REPORT_INTERVAL_S, REPORT_LAG_SHARE = 1.0, 0.05
"""Seconds between two reports at least, and the part of the run's time that a report lags behind at most."""

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
    record
        Where all that happens is noted.

    Attributes
    ----------
    used
        Whether a call was ever sent.
    """

    def __init__(self, blueprint: PoolSpec, pool: str, hooks: bytes, numbers: Iterator[int], record: EventLog) -> None:
        self.numbers = numbers
        self._blueprint, self._pool, self._hooks, self._record = blueprint, pool, hooks, record
        self._retries = blueprint.options.retries
        self.has_budget = blueprint.options.budget is not None
        self.shelf = BlobStore(self._sends_buffers)
        self.deliveries = CompletionThreads(f"skyward-results-{pool}")
        threshold = blueprint.options.blob_threshold
        self.blob_threshold: float = math.inf if threshold is None else threshold
        self._incoming: deque[list[PendingCall] | tuple[int, ...]] = deque()
        self._draining = self._refusing = False
        self.used = False
        self._started: futures.Future[Office] = futures.Future()
        self._leaked: futures.Future[tuple[str, ...]] = futures.Future()
        self._thread = threading.Thread(target=self._run, name=f"skyward-{pool}", daemon=True)

    @property
    def sources(self) -> UserModules | None:
        """The user's own modules, where nodes cannot import them by themselves; known once a node is ready."""
        return self._office.sources if self._office.provider.bare else None

    def reloaded(self) -> tuple[str, ...]:
        """Return the names of what tells nodes which modules to import again."""
        return self._office.sources.reloaded()

    def reaches(self, token: str) -> bool:
        """Whether every node that takes calls now has the mount with this token (see `skyward.remote.mounts`)."""
        office = self._office
        return all(token in office.mounts[number] for number in tuple(office.up)) and (
            bool(office.up) or not office.provider.bare
        )

    def _sends_buffers(self) -> bool:
        """Whether there is a node that does not find large buffers in this process's memory, and is sent them."""
        return any(link.sends_buffers for link in tuple(self._office.links.values()))

    def start(self) -> None:
        """Start the loop and the actors, and return once as many nodes as are needed are ready.

        Raises
        ------
        ProvisioningError, NodeError
            The nodes cannot be started; nothing of them is left.
        """
        self._thread.start()
        self._started.result()
        try:
            result_of(self._office.opened)
        except PoolFailed:
            raise
        except SkywardError as error:  # its text says it all: what it came from, deep inside, would only hide that
            log.debug("the pool cannot start", exc_info=True)
            raise error.with_traceback(None) from None
        self._office.sources.watch()

    def stop(self) -> tuple[str, ...]:
        """End the nodes and the loop; return the names of what could not be ended. Nothing is left unanswered."""
        if self._thread.ident is None or self._started.exception() is not None:
            return ()
        self._office.sources.close()
        self.refuse()
        self._loop.call_soon_threadsafe(self._closing.set)
        try:
            return result_of(self._leaked)
        finally:
            self._thread.join()
            for batch in tuple(self._office.entries):  # calls that came while it ended
                if (entry := self._office.entries.pop(batch, None)) is not None:
                    entry.group.delivery.put([(entry, NoCompute(OVER))])

    def send(self, entries: list[PendingCall]) -> None:
        """Run these; they have one group and the same terms."""
        office = self._office
        with office.lock:
            if isinstance(office.failure, BudgetExceeded):
                raise BudgetExceeded(str(office.failure))
            if office.failure is not None:
                raise PoolFailed(f"the pool has failed: {office.failure}") from office.failure
            if self._refusing:
                raise NoCompute(OVER)
            try:
                for entry in entries:
                    office.entries[entry.future.batch] = entry
                self._put(entries)
                self.used = True
            except BaseException:  # Ctrl-C: the caller will not hold these futures
                for entry in entries:
                    office.entries.pop(entry.future.batch, None)
                raise

    def refuse(self) -> None:
        """Take no more calls."""
        with self._office.lock:
            self._refusing = True

    def count(self, group: int, tasks: int, *, final: bool) -> None:
        """The calls of a group hold so many tasks in all, -1 where that is not known yet; with `final` none comes."""
        self._record.put(TasksCounted(now(), group, tasks, final))

    def forget(self, batches: Iterable[int]) -> None:
        """Nobody waits for these any more."""
        known = tuple(batch for batch in batches if self._office.entries.pop(batch, None) is not None)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            if known:
                self._put(known)

    def nodes(self) -> tuple[Node, ...]:
        """The nodes that take calls now, by number."""
        office = self._office
        return tuple(office.nodes[number] for number in sorted(office.up))

    def node_numbers(self) -> list[int]:
        """The numbers of the nodes that there are, or should be; of an elastic pool those that take calls now.

        Those that are leaving are not among them.
        """
        office = self._office
        return sorted(office.numbers & office.up if self._blueprint.nodes.elastic else office.numbers)

    def check_node(self, node: int) -> None:
        """Refuse a number that never was a node's; what is for one that has gone fails, and says why it has.

        Raises
        ------
        InvalidArgument
            The pool has no such node.
        """
        numbers, nodes = self.node_numbers(), self._blueprint.nodes
        if node in numbers or (not nodes.elastic and node < nodes.count):
            return
        gap = len(numbers) < 2 or numbers[-1] - numbers[0] >= len(numbers)
        named = ", ".join(map(str, numbers)) if gap else f"{numbers[0]} to {numbers[-1]}"
        raise InvalidArgument(f"node={node}: the pool has {f'nodes {named}' if numbers else 'no node now'}")

    def slots(self) -> int:
        """The slots of all nodes, those that are just being replaced or may yet come included."""
        known = [node.slots for node in tuple(self._office.nodes.values())]
        return sum(known) + max(0, (self._blueprint.nodes.max or 0) - len(known)) * max(known, default=1)

    def depth(self) -> float:
        """How many calls there should be for each slot; see `Compute.depth`."""
        return self._office.routing.depth()

    def shown(self, batch: int) -> str:
        """Return a call that has not been answered in a line, for an error."""
        entry = self._office.entries.get(batch)
        return "a call" if entry is None else entry.shown()

    def waiting(self) -> list[futures.Future[Any]]:
        """The futures of the calls that have not been answered."""
        if not self._started.done() or self._started.exception() is not None:
            return []
        return [entry.future for entry in list(self._office.entries.values())]

    def stacks(self, timeout: float) -> tuple[Stack, ...]:
        """Return where the running calls are."""
        return asyncio.run_coroutine_threadsafe(self._office.stacks(timeout), self._loop).result()

    def report(self) -> Report:
        """Say what the pool has done so far; also after it has ended."""
        asked: futures.Future[Report] = futures.Future()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(lambda: asked.set_result(self._office.report()))
        either: tuple[futures.Future[Any], ...] = (asked, self._leaked)
        futures.wait(either, return_when=futures.FIRST_COMPLETED)
        return asked.result() if asked.done() else self._office.report()

    # ------------------------------------------------------------ on the loop

    def _run(self) -> None:
        try:
            with reclaim.lend_runtime() as runtime:
                leaked = uvloop.run(self._main(runtime))
                reclaim.reclaim(self._office, self._office.clients, runtime)
            self._leaked.set_result(leaked)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the loop is told
            for future in (self._started, self._leaked):
                if not future.done():
                    future.set_exception(error)

    async def _main(self, runtime: Runtime) -> tuple[str, ...]:
        authority = Authority.create(self._pool)
        with held(authority.issue("driver", server=False)) as identity:
            office = Office(self._blueprint, self._pool, authority, identity, self._record, runtime)
            weakref.finalize(self, office.__dict__.clear).atexit = False  # casty never frees a system
            office.hooks = self._hooks
            self._office, self._loop, self._closing = office, asyncio.get_running_loop(), asyncio.Event()
            async with office:
                router.ref(office)
                head = provisioner.ref(office)
                nodes = self._blueprint.nodes
                head.tell(scaling.Wanted(nodes.count, nodes.needed, nodes.max))
                self._started.set_result(office)
                telling = asyncio.create_task(self._tell_reports())
                await self._closing.wait()
                telling.cancel()
                head.tell(scaling.Closing())
                leaked = await office.closed
            office.purse.close()
            office.close_ledger()
            return leaked

    async def _tell_reports(self) -> None:
        """Note now and then what has been done: of a run whose program is killed only the last part is not known."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(max(MIN_REPORT_INTERVAL_S, REPORT_LAG_SHARE * (time.monotonic() - began)))
            if (report := self._office.report()).capacity:  # calls have come
                self._record.put(Reported(now(), report.as_dict()))

    def _put(self, incoming: list[PendingCall] | tuple[int, ...]) -> None:
        self._incoming.append(incoming)
        if not self._draining:
            self._draining = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        """Tell the router what has come in; what it cannot be told would never be answered."""
        self._draining = False
        try:
            self._tell_router()
        except Exception as error:
            log.exception("incoming calls could not be queued, so the pool fails")
            self._office.fail(PoolFailed(f"calls could not be queued: {type(error).__name__}: {error}"))

    def _tell_router(self) -> None:
        """Tell the router what has come in, calls of one group and terms in one message."""
        if self.has_budget:
            self._office.purse.look()
        chief = router.ref(self._office)
        alike: list[PendingCall] = []
        while self._incoming:
            incoming = self._incoming.popleft()
            if isinstance(incoming, tuple):
                self._arrive(chief.tell, alike)
                alike = []
                chief.tell(routing.Cancelled(incoming))
                continue
            first = incoming[0]
            if alike and (alike[0].group is not first.group or alike[0].terms != first.terms):
                self._arrive(chief.tell, alike)
                alike = []
            alike += incoming
        self._arrive(chief.tell, alike)

    def _arrive(self, tell: Callable[[routing.Event], None], entries: list[PendingCall]) -> None:
        if not entries:
            return
        first = entries[0]
        group, terms = first.group, first.terms
        retries = self._retries if terms.retries is None else terms.retries
        self._office.arrivals.append((first.began, sum(entry.packing for entry in entries)))
        numbers = tuple(entry.future.batch for entry in entries)
        sizes = tuple(entry.size for entry in entries)
        self._record.put(BatchesArrived(now(), len(entries), sum(entry.tasks for entry in entries), group.number))
        tell(routing.Arrived(numbers, group.number, group.limit, terms.node, retries, sizes))
