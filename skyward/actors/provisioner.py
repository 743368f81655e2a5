"""One provisioner per provider: how many machines should exist, and is any left over? `scaling` decides, this acts."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import closing
from typing import assert_never

from casty import Context, DefaultedActor, actor

from skyward.actors import lifecycle, routing, scaling, supervisor
from skyward.actors.node_table import NodeTable
from skyward.actors.pool_context import PoolContext
from skyward.actors.pool_status import Guard, PoolStatus
from skyward.actors.router_state import PoolLoad
from skyward.events import NodeGivenUp
from skyward.providers.provider import LeftToLease, SupportsClear
from skyward.remote.protocol import FOREVER
from skyward.telemetry.event_log import now

log = logging.getLogger("skyward")

SCALING_INTERVAL_S = 1.0
"""Seconds between two looks at what an elastic pool has to do."""


class Provisioner:
    """Carries out what `scaling` decides.

    Parameters
    ----------
    context
        The configuration of the pool.
    nodes
        Where it is noted which nodes there should be.
    status
        Is told when the pool is open, has failed, or is closed.
    load
        Returns what waits for slots, and which nodes have nothing to do.
    route, supervise, tell
        Send a message to the router, to the supervisor of a generation of a node, and to this provisioner.
    """

    def __init__(
        self,
        context: PoolContext,
        nodes: NodeTable,
        status: PoolStatus,
        load: Callable[[], PoolLoad],
        *,
        route: Callable[[routing.RoutingEvent], None],
        supervise: Callable[[int, int, supervisor.SupervisorMessage], None],
        tell: Callable[[scaling.ScalingEvent], None],
    ) -> None:
        self.context, self.nodes, self.status, self.load = context, nodes, status, load
        self.route, self.supervise, self.tell = route, supervise, tell
        self.state = scaling.Scaling(context.spec.options.launch_attempts)
        self.tasks: set[asyncio.Task[None]] = set()
        self.idle_since: dict[int, float] = {}
        self.pauses: dict[int, asyncio.TimerHandle] = {}
        self.looking: asyncio.TimerHandle | None = None
        if context.spec.nodes.elastic:
            self.look_later()

    def handle(self, event: scaling.ScalingEvent) -> None:
        """Take the next step, and forget the pauses that it has ended."""
        self.state, effects = scaling.step(self.state, event)
        for effect in effects:
            self.perform(effect)
        nodes = self.state.nodes
        for number in [each for each in self.pauses if each not in nodes or not nodes[each].pausing]:
            self.pauses.pop(number).cancel()

    def close(self) -> None:
        """Cancel what would be said later: nobody can be told once the system has stopped."""
        for timer in (*self.pauses.values(), *([] if self.looking is None else [self.looking])):
            timer.cancel()

    def perform(self, effect: scaling.ScalingEffect) -> None:
        match effect:
            case scaling.StartNode(node, generation):
                self.supervise(node, generation, supervisor.Begin())
                self.nodes.request(node)
                self.route(routing.NodeComing(node))
            case scaling.Pause(node, generation, seconds, reason):
                log.warning("node %s failed again; restarting it in %g s: %s", node, seconds, reason)
                paused = scaling.Paused(node, generation)
                self.pauses[node] = asyncio.get_running_loop().call_later(seconds, self.tell, paused)
            case scaling.ReportWaiting(node, reason):
                log.warning("will request node %s again once the departing one is gone: %s", node, reason)
            case scaling.DrainNode(node):
                log.info("node %s is draining: it finishes its running calls and gets no new ones", node)
                self.nodes.drain(node)
                self.route(routing.Drain(node))
            case scaling.Dismiss(node, generation):
                self.supervise(node, generation, lifecycle.Dismissed())
            case scaling.ReportOpened():
                self.status.open()
            case scaling.ReportFailed(node, reason):
                self.status.fail(self.nodes.error(node, reason))
            case scaling.ReportGivenUp(node, reason):
                if reason:
                    log.warning("giving up on node %s; the pool continues without it: %s", node, reason)
                self.context.record.put(NodeGivenUp(now(), node, reason))
                self.nodes.give_up(node)
                self.route(routing.NodeRemoved(node, reason or f"node {node} has left the pool"))
            case scaling.Sweep():
                task = asyncio.create_task(self.sweep())
                self.tasks.add(task)
            case scaling.ReportClosed(leaked):
                self.status.close(leaked)
            case _:
                assert_never(effect)

    def look_later(self) -> None:
        self.looking = asyncio.get_running_loop().call_later(SCALING_INTERVAL_S, self.look)

    def look(self) -> None:
        """Say what waits for slots, and who has nothing to do."""
        if self.state.closing:
            return
        clock, load = asyncio.get_running_loop().time(), self.load()
        self.idle_since = {number: self.idle_since.get(number, clock) for number in load.empty}
        idle = {number: clock - since for number, since in self.idle_since.items()}
        self.tell(scaling.ScalingTick(load.waiting, load.slots, idle))
        self.look_later()

    async def sweep(self) -> None:
        """End whatever still carries the pool's tag, though every supervisor says that its machine is gone.

        Then remove what the machines shared.
        """
        leaked: list[str] = []
        asked = True
        provider, pool = self.context.provider, self.context.pool
        try:
            for instance in await provider.find(pool):
                log.info("%s is still running although its launch was abandoned; terminating it", instance.id)
                try:
                    await provider.terminate(instance)
                    self.nodes.terminated(instance.id)
                except LeftToLease as error:
                    self.nodes.leave(instance.id, error, self.context.spec.options.lease)
                except Exception as error:  # noqa: BLE001 - whatever a provider raises, the others are swept
                    log.warning("could not terminate %s: %s", instance.id, error)
                    leaked.append(instance.id)
            if isinstance(provider, SupportsClear):
                leaked += [each for each in await provider.clear(pool) if each not in leaked]
        except Exception as error:  # noqa: BLE001 - it is reported
            log.warning("%s: cannot check what is left: %s", provider.name, error)
            leaked.append(f"whatever is left of {pool}")
            asked = False
        self.tell(scaling.Swept(tuple(leaked), asked))


def define(
    make: Callable[[Callable[[scaling.ScalingEvent], None]], Provisioner], guard: Guard
) -> DefaultedActor[int, scaling.ScalingEvent]:
    """Define the provisioner of a pool; its key is the provider's name."""

    @actor(initial=0, idle_after=FOREVER)
    async def provisioner(ctx: Context[int, scaling.ScalingEvent]) -> None:
        with guard("provisioner"), closing(make(ctx.self.tell)) as acting:
            async for event in ctx.inbox:
                acting.handle(event)

    return provisioner
