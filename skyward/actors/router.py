"""The one router of a pool: who runs what, and was it answered? `routing` decides, this acts."""

import asyncio
import time
from typing import assert_never

from casty import Context, Ref, System, actor

from skyward.actors import routing
from skyward.actors.office import Office
from skyward.actors.placement import REBALANCE_INTERVAL_S
from skyward.events import BatchesCancelled
from skyward.remote.protocol import FOREVER
from skyward.telemetry.event_log import now as clock

type Message = routing.Event


@actor(initial=0, idle_after=FOREVER)
async def router(ctx: Context[int, Message]) -> None:
    """The router; its key is the pool."""
    office = Office.of(ctx.system)
    state = office.routing
    look: asyncio.TimerHandle | None = None
    try:
        with office.vital("router"):
            async for event in ctx.inbox:
                for effect in routing.step(state, event):
                    if isinstance(effect, routing.ScheduleRebalance):
                        look = asyncio.get_running_loop().call_later(
                            REBALANCE_INTERVAL_S, ctx.self.tell, routing.RebalanceTick()
                        )
                    else:
                        perform(office, effect)
                enter(office, event)
    finally:
        if look is not None:
            look.cancel()  # nobody can be told once the system has stopped


def enter(office: Office, event: routing.Event) -> None:
    """Enter in the ledger what the turn changed."""
    ledger, state, now = office.ledger, office.routing, time.perf_counter()
    match event:
        case routing.Arrived():
            began, packing = office.arrivals.popleft()
            ledger.arrive(began, now, packing)
        case routing.NodeUp(node, slots):
            ledger.come(node, slots)
        case routing.NodeGivenUp(node):
            ledger.go(node)
        case routing.Cancelled(batches):
            office.note(BatchesCancelled(clock(), len(batches)))
        case _:
            pass
    ledger.turn(now, state.filled, state.slots, open=bool(state.items))


def perform(
    office: Office,
    effect: routing.Assign
    | routing.Revoke
    | routing.Complete
    | routing.DiscardLate
    | routing.Retry
    | routing.Fail
    | routing.Drained,
) -> None:
    """Carry out one effect. A node without a link has just been lost; the router is about to hear of it."""
    match effect:
        case routing.Assign(node, batches):
            if link := office.links.get(node):
                link.assign(batches)
        case routing.Revoke(node, batches, kill):
            if link := office.links.get(node):
                link.revoke(batches, kill=kill)
        case routing.Complete(batches):
            office.settle(batches)
        case routing.DiscardLate(node, batches):
            office.drop(node, batches)
        case routing.Retry(batch, cause, node):
            office.retry(batch, cause, node)
        case routing.Fail(batch, causes):
            office.lose(batch, causes)
        case routing.Drained(node):
            office.has_left(node)
        case _:
            assert_never(effect)


def ref(system: System) -> Ref[Message]:
    """Return the router of the pool."""
    return system.ref(router, Office.of(system).pool)
