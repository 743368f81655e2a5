"""The state that the driver's actors share and no message carries: payloads, futures, links, the provider.

An `Office` is the pool's `ActorSystem` on the user's machine, so an actor finds it as `ctx.system` and there is no
state of a module. It belongs to the thread of the pool's event loop, but for `entries`, where callers put their calls.
"""

import asyncio
import contextlib
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from casty import ActivationEnded, ActivationStarted, ActorSystem, Client, Event, Runtime, System

from skyward.actors.budget import BudgetGuard
from skyward.actors.router_state import RouterState
from skyward.actors.tls import Authority, IdentityFiles
from skyward.actors.utilization import Utilization
from skyward.calls.completion import Answer, CompletionThread, Ended, PendingCall
from skyward.config.spec import PoolSpec
from skyward.environment.bundle import EnvironmentBundle, pack
from skyward.environment.user_modules import UserModules
from skyward.errors import BatchLost as Lost
from skyward.errors import BudgetExceeded, NodeError, PoolFailed, SkywardError
from skyward.events import BatchesLate, BatchLost, BatchRetried
from skyward.events import Event as RunEvent
from skyward.providers.provider import LeftToLeash, Provider
from skyward.telemetry.event_log import EventLog, now
from skyward.telemetry.node import Node
from skyward.telemetry.report import Report
from skyward.telemetry.stacks import Stack

if TYPE_CHECKING:
    from skyward.actors.node_client import NodeClient

log = logging.getLogger("skyward")


class Quiet:
    """An observer that notes what casty reports as details: what matters of it, the supervisors say themselves."""

    def wants(self, kind: type[Event], /) -> bool:
        """Leave out the starts and ends of actors."""
        return kind not in (ActivationStarted, ActivationEnded)

    def __call__(self, event: Event, /) -> None:
        log.debug("casty: %s", event)


class Office(ActorSystem):
    """The driver's actor system with its tables.

    Attributes
    ----------
    pool
        The pool's name: its tag at the provider, and part of every node's name.
    entries
        The calls that have not been answered, by number.
    answers
        Outcomes on their way from a link to the router's verdict.
    links
        The connections to the nodes that take calls, by number of node.
    nodes
        The last known node under each number; it stays while the node is being replaced.
    mounts
        The tokens of the mounts of those nodes (see `skyward.remote.mounts`).
    up
        The numbers of the nodes that take calls now, those that are leaving included.
    numbers
        The numbers of all nodes that were ever asked for, without those that are leaving or have left.
    opened, closed
        Done when every node is ready, with an exception if that cannot be; done with what leaked when the pool is gone.
    problems
        The last thing that went wrong with each node.
    left
        The machines that did not answer when they were to be ended, and until when (as `time.monotonic` has it) their
        leash has ended at the latest what runs there.
    lock
        Held while a call is let in, so that none comes in after the pool has failed or begun to end.
    sources
        The user's own modules as nodes are sent them, where its machines are bare.
    routing
        What the router decides by; it alone changes it.
    ledger
        What the slots' time went into.
    record
        Where all that happens is noted.
    runtime
        The threads of all connections.
    clients
        All that were made for connections, for `reclaim`.
    starts
        The steps of each node's last start, and when each began.
    purse
        Who pays for the machines.
    over
        Called when the money is used up.
    has_left
        Called with the number of a node that was told to leave and holds nothing any more.
    arrivals
        For each `Arrived` on its way to the router, when its first call began to be packed and how long all took.
    """

    def __init__(
        self,
        blueprint: PoolSpec,
        pool: str,
        authority: Authority,
        identity: IdentityFiles,
        record: EventLog,
        runtime: Runtime,
    ) -> None:
        super().__init__(observer=Quiet())
        self.blueprint, self.pool, self.authority, self.identity = blueprint, pool, authority, identity
        self.record = record
        self.starts: dict[int, list[tuple[str, float]]] = {}
        self.provider: Provider = blueprint.provider
        self.runtime = runtime
        self.clients: list[Client] = []
        self.entries: dict[int, PendingCall] = {}
        self.answers: dict[int, Answer] = {}
        self.links: dict[int, NodeClient] = {}
        self.nodes: dict[int, Node] = {}
        self.mounts: dict[int, frozenset[str]] = {}
        self.up: set[int] = set()
        self.numbers: set[int] = set()
        self.opened: futures.Future[None] = futures.Future()
        self.closed: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()
        self.problems: dict[int, BaseException] = {}
        self.left: dict[str, float] = {}
        self.routing = RouterState(blueprint.options.prefetch)
        self.ledger = Utilization()
        self.arrivals: deque[tuple[float, float]] = deque()
        self.has_left: Callable[[int], None] = lambda _: None
        self.over: Callable[[], None] = lambda: None
        options = blueprint.options
        self.purse = BudgetGuard(options.budget, options.max_hourly, record, self.run_dry)
        self.hooks = b""
        self.sources = UserModules()
        self._parcel: asyncio.Task[EnvironmentBundle] | None = None
        self.failure: BaseException | None = None
        self.lock = threading.Lock()

    def __new__(
        cls,
        blueprint: PoolSpec,
        pool: str,
        authority: Authority,
        identity: IdentityFiles,
        record: EventLog,
        runtime: Runtime,
    ) -> Self:
        """Make the system; casty takes its arguments here."""
        return super().__new__(cls)

    @classmethod
    def of(cls, system: System) -> Self:
        """Return the office an actor works in."""
        assert isinstance(system, cls), "this actor runs on the driver only"
        return system

    def prepare(self) -> None:
        """Begin to put together what bare machines are sent, once: beside the launch of the first."""
        if self._parcel is None:
            self._parcel = asyncio.create_task(asyncio.to_thread(pack, self.blueprint.image))
            self._parcel.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody asks

    async def parcel(self) -> EnvironmentBundle:
        """Return what bare machines are sent."""
        self.prepare()
        assert self._parcel is not None
        return await asyncio.shield(self._parcel)

    def note(self, event: RunEvent) -> None:
        """Emit an event, and count it."""
        self.ledger.counts.add(event)
        self.record.put(event)

    def settle(self, batches: Iterable[int]) -> None:
        """Give the callers their outcomes."""
        ended: dict[CompletionThread, Ended] = {}
        for batch in batches:
            entry = self.entries.pop(batch, None)
            answer = self.answers.pop(batch, None)
            if answer is None:
                continue
            if entry is None:  # it was cancelled a moment ago
                self._note_late(answer.node, 1, answer.tasks, [answer])
                continue
            ended.setdefault(entry.group.delivery, []).append((entry, answer))
        for delivery, pairs in ended.items():
            self.ledger.packing += (opening := delivery.opening) - delivery.opened
            delivery.opened = opening
            delivery.put(pairs)

    def drop(self, node: int, batches: Iterable[int]) -> None:
        """Forget outcomes that nobody waits for any more."""
        batches = tuple(batches)
        known = [self.answers[batch] for batch in batches if batch in self.answers]
        tasks = len(batches) - len(known) + sum(answer.tasks for answer in known)
        answers = [self.answers.pop(answer.outcome.batch) for answer in known if answer.node == node]
        self._note_late(node, len(batches), tasks, answers)

    def _note_late(self, node: int, batches: int, tasks: int, answers: Sequence[Answer]) -> None:
        raised = sum(answer.outcome.status != "returned" for answer in answers)
        seconds = round(sum(answer.outcome.seconds for answer in answers), 6)
        self.note(BatchesLate(now(), node, batches, tasks, raised, seconds))

    def retry(self, batch: int, cause: str, node: int) -> None:
        """Note that the call is tried again, after it died on a node."""
        call = ""
        if (entry := self.entries.get(batch)) is not None:
            entry.attempt += 1
            call = entry.label
        self.note(BatchRetried(now(), batch, cause, node, call))

    def lose(self, batch: int, causes: Sequence[str]) -> None:
        """Tell the caller that the call is lost."""
        entry = self.entries.pop(batch, None)
        if entry is not None:
            self.note(BatchLost(now(), batch, tuple(causes), entry.tasks, entry.label))
            entry.group.delivery.put([(entry, Lost.after(causes))])

    def report(self) -> Report:
        """Say what the pool has done so far."""
        state = self.routing
        held = {number: len(node.held) for number, node in state.nodes.items()}
        report = self.ledger.report(time.perf_counter(), now(), held, state.deaths)
        clock = time.monotonic()
        left = {name: max(until - clock, 0.0) for name, until in tuple(self.left.items())}
        starts = {
            number: tuple((name, round(end - at, 3)) for (name, at), (_, end) in pairwise(steps))
            for number, steps in sorted(self.starts.items())
        }
        return replace(report, left=left, starts=starts, cost=self.purse.cost(), machines=self.purse.machines)

    def note_step(self, node: int, step: str, at: float) -> None:
        """A node that is being started has come to a step; to a first one when it is launched."""
        if step == "launching":
            self.starts[node] = []
        self.starts.setdefault(node, []).append((step, at))

    async def stacks(self, timeout: float) -> tuple[Stack, ...]:
        """Return where the running calls are, by node and slot; a node that does not answer in time is named."""
        links = dict(self.links)
        answers = await asyncio.gather(
            *(asyncio.wait_for(link.look(), timeout) for link in links.values()), return_exceptions=True
        )
        found: list[Stack] = []
        for number, answer in zip(links, answers, strict=True):
            if isinstance(answer, BaseException):
                found.append(Stack(number, -1, "", timeout, f"it did not answer within {timeout:g} s"))
                continue
            known = [(each, self.entries.get(each.batch)) for each in answer.running]
            for each, entry in known:
                if entry is not None:  # else it has just ended
                    call = await asyncio.to_thread(entry.shown)  # it may run the user's own `__repr__`
                    found.append(Stack(number, each.slot, call, each.seconds, each.text))
        return tuple(sorted(found, key=lambda stack: (stack.node, stack.slot)))

    def leave(self, machine: str, why: LeftToLeash, lease: float) -> None:
        """Note a machine that cannot be ended from here, and that its leash does so in so many seconds."""
        log.warning("%s: %s; its processes will stop by themselves within %.0f s", machine, why, lease)
        self.left.setdefault(machine, time.monotonic() + lease)

    def close_ledger(self) -> None:
        """No time counts any more: what is not answered now will not be."""
        self.ledger.turn(time.perf_counter(), 0, 0, open=False)

    def fail(self, error: BaseException) -> None:
        """End the pool's work: whoever waits, now or later, gets `error`."""
        with self.lock:
            self.failure = error
            left = [self.entries.pop(batch, None) for batch in tuple(self.entries)]
        for entry in left:
            if entry is not None:
                entry.group.delivery.put([(entry, error)])
        if not self.opened.done():
            self.opened.set_exception(error)

    def run_dry(self, error: BudgetExceeded) -> None:
        """The money is used up: the callers are told, and the machines are ended, whether the block is left or not."""
        log.warning("%s", error)
        self.fail(error)
        self.over()

    @contextlib.contextmanager
    def vital(self, actor: str) -> Iterator[None]:
        """Run an actor that must not fail: one that raised has lost what it knew, so the pool fails, loudly."""
        try:
            yield
        except Exception as error:
            log.exception("the %s failed, and so the pool failed", actor)
            failure = PoolFailed(f"the {actor} failed: {traceback.format_exception_only(error)[-1].strip()}")
            failure.__cause__ = error
            self.fail(failure)
            if not self.closed.done() and actor == "provisioner":
                self.closed.set_exception(failure)

    def problem(self, node: int, reason: str) -> BaseException:
        """Return the error for the user about a node that is not available."""
        match self.problems.get(node):
            case None:
                return NodeError(f"node {node}: {reason}")
            case SkywardError() as found:
                return found
            case found:
                failed = PoolFailed(f"node {node}: {reason}")
                failed.__cause__ = found
                return failed
