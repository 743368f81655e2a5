"""The one router of a pool: who runs what, and was it answered? `routing` decides, this acts."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Protocol, assert_never

from casty import Context, DefaultedActor, actor

from skyward.actors import routing
from skyward.actors.call_table import CallTable
from skyward.actors.placement import REBALANCE_INTERVAL_S
from skyward.actors.pool_status import Guard
from skyward.remote.protocol import FOREVER


class BatchSender(Protocol):
    """The connection to a node, as the router knows it."""

    def assign(self, batches: Sequence[int]) -> None:
        """Send these batches soon."""

    def revoke(self, batches: Sequence[int], *, kill: bool) -> None:
        """Ask these batches back."""


class Router:
    """Carries out what `routing` decides.

    Parameters
    ----------
    calls
        The calls that it routes.
    client
        Returns the connection to a node, or None when it has just been lost and the router is about to hear of it.
    drained
        Called with the number of a node that was told to drain and holds nothing any more.
    tell
        Sends the router a message.
    """

    def __init__(
        self,
        calls: CallTable,
        client: Callable[[int], BatchSender | None],
        drained: Callable[[int], None],
        tell: Callable[[routing.RoutingEvent], None],
    ) -> None:
        self._calls, self._client, self._drained, self._tell = calls, client, drained, tell
        self._rebalance: asyncio.TimerHandle | None = None

    def hear(self, event: routing.RoutingEvent) -> None:
        """Take one step."""
        for effect in self._calls.decide(event):
            self._perform(effect)
        self._calls.account(event)

    def close(self) -> None:
        """Cancel the timer: nobody can be told once the system has stopped."""
        if self._rebalance is not None:
            self._rebalance.cancel()

    def _perform(self, effect: routing.RoutingEffect) -> None:
        match effect:
            case routing.AssignBatches(node, batches):
                if client := self._client(node):
                    client.assign(batches)
            case routing.RevokeBatches(node, batches, kill):
                if client := self._client(node):
                    client.revoke(batches, kill=kill)
            case routing.Complete(batches):
                self._calls.settle(batches)
            case routing.DiscardLate(node, batches):
                self._calls.discard_late(node, batches)
            case routing.Retry(batch, cause, node):
                self._calls.retry(batch, cause, node)
            case routing.Fail(batch, causes):
                self._calls.lose(batch, causes)
            case routing.Drained(node):
                self._drained(node)
            case routing.ScheduleRebalance():
                loop = asyncio.get_running_loop()
                self._rebalance = loop.call_later(REBALANCE_INTERVAL_S, self._tell, routing.RebalanceTick())
            case _:
                assert_never(effect)


def define(
    make: Callable[[Callable[[routing.RoutingEvent], None]], Router], guard: Guard
) -> DefaultedActor[int, routing.RoutingEvent]:
    """Define the router of a pool; its key is the pool."""

    @actor(initial=0, idle_after=FOREVER)
    async def router(ctx: Context[int, routing.RoutingEvent]) -> None:
        with guard("router"), closing(make(ctx.self.tell)) as acting:
            async for event in ctx.inbox:
                acting.hear(event)

    return router
