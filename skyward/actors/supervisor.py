"""One supervisor per instance: what state is it in, and what comes next? `lifecycle` decides, this acts.

It owns the machine, the node's process and the link, and is the only one to launch and, but for the last sweep, to end
a machine.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, assert_never

from casty import Context, DefaultedActor, actor

from skyward.actors import lifecycle, routing, scaling
from skyward.actors.budget import BudgetGuard
from skyward.actors.call_table import CallTable
from skyward.actors.connection import NodeConnection
from skyward.actors.node_client import NodeClient
from skyward.actors.node_starter import BundleTask, NodeStarter
from skyward.actors.node_table import NodeTable
from skyward.actors.pool_context import PoolContext
from skyward.actors.pool_status import Guard
from skyward.errors import (
    BootFailed,
    BudgetExceeded,
    Denied,
    InvalidArgument,
    MissingExtra,
    NodeError,
    QuotaExceeded,
    explain,
)
from skyward.events import NodeChanged, NodeHeard, NodeNoticed, NodeSilent, Stage
from skyward.providers.provider import Host, Instance, LeftToLease, Order, SupportsAcknowledged
from skyward.remote.node_messages import NodeStarted
from skyward.remote.protocol import FOREVER
from skyward.telemetry.event_log import now
from skyward.telemetry.node import Node

log = logging.getLogger("skyward")

OUTPUT_DRAIN_TIMEOUT_S = 1.0
"""Seconds in which the output of a node that has ended is read to its end."""

PERMANENT_ERRORS = (BudgetExceeded, Denied, InvalidArgument, MissingExtra, QuotaExceeded)
"""What would happen to another node as well."""

STAGE_NAMES: dict[type[lifecycle.NodeStage], Stage] = {
    lifecycle.Launching: "launching",
    lifecycle.Reaching: "reaching",
    lifecycle.Booting: "booting",
    lifecycle.Joining: "joining",
    lifecycle.Ready: "ready",
    lifecycle.Unresponsive: "ready",
    lifecycle.Ending: "ending",
    lifecycle.Ended: "ended",
}
"""What those who look on are told of the stages."""

TERMINATE_RETRY_DELAY_S = 0.1
"""Doubled with every attempt to end a machine, seconds before the next one."""

JOIN_TIMEOUT_S = 15.0
"""Seconds that a node which says it is up has to accept the connection."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Bring up a node."""


type SupervisorMessage = Begin | lifecycle.LifecycleEvent


class Supervisor:
    """Carries out what `lifecycle` decides for one machine.

    Parameters
    ----------
    context
        The configuration of the pool.
    calls
        The calls that the node may be given.
    nodes
        Where it is noted what has become of the node.
    budget
        Who pays for the machine.
    bundle
        What a bare machine is sent.
    number, generation
        The node's number, and how many machines came under it before.
    route, report, tell
        Send a message to the router, to the provisioner and to this supervisor.
    """

    stage: lifecycle.NodeStage = lifecycle.Launching()
    said: NodeStarted
    renewing: asyncio.Task[None]

    def __init__(
        self,
        context: PoolContext,
        calls: CallTable,
        nodes: NodeTable,
        budget: BudgetGuard,
        bundle: BundleTask,
        *,
        number: int,
        generation: int,
        route: Callable[[routing.RoutingEvent], None],
        report: Callable[[scaling.ScalingEvent], None],
        tell: Callable[[SupervisorMessage], None],
    ) -> None:
        self.context, self.calls, self.nodes, self.budget, self.bundle = context, calls, nodes, budget, bundle
        self.number, self.generation = number, generation
        self.route, self.report, self.tell = route, report, tell
        self.name = f"{context.pool}-{number}-{generation}"
        self.provider, self.options = context.provider, context.spec.options
        self.instance: Instance | None = None
        self.host: Host | None = None
        self.link: NodeClient | None = None
        self.start: NodeStarter | None = None
        self.port = 0
        self.since: float | None = None
        self.noticed = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.timers: list[asyncio.TimerHandle] = []

    def hear(self, message: SupervisorMessage) -> None:
        if isinstance(message, Begin):
            self.stage, effects = lifecycle.begin()
            self.note(None)
        else:
            before = self.stage
            if isinstance(message, lifecycle.StartOverdue):
                self.note_overdue()
            self.stage, effects = lifecycle.step(before, message)
            log.debug("node %s: %s: %s -> %s", self.name, message, before, self.stage)
            self.note(before)
        for effect in effects:
            self.perform(effect)

    def perform(self, effect: lifecycle.LifecycleEffect) -> None:
        options = self.options
        match effect:
            case lifecycle.Launch():
                self.do("launch", self.launch)
            case lifecycle.Reach():
                self.do("reach", self.reach)
            case lifecycle.Boot():
                self.do("boot", self.boot)
            case lifecycle.Join():
                self.do("join", self.join)
            case lifecycle.WaitStart():
                self.later(options.start_timeout, lifecycle.StartOverdue())
            case lifecycle.WaitGrace(silence):
                log.info("node %s is silent; its calls move to other nodes in %g s", self.name, options.grace)
                self.later(options.grace, lifecycle.GraceOver(silence))
            case lifecycle.AnnounceUp():
                self.announce()
            case lifecycle.AnnounceDown(reason):
                log.log(logging.DEBUG if reason == "dismissed" else logging.WARNING, "node %s: %s", self.name, reason)
                self.nodes.down(self.number)
                self.route(routing.NodeDown(self.number, f"node {self.number}: {reason}"))
            case lifecycle.Terminate(attempt):
                for task in self.tasks:
                    task.cancel()
                task = asyncio.create_task(self.terminate(attempt))
                self.tasks = {task}
            case lifecycle.ReportEnd(reason, leaked, final):
                for timer in self.timers:
                    timer.cancel()
                left = self.called() if leaked else ""
                served = 0.0 if self.since is None else asyncio.get_running_loop().time() - self.since
                self.report(scaling.NodeEnded(self.number, self.generation, reason, left, final, served))
            case _:
                assert_never(effect)

    def note_overdue(self) -> None:
        """Keep what is known of a start that takes too long; of a node that is ready nobody asks for it."""
        stage, limit = STAGE_NAMES[type(self.stage)], self.options.start_timeout
        text = f"node {self.number} was not ready within {limit:g} s (Options(start_timeout=)): it was {stage}"
        self.nodes.note_problem(self.number, BootFailed(text, log="" if self.start is None else self.start.log))

    def note(self, before: lifecycle.NodeStage | None) -> None:
        """Note the stage, if it is another one."""
        put, grace = self.context.record.put, self.options.grace
        match before, self.stage:
            case _, lifecycle.Unresponsive():
                if not isinstance(before, lifecycle.Unresponsive):
                    put(NodeSilent(now(), self.number, grace))
            case lifecycle.Unresponsive(), lifecycle.Ready():
                put(NodeHeard(now(), self.number))
            case _ if type(before) is not type(self.stage):
                at, machine = now(), self.instance
                stage: Stage = STAGE_NAMES[type(self.stage)]
                if stage not in ("ending", "ended"):
                    self.nodes.note_step(self.number, stage, at)
                reason = getattr(self.stage, "reason", "")
                where = ("", "") if machine is None else (machine.id, machine.host)
                slots = self.said.slots if stage == "ready" else 0
                put(NodeChanged(at, self.number, self.generation, stage, reason, *where, slots))

    def do(
        self,
        step: Literal["launch", "reach", "boot", "join"],
        work: Callable[[], Coroutine[Any, Any, lifecycle.LifecycleEvent]],
    ) -> None:
        """Do the work beside the actor, which hears what came of it."""

        async def done() -> None:
            try:
                event = await work()  # not begun before: this task may be cancelled until then
            except Exception as error:  # noqa: BLE001 - whatever a provider raises is an event here
                if isinstance(error, OSError):  # a limit of this machine or of the other one, not a fault of the pool
                    problem = NodeError(f"node {self.number}, step {step!r}: {explain(error)}")
                    problem.__cause__ = error
                    error = problem
                self.nodes.note_problem(self.number, error)
                final = isinstance(error, PERMANENT_ERRORS) or (isinstance(error, NodeError) and error.final)
                event = lifecycle.Failed(step, f"{type(error).__name__}: {error}", final)
            self.tell(event)

        self.keep(done())

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def later(self, seconds: float, event: lifecycle.LifecycleEvent) -> None:
        self.timers.append(asyncio.get_running_loop().call_later(seconds, self.tell, event))

    async def launch(self) -> lifecycle.LifecycleEvent:
        if self.provider.bare:
            self.bundle.start()
        order = Order(self.context.pool, self.name, self.options.lease, self.budget, self.is_wanted)
        self.instance = await self.provider.launch(order)
        self.budget.begin(self.instance.id, self.instance.hourly)
        return lifecycle.Launched()

    def is_wanted(self) -> bool:
        """Whether the machine that is being launched still has a use."""
        return isinstance(self.stage, lifecycle.Launching) and self.stage.unwanted is None

    async def reach(self) -> lifecycle.LifecycleEvent:
        assert self.instance is not None
        self.host = await self.provider.reach(self.instance)
        return lifecycle.Reached()

    async def boot(self) -> lifecycle.LifecycleEvent:
        """Start the node, and wait until it says where it listens."""
        assert self.host is not None
        assert self.instance is not None
        slots = self.instance.slots
        self.start = NodeStarter(
            self.context,
            self.number,
            self.name,
            self.host,
            slots,
            bundle=self.bundle.result,
            note_step=self.nodes.note_step,
            exited=self.note_exit,
        )
        self.renewing = asyncio.create_task(self.start.renew())
        self.tasks.add(self.renewing)
        self.said = await self.start.run()
        self.port = await self.host.tunnel(self.said.port)
        return lifecycle.Booted()

    def note_exit(self, reason: str) -> None:
        self.tell(lifecycle.NodeExited(reason))

    def note_notice(self, said: str) -> None:
        """The machine is about to be taken away."""
        if not self.noticed:
            self.noticed = True
            self.context.record.put(NodeNoticed(now(), self.number, said))
            log.warning("node %s: its machine is about to be reclaimed; requesting another: %s", self.name, said)
            self.report(scaling.Noticed(self.number, self.generation))

    async def join(self) -> lifecycle.LifecycleEvent:
        assert self.host is not None
        kept = self.options.blob_store or self.said.memory // 2
        address = f"127.0.0.1:{self.said.port}"
        self.link = NodeClient(
            self.number,
            connect=partial(
                NodeConnection,
                partial(self.context.clients.make, self.name, address, self.port),
                cluster=self.name,
                address=address,
                acknowledged=self.host.acknowledged if isinstance(self.host, SupportsAcknowledged) else None,
            ),
            calls=self.calls,
            bundles=self.context.modules.bundles,
            record=self.context.record,
            tell=self.route,
            store_size=None if self.host.shares_memory else kept,
            heard=lambda alive: self.tell(lifecycle.Heard() if alive else lifecycle.Silenced()),
            noticed=self.note_notice,
            broken=self.note_exit,
        )
        await self.link.open(JOIN_TIMEOUT_S)
        self.renewing.cancel()
        return lifecycle.Joined()

    def announce(self) -> None:
        assert self.link is not None
        assert self.instance is not None
        node = Node(self.number, self.instance.id, self.instance.host, self.said.slots)
        self.nodes.up(node, frozenset(self.said.mounts), self.link)
        self.since = asyncio.get_running_loop().time()
        self.route(routing.NodeUp(self.number, self.said.slots, self.link.round_trip))
        self.report(scaling.NodeReady(self.number, self.generation))

    async def terminate(self, attempt: int) -> None:
        """Let go of the node and end its machine; when the launch never answered, whatever carries the node's tag."""
        await asyncio.sleep(0 if attempt == 1 else TERMINATE_RETRY_DELAY_S * 2.0**attempt)
        try:
            await self.end()
        except LeftToLease as error:
            self.leave(error)
            self.tell(lifecycle.Terminated())
        except Exception as error:  # noqa: BLE001 - it is an event, and tried again
            log.warning("node %s: cannot terminate its machine: %s", self.name, error)
            self.tell(lifecycle.TerminateFailed(f"{type(error).__name__}: {error}"))
        else:
            self.tell(lifecycle.Terminated())

    def leave(self, why: LeftToLease) -> None:
        """Note a machine that does not answer, and when whatever runs there has ended itself at the latest."""
        self.nodes.leave(self.called(), why, self.options.lease)

    async def end(self) -> None:
        """Let go, which may fail; then end the machine, which must not; then hear what the node still had to say.

        A machine that does not notice that the driver lets go is let go of last, as what the node says comes from it.
        """
        host = self.host
        tethered = host is None or host.tethered
        await self.let_go(host if tethered else None, self.link)
        self.link = None
        known = [] if self.instance is None else [self.instance]
        try:
            for instance in known or await self.provider.find(self.context.pool):
                if instance.name == self.name:
                    await self.provider.terminate(instance)
                    self.budget.end(instance.id)
        finally:
            if self.start is not None and (watching := self.start.watching) is not None:
                await asyncio.wait({watching}, timeout=OUTPUT_DRAIN_TIMEOUT_S)
                watching.cancel()
            await self.let_go(None if tethered else host)

    async def let_go(self, *held: Host | NodeClient | None) -> None:
        for each in held:
            try:
                if each is not None:
                    await each.close()
            except Exception:
                log.warning("node %s: cannot release it", self.name, exc_info=True)

    def called(self) -> str:
        """What its machine is known by."""
        return self.name if self.instance is None else self.instance.id

    async def give_up(self) -> None:
        """This supervisor has failed, and the pool with it: end the machine all the same, and say so."""
        for task in self.tasks:
            task.cancel()
        self.nodes.down(self.number)
        left = ""
        try:
            await self.end()
        except LeftToLease as error:
            self.leave(error)
        except Exception:
            log.warning("node %s: cannot terminate its machine", self.name, exc_info=True)
            left = self.called()
        self.report(scaling.NodeEnded(self.number, self.generation, "its supervisor failed", left))


def define(
    make: Callable[[int, int, Callable[[SupervisorMessage], None]], Supervisor], guard: Guard
) -> DefaultedActor[int, SupervisorMessage]:
    """Define the supervisors of a pool; the key of one is `number.generation`."""

    @actor(initial=0, idle_after=FOREVER)
    async def supervisor(ctx: Context[int, SupervisorMessage]) -> None:
        number, _, generation = ctx.key.partition(".")
        acting = make(int(number), int(generation), ctx.self.tell)
        with guard("supervisor"):
            async for message in ctx.inbox:
                acting.hear(message)
                if isinstance(acting.stage, lifecycle.Ended):
                    return
        await acting.give_up()

    return supervisor


def key(number: int, generation: int) -> str:
    """Return the key of the supervisor of this generation of a node."""
    return f"{number}.{generation}"
