"""One supervisor per instance: what state is it in, and what comes next? `lifecycle` decides, this acts.

It owns the machine, the node's process and the link, and is the only one to launch and, but for the last sweep, to end
a machine.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from casty import Context, Ref, System, actor

from skyward.actors import lifecycle, router, routing, scaling
from skyward.actors.node_client import NodeClient
from skyward.actors.node_starter import NodeStarter
from skyward.actors.office import Office
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
from skyward.providers.provider import Host, Instance, LeftToLeash, Order, SupportsAcknowledged
from skyward.remote.node_messages import NodeStarted
from skyward.remote.protocol import FOREVER
from skyward.telemetry.event_log import now
from skyward.telemetry.node import Node

log = logging.getLogger("skyward")

LAST_WORDS = 1.0
"""Seconds in which the output of a node that has ended is read to its end."""

FINAL = (BudgetExceeded, Denied, InvalidArgument, MissingExtra, QuotaExceeded)
"""What would happen to another node as well."""

STAGES: dict[type[lifecycle.Stage], Stage] = {
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

JOIN = 15.0
"""Seconds that a node which says it is up has to accept the connection."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Bring up a node, and report to `boss`."""

    boss: Ref[scaling.Event]


type Message = Begin | lifecycle.Event


@actor(initial=0, idle_after=FOREVER)
async def supervisor(ctx: Context[int, Message]) -> None:
    """The supervisor of one node; its key is `number.generation`."""
    acting = _Supervisor(ctx)
    with acting.office.vital("supervisor"):
        async for message in ctx.inbox:
            acting.hear(message)
            if isinstance(acting.stage, lifecycle.Ended):
                return
    await acting.give_up()


def ref(system: System, node: int, generation: int) -> Ref[Message]:
    """Return the supervisor of this generation of a node."""
    return system.ref(supervisor, f"{node}.{generation}")


class _Supervisor:
    stage: lifecycle.Stage = lifecycle.Launching()
    said: NodeStarted
    renewing: asyncio.Task[None]

    def __init__(self, ctx: Context[int, Message]) -> None:
        self.office = Office.of(ctx.system)
        self.me = ctx.self
        number, _, generation = ctx.key.partition(".")
        self.number, self.generation = int(number), int(generation)
        self.name = f"{self.office.pool}-{self.number}-{self.generation}"
        self.provider = self.office.provider
        self.router = router.ref(ctx.system)
        self.instance: Instance | None = None
        self.host: Host | None = None
        self.link: NodeClient | None = None
        self.start: NodeStarter | None = None
        self.port = 0
        self.since: float | None = None
        self.noticed = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.timers: list[asyncio.TimerHandle] = []

    def hear(self, message: Message) -> None:
        if isinstance(message, Begin):
            self.boss = message.boss
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

    def perform(self, effect: lifecycle.Effect) -> None:
        options = self.office.blueprint.options
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
                self.office.links.pop(self.number, None)
                self.office.up.discard(self.number)
                self.router.tell(routing.NodeDown(self.number, f"node {self.number}: {reason}"))
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
                self.boss.tell(scaling.NodeEnded(self.number, self.generation, reason, left, final, served))
            case _:
                assert_never(effect)

    def note_overdue(self) -> None:
        """Keep what is known of a start that takes too long; of a node that is ready nobody asks for it."""
        stage, limit = STAGES[type(self.stage)], self.office.blueprint.options.start_timeout
        text = f"node {self.number} was not ready within {limit:g} s (Options(start_timeout=)): it was {stage}"
        self.office.problems[self.number] = BootFailed(text, log="" if self.start is None else self.start.log)

    def note(self, before: lifecycle.Stage | None) -> None:
        """Note the stage, if it is another one."""
        put, grace = self.office.record.put, self.office.blueprint.options.grace
        match before, self.stage:
            case _, lifecycle.Unresponsive():
                if not isinstance(before, lifecycle.Unresponsive):
                    put(NodeSilent(now(), self.number, grace))
            case lifecycle.Unresponsive(), lifecycle.Ready():
                put(NodeHeard(now(), self.number))
            case _ if type(before) is not type(self.stage):
                at, machine = now(), self.instance
                stage: Stage = STAGES[type(self.stage)]
                if stage not in ("ending", "ended"):
                    self.office.note_step(self.number, stage, at)
                reason = getattr(self.stage, "reason", "")
                where = ("", "") if machine is None else (machine.id, machine.host)
                slots = self.said.slots if stage == "ready" else 0
                put(NodeChanged(at, self.number, self.generation, stage, reason, *where, slots))

    def do(
        self,
        step: Literal["launch", "reach", "boot", "join"],
        work: Callable[[], Coroutine[Any, Any, lifecycle.Event]],
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
                self.office.problems[self.number] = error
                final = isinstance(error, FINAL) or (isinstance(error, NodeError) and error.final)
                event = lifecycle.Failed(step, f"{type(error).__name__}: {error}", final)
            self.me.tell(event)

        self.keep(done())

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def later(self, seconds: float, event: lifecycle.Event) -> None:
        self.timers.append(asyncio.get_running_loop().call_later(seconds, self.me.tell, event))

    async def launch(self) -> lifecycle.Event:
        if self.provider.bare:
            self.office.prepare()
        lease, purse = self.office.blueprint.options.lease, self.office.purse
        self.instance = await self.provider.launch(Order(self.office.pool, self.name, lease, purse, self.is_wanted))
        purse.begin(self.instance.id, self.instance.hourly)
        return lifecycle.Launched()

    def is_wanted(self) -> bool:
        """Whether the machine that is being launched still has a use."""
        return isinstance(self.stage, lifecycle.Launching) and self.stage.unwanted is None

    async def reach(self) -> lifecycle.Event:
        assert self.instance is not None
        self.host = await self.provider.reach(self.instance)
        return lifecycle.Reached()

    async def boot(self) -> lifecycle.Event:
        """Start the node, and wait until it says where it listens."""
        assert self.host is not None
        assert self.instance is not None
        slots = self.instance.slots
        self.start = NodeStarter(self.office, self.number, self.name, self.host, slots, self.note_exit)
        self.renewing = asyncio.create_task(self.start.renew())
        self.tasks.add(self.renewing)
        self.said = await self.start.run()
        self.port = await self.host.tunnel(self.said.port)
        return lifecycle.Booted()

    def note_exit(self, reason: str) -> None:
        self.me.tell(lifecycle.Exited(reason))

    def note_notice(self, said: str) -> None:
        """The machine is about to be taken away."""
        if not self.noticed:
            self.noticed = True
            self.office.record.put(NodeNoticed(now(), self.number, said))
            log.warning("node %s: its machine is about to be reclaimed; requesting another: %s", self.name, said)
            self.boss.tell(scaling.Noticed(self.number, self.generation))

    async def join(self) -> lifecycle.Event:
        assert self.host is not None
        kept = self.office.blueprint.options.blob_store or self.said.memory // 2
        self.link = NodeClient(
            self.office,
            self.number,
            cluster=self.name,
            address=f"127.0.0.1:{self.said.port}",
            port=self.port,
            store_size=None if self.host.shares_memory else kept,
            heard=lambda alive: self.me.tell(lifecycle.Heard() if alive else lifecycle.Silenced()),
            noticed=self.note_notice,
            acknowledged=self.host.acknowledged if isinstance(self.host, SupportsAcknowledged) else None,
            broken=self.note_exit,
        )
        await self.link.open(JOIN)
        self.renewing.cancel()
        return lifecycle.Joined()

    def announce(self) -> None:
        assert self.link is not None
        assert self.instance is not None
        self.office.links[self.number] = self.link
        self.office.nodes[self.number] = Node(self.number, self.instance.id, self.instance.host, self.said.slots)
        self.office.mounts[self.number] = frozenset(self.said.mounts)
        self.office.up.add(self.number)
        self.since = asyncio.get_running_loop().time()
        self.router.tell(routing.NodeUp(self.number, self.said.slots, self.link.round_trip))
        self.boss.tell(scaling.NodeReady(self.number, self.generation))

    async def terminate(self, attempt: int) -> None:
        """Let go of the node and end its machine; when the launch never answered, whatever carries the node's tag."""
        await asyncio.sleep(0 if attempt == 1 else TERMINATE_RETRY_DELAY_S * 2.0**attempt)
        try:
            await self.end()
        except LeftToLeash as error:
            self.leave(error)
            self.me.tell(lifecycle.Terminated())
        except Exception as error:  # noqa: BLE001 - it is an event, and tried again
            log.warning("node %s: cannot terminate its machine: %s", self.name, error)
            self.me.tell(lifecycle.TerminateFailed(f"{type(error).__name__}: {error}"))
        else:
            self.me.tell(lifecycle.Terminated())

    def leave(self, why: LeftToLeash) -> None:
        """Note a machine that does not answer, and when whatever runs there has ended itself at the latest."""
        self.office.leave(self.called(), why, self.office.blueprint.options.lease)

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
            for instance in known or await self.provider.find(self.office.pool):
                if instance.node == self.name:
                    await self.provider.terminate(instance)
                    self.office.purse.end(instance.id)
        finally:
            if self.start is not None and (watching := self.start.watching) is not None:
                await asyncio.wait({watching}, timeout=LAST_WORDS)
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
        self.office.links.pop(self.number, None)
        left = ""
        try:
            await self.end()
        except LeftToLeash as error:
            self.leave(error)
        except Exception:
            log.warning("node %s: cannot terminate its machine", self.name, exc_info=True)
            left = self.called()
        self.boss.tell(scaling.NodeEnded(self.number, self.generation, "its supervisor failed", left))
