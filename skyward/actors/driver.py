"""The thread and event loop that a pool's actors live on, and the way in from the caller's threads."""

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from dataclasses import replace
from typing import Any

import uvloop
from casty import ActorSystem, Runtime

from skyward.actors import provisioner, reclaim, router, routing, scaling, supervisor
from skyward.actors.budget import BudgetGuard
from skyward.actors.call_table import CallTable
from skyward.actors.connection import Clients, DebugLog
from skyward.actors.node_starter import BundleTask
from skyward.actors.node_table import NodeTable
from skyward.actors.pool_context import PoolContext
from skyward.actors.pool_status import PoolStatus
from skyward.actors.provisioner import Provisioner
from skyward.actors.router import Router
from skyward.actors.supervisor import Supervisor
from skyward.actors.tls import Authority, held
from skyward.calls.blob_store import BlobStore
from skyward.calls.completion import CompletionThreads, PendingCall
from skyward.config.spec import PoolSpec
from skyward.environment.user_modules import UserModules
from skyward.errors import BudgetExceeded, InvalidArgument, PoolFailed, SkywardError, listed
from skyward.events import Reported, TasksCounted
from skyward.remote.future import result_of
from skyward.telemetry.event_log import EventLog, now
from skyward.telemetry.node import Node
from skyward.telemetry.report import Report
from skyward.telemetry.stacks import Stack

log = logging.getLogger("skyward")

MIN_REPORT_INTERVAL_S, REPORT_LAG_SHARE = 1.0, 0.05
"""Seconds between two reports at least, and the part of the run's time that a report lags behind at most."""


class Driver:
    """A pool as its actors see it from outside. Every method may be called from any thread.

    Parameters
    ----------
    spec
        What the user wants.
    pool
        The name of the pool.
    hooks
        What plugins do on the nodes, packed.
    numbers
        Gives the numbers of calls.
    record
        Where all that happens is noted.
    """

    def __init__(self, spec: PoolSpec, pool: str, hooks: bytes, numbers: Iterator[int], record: EventLog) -> None:
        self.numbers = numbers
        self._spec, self._pool, self._hooks, self._record = spec, pool, hooks, record
        options = spec.options
        self._calls, self._nodes = CallTable(options.prefetch, options.retries, record), NodeTable()
        self._modules, self._bundle = UserModules(), BundleTask(spec.image)
        self.has_budget = options.budget is not None
        self.blob_store = BlobStore(self._sends_buffers)
        self.completion_threads = CompletionThreads(f"skyward-results-{pool}")
        threshold = options.blob_threshold
        self.blob_threshold: float = math.inf if threshold is None else threshold
        self._incoming: deque[list[PendingCall] | tuple[int, ...]] = deque()
        self._draining = False
        self._started: futures.Future[None] = futures.Future()
        self._leaked: futures.Future[tuple[str, ...]] = futures.Future()
        self._thread = threading.Thread(target=self._run, name=f"skyward-{pool}", daemon=True)

    @property
    def used(self) -> bool:
        """Whether a call was ever sent."""
        return self._calls.used

    @property
    def sources(self) -> UserModules | None:
        """The user's own modules, where nodes cannot import them by themselves; known once a node is ready."""
        return self._modules if self._spec.provider.bare else None

    def reloaded(self) -> tuple[str, ...]:
        """Return the names of what tells nodes which modules to import again."""
        return self._modules.reloaded()

    def reaches(self, token: str) -> bool:
        """Whether every node that takes calls now has the mount with this token (see `skyward.remote.mounts`)."""
        mounts = self._nodes.mounts()
        return all(token in each for each in mounts) and (bool(mounts) or not self._spec.provider.bare)

    def _sends_buffers(self) -> bool:
        """Whether there is a node that does not find large buffers in this process's memory, and is sent them."""
        return any(client.sends_buffers for client in self._nodes.clients().values())

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
            result_of(self._status.opened)
        except PoolFailed:
            raise
        except SkywardError as error:  # its text says it all: what it came from, deep inside, would only hide that
            log.debug("the pool cannot start", exc_info=True)
            raise error.with_traceback(None) from None
        self._modules.watch()

    def stop(self) -> tuple[str, ...]:
        """End the nodes and the loop; return the names of what could not be ended. Nothing is left unanswered."""
        if self._thread.ident is None or self._started.exception() is not None:
            return ()
        self._modules.close()
        self.refuse()
        self._loop.call_soon_threadsafe(self._closing.set)
        try:
            return result_of(self._leaked)
        finally:
            self._thread.join()
            self._calls.close()

    def send(self, entries: list[PendingCall]) -> None:
        """Run these; they have one group and the same terms."""
        self._calls.add(entries, self._put)

    def refuse(self) -> None:
        """Take no more calls."""
        self._calls.refuse()

    def count(self, group: int, tasks: int, *, final: bool) -> None:
        """The calls of a group hold so many tasks in all, -1 where that is not known yet; with `final` none comes."""
        self._record.put(TasksCounted(now(), group, tasks, final))

    def forget(self, batches: Iterable[int]) -> None:
        """Nobody waits for these any more."""
        known = self._calls.forget(batches)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            if known:
                self._put(known)

    def nodes(self) -> tuple[Node, ...]:
        """The nodes that take calls now, by number."""
        return self._nodes.ready()

    def node_numbers(self) -> list[int]:
        """The numbers of the nodes that there are, or should be; of an elastic pool those that take calls now.

        Those that are leaving are not among them.
        """
        return self._nodes.numbers(ready=self._spec.nodes.elastic)

    def check_node(self, node: int) -> None:
        """Refuse a number that never was a node's; what is for one that has gone fails, and says why it has.

        Raises
        ------
        InvalidArgument
            The pool has no such node.
        """
        numbers, nodes = self.node_numbers(), self._spec.nodes
        if node in numbers or (not nodes.elastic and node < nodes.count):
            return
        match numbers:
            case []:
                there = "no node now"
            case [only]:
                there = f"node {only} only"
            case [first, *_, last] if last - first < len(numbers):
                there = f"nodes {first} to {last}"
            case _:
                there = f"nodes {listed(map(str, numbers))}"
        raise InvalidArgument(f"node={node}: the pool has {there}")

    def slots(self) -> int:
        """The slots of all nodes, those that are just being replaced or may yet come included."""
        known = [node.slots for node in self._nodes.known()]
        return sum(known) + max(0, (self._spec.nodes.max or 0) - len(known)) * max(known, default=1)

    def depth(self) -> float:
        """How many calls there should be for each slot; see `Compute.depth`."""
        return self._calls.depth()

    def shown(self, batch: int) -> str:
        """Return a call that has not been answered in a line, for an error."""
        entry = self._calls.get(batch)
        return "a call" if entry is None else entry.shown()

    def waiting(self) -> list[futures.Future[Any]]:
        """The futures of the calls that have not been answered."""
        return self._calls.futures()

    def stacks(self, timeout: float) -> tuple[Stack, ...]:
        """Return where the running calls are."""
        return asyncio.run_coroutine_threadsafe(self._stacks(timeout), self._loop).result()

    def report(self) -> Report:
        """Say what the pool has done so far; also after it has ended."""
        asked: futures.Future[Report] = futures.Future()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(lambda: asked.set_result(self._make_report()))
        either: tuple[futures.Future[Any], ...] = (asked, self._leaked)
        futures.wait(either, return_when=futures.FIRST_COMPLETED)
        return asked.result() if asked.done() else self._make_report()

    # ------------------------------------------------------------ on the loop

    def _run(self) -> None:
        try:
            with reclaim.lend_runtime() as runtime:
                leaked = uvloop.run(self._main(runtime))
                reclaim.reclaim(self._system, self._context.clients.made, runtime)
            self._leaked.set_result(leaked)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the loop is told
            for future in (self._started, self._leaked):
                if not future.done():
                    future.set_exception(error)

    async def _main(self, runtime: Runtime) -> tuple[str, ...]:
        authority = Authority.create(self._pool)
        with held(authority.issue("driver", server=False)) as identity:
            clients = Clients(identity, runtime)
            self._context = PoolContext(
                self._pool, self._spec, self._hooks, self._modules, self._record, authority, clients
            )
            self._status = PoolStatus(self._calls)
            options, nodes = self._spec.options, self._spec.nodes
            self._budget = BudgetGuard(options.budget, options.max_hourly, self._record, self._run_dry)
            self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
            self._system = ActorSystem(observer=DebugLog())
            async with self._system:
                self._begin(self._system)
                self._provisioner.tell(scaling.Wanted(nodes.count, nodes.needed, nodes.max))
                self._started.set_result(None)
                telling = asyncio.create_task(self._tell_reports())
                await self._closing.wait()
                telling.cancel()
                self._provisioner.tell(scaling.Closing())
                leaked = await self._status.closed
            self._budget.close()
            self._calls.stop_accounting()
            return leaked

    def _begin(self, system: ActorSystem) -> None:
        """Start the actors."""
        weakly = reclaim.weakly
        guard = weakly(self._status.guard)
        self._supervisors = supervisor.define(weakly(self._make_supervisor), guard)
        self._router = system.ref(router.define(weakly(self._make_router), guard), self._pool)
        self._provisioner = system.ref(
            provisioner.define(weakly(self._make_provisioner), guard), self._spec.provider.name
        )

    def _make_router(self, tell: Callable[[routing.RoutingEvent], None]) -> Router:
        return Router(self._calls, self._nodes.client, self._drained, tell)

    def _make_provisioner(self, tell: Callable[[scaling.ScalingEvent], None]) -> Provisioner:
        return Provisioner(
            self._context,
            self._nodes,
            self._status,
            self._calls.load,
            route=self._router.tell,
            supervise=self._supervise,
            tell=tell,
        )

    def _make_supervisor(
        self, number: int, generation: int, tell: Callable[[supervisor.SupervisorMessage], None]
    ) -> Supervisor:
        return Supervisor(
            self._context,
            self._calls,
            self._nodes,
            self._budget,
            self._bundle,
            number=number,
            generation=generation,
            route=self._router.tell,
            report=self._provisioner.tell,
            tell=tell,
        )

    def _supervise(self, number: int, generation: int, message: supervisor.SupervisorMessage) -> None:
        self._system.ref(self._supervisors, supervisor.key(number, generation)).tell(message)

    def _drained(self, number: int) -> None:
        self._provisioner.tell(scaling.NodeDrained(number))

    def _run_dry(self, error: BudgetExceeded) -> None:
        """The budget is spent: tell the callers, and terminate the machines, whether the block is left or not."""
        log.warning("%s", error)
        self._status.fail(error)
        self._provisioner.tell(scaling.Closing())

    def _make_report(self) -> Report:
        nodes, budget = self._nodes, self._budget
        return replace(
            self._calls.report(), left=nodes.left(), starts=nodes.starts(), cost=budget.cost(), machines=budget.machines
        )

    async def _stacks(self, timeout: float) -> tuple[Stack, ...]:
        """Return where the running calls are, by node and slot; a node that does not answer in time is named."""
        clients = self._nodes.clients()
        answers = await asyncio.gather(
            *(asyncio.wait_for(client.look(), timeout) for client in clients.values()), return_exceptions=True
        )
        found: list[Stack] = []
        for number, answer in zip(clients, answers, strict=True):
            if isinstance(answer, BaseException):
                found.append(Stack(number, -1, "", timeout, f"it did not answer within {timeout:g} s"))
                continue
            known = [(each, self._calls.get(each.batch)) for each in answer.running]
            for each, call in known:
                if call is not None:  # else it has just ended
                    shown = await asyncio.to_thread(call.shown)  # it may run the user's own `__repr__`
                    found.append(Stack(number, each.slot, shown, each.seconds, each.text))
        return tuple(sorted(found, key=lambda stack: (stack.node, stack.slot)))

    async def _tell_reports(self) -> None:
        """Note now and then what has been done: of a run whose program is killed only the last part is not known."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(max(MIN_REPORT_INTERVAL_S, REPORT_LAG_SHARE * (time.monotonic() - began)))
            if (report := self._make_report()).capacity:  # calls have come
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
            self._status.fail(PoolFailed(f"calls could not be queued: {type(error).__name__}: {error}"))

    def _tell_router(self) -> None:
        """Tell the router what has come in, calls of one group and terms in one message."""
        if self.has_budget:
            self._budget.look()
        tell = self._router.tell
        alike: list[PendingCall] = []
        while self._incoming:
            incoming = self._incoming.popleft()
            if isinstance(incoming, tuple):
                if alike:
                    tell(self._calls.arrive(alike))
                    alike = []
                tell(routing.Cancelled(incoming))
                continue
            first = incoming[0]
            if alike and (alike[0].group is not first.group or alike[0].terms != first.terms):
                tell(self._calls.arrive(alike))
                alike = []
            alike += incoming
        if alike:
            tell(self._calls.arrive(alike))
