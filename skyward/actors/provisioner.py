"""One provisioner per provider: how many machines should exist, and is any left over? `scaling` decides, this acts."""

import asyncio
import logging
from typing import assert_never

from casty import Context, Ref, System, actor

from skyward.actors import lifecycle, router, routing, scaling, supervisor
from skyward.actors.office import Office
from skyward.remote.protocol import FOREVER

log = logging.getLogger("skyward")

type Message = scaling.Event


@actor(initial=0, idle_after=FOREVER)
async def provisioner(ctx: Context[int, Message]) -> None:
    """The provisioner; its key is the provider's name."""
    acting = _Provisioner(ctx)
    with acting.office.vital("provisioner"):
        async for event in ctx.inbox:
            acting.state, effects = scaling.step(acting.state, event)
            for effect in effects:
                acting.perform(effect)


def ref(system: System) -> Ref[Message]:
    """Return the provisioner of the pool's provider."""
    return system.ref(provisioner, Office.of(system).provider.name)


class _Provisioner:
    def __init__(self, ctx: Context[int, Message]) -> None:
        self.office = Office.of(ctx.system)
        self.me = ctx.self
        self.state = scaling.Scaling(self.office.blueprint.options.launch_attempts)
        self.tasks: set[asyncio.Task[None]] = set()

    def perform(self, effect: scaling.Effect) -> None:
        office = self.office
        match effect:
            case scaling.Start(node, generation):
                supervisor.ref(office, node, generation).tell(supervisor.Begin(boss=self.me))
            case scaling.Dismiss(node, generation):
                supervisor.ref(office, node, generation).tell(lifecycle.Dismissed())
            case scaling.ReportOpened():
                if not office.opened.done():
                    office.opened.set_result(None)
            case scaling.ReportFailed(node, reason):
                office.fail(office.problem(node, reason))
            case scaling.ReportGivenUp(node, reason):
                log.warning("node %s is not tried again, and the pool goes on without it: %s", node, reason)
                office.nodes.pop(node, None)
                router.ref(office).tell(routing.NodeGivenUp(node, reason))
            case scaling.Sweep():
                task = asyncio.create_task(self.sweep())
                self.tasks.add(task)
            case scaling.ReportClosed(leaked):
                if not office.closed.done():
                    office.closed.set_result(leaked)
            case _:
                assert_never(effect)

    async def sweep(self) -> None:
        """End whatever still carries the pool's tag, though every supervisor says that its machine is gone.

        Then remove what the machines shared.
        """
        leaked: list[str] = []
        asked = True
        try:
            for instance in await self.office.provider.find(self.office.pool):
                log.warning("%s outlived its supervisor; ending it", instance.id)
                try:
                    await self.office.provider.terminate(instance)
                except Exception as error:  # noqa: BLE001 - whatever a provider raises, the others are swept
                    log.warning("%s could not be ended: %s", instance.id, error)
                    leaked.append(instance.id)
            leaked += await self.office.provider.clear(self.office.pool)
        except Exception as error:  # noqa: BLE001 - it is reported
            log.warning("%s could not be asked what is left: %s", self.office.provider.name, error)
            leaked.append(f"whatever is left of {self.office.pool}")
            asked = False
        self.me.tell(scaling.Swept(tuple(leaked), asked))
