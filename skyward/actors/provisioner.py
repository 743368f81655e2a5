"""One provisioner per provider: how many machines should exist, and is any left over? `scaling` decides, this acts."""

import asyncio
import logging
from contextlib import closing
from typing import assert_never

from casty import Context, Ref, System, actor

from skyward.actors import lifecycle, router, routing, scaling, supervisor
from skyward.actors.office import Office
from skyward.events import NodeGivenUp
from skyward.providers.provider import LeftToLeash, SupportsClear
from skyward.remote.protocol import FOREVER
from skyward.telemetry.event_log import now

log = logging.getLogger("skyward")

type Message = scaling.Event

SCALING_INTERVAL_S = 1.0
"""Seconds between two looks at what an elastic pool has to do."""


@actor(initial=0, idle_after=FOREVER)
async def provisioner(ctx: Context[int, Message]) -> None:
    """The provisioner; its key is the provider's name."""
    acting = _Provisioner(ctx)
    with acting.office.vital("provisioner"), closing(acting):
        async for event in ctx.inbox:
            acting.handle(event)


def ref(system: System) -> Ref[Message]:
    """Return the provisioner of the pool's provider."""
    return system.ref(provisioner, Office.of(system).provider.name)


class _Provisioner:
    def __init__(self, ctx: Context[int, Message]) -> None:
        self.office = Office.of(ctx.system)
        self.me = ctx.self
        self.state = scaling.Scaling(self.office.blueprint.options.launch_attempts)
        self.tasks: set[asyncio.Task[None]] = set()
        self.idle_since: dict[int, float] = {}
        self.pauses: dict[int, asyncio.TimerHandle] = {}
        self.looking: asyncio.TimerHandle | None = None
        self.office.over = lambda: self.me.tell(scaling.Closing())
        self.office.has_left = lambda node: self.me.tell(scaling.NodeDrained(node))
        if self.office.blueprint.nodes.elastic:
            self.look_later()

    def handle(self, event: Message) -> None:
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

    def perform(self, effect: scaling.Effect) -> None:
        office = self.office
        match effect:
            case scaling.Start(node, generation):
                supervisor.ref(office, node, generation).tell(supervisor.Begin(boss=self.me))
                office.numbers.add(node)
                router.ref(office).tell(routing.NodeComing(node))
            case scaling.Pause(node, generation, seconds, reason):
                log.warning("node %s failed again; restarting it in %g s: %s", node, seconds, reason)
                paused = scaling.Paused(node, generation)
                self.pauses[node] = asyncio.get_running_loop().call_later(seconds, self.me.tell, paused)
            case scaling.ReportWaiting(node, reason):
                log.warning("will request node %s again once the departing one is gone: %s", node, reason)
            case scaling.DrainNode(node):
                log.info("node %s is draining: it finishes its running calls and gets no new ones", node)
                office.numbers.discard(node)
                router.ref(office).tell(routing.Drain(node))
            case scaling.Dismiss(node, generation):
                supervisor.ref(office, node, generation).tell(lifecycle.Dismissed())
            case scaling.ReportOpened():
                if not office.opened.done():
                    office.opened.set_result(None)
            case scaling.ReportFailed(node, reason):
                office.fail(office.problem(node, reason))
            case scaling.ReportGivenUp(node, reason):
                if reason:
                    log.warning("giving up on node %s; the pool continues without it: %s", node, reason)
                office.record.put(NodeGivenUp(now(), node, reason))
                office.nodes.pop(node, None)
                router.ref(office).tell(routing.NodeGivenUp(node, reason or f"node {node} has left the pool"))
            case scaling.Sweep():
                task = asyncio.create_task(self.sweep())
                self.tasks.add(task)
            case scaling.ReportClosed(leaked):
                if not office.closed.done():
                    office.closed.set_result(leaked)
            case _:
                assert_never(effect)

    def look_later(self) -> None:
        self.looking = asyncio.get_running_loop().call_later(SCALING_INTERVAL_S, self.look)

    def look(self) -> None:
        """Say what waits for slots, and who has nothing to do."""
        if self.state.closing:
            return
        clock, state = asyncio.get_running_loop().time(), self.office.routing
        empty = [number for number, node in state.nodes.items() if not node.held]
        self.idle_since = {number: self.idle_since.get(number, clock) for number in empty}
        idle = {number: clock - since for number, since in self.idle_since.items()}
        slots = max((node.slots for node in state.nodes.values()), default=1)
        self.me.tell(scaling.ScalingTick(state.waiting(), slots, idle))
        self.look_later()

    async def sweep(self) -> None:
        """End whatever still carries the pool's tag, though every supervisor says that its machine is gone.

        Then remove what the machines shared.
        """
        leaked: list[str] = []
        asked = True
        try:
            for instance in await self.office.provider.find(self.office.pool):
                log.info("%s is still running although its launch was abandoned; terminating it", instance.id)
                try:
                    await self.office.provider.terminate(instance)
                    self.office.left.pop(instance.id, None)
                except LeftToLeash as error:
                    self.office.leave(instance.id, error, self.office.blueprint.options.lease)
                except Exception as error:  # noqa: BLE001 - whatever a provider raises, the others are swept
                    log.warning("could not terminate %s: %s", instance.id, error)
                    leaked.append(instance.id)
            if isinstance(self.office.provider, SupportsClear):
                leaked += [each for each in await self.office.provider.clear(self.office.pool) if each not in leaked]
        except Exception as error:  # noqa: BLE001 - it is reported
            log.warning("%s: cannot check what is left: %s", self.office.provider.name, error)
            leaked.append(f"whatever is left of {self.office.pool}")
            asked = False
        self.me.tell(scaling.Swept(tuple(leaked), asked))
