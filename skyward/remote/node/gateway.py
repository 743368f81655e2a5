"""The gateway of a node: the only actor that a driver's requests reach.

It exists because a message on a clustered system of casty costs ten times as much as on a local one. So agent and slots
live on a local system, and this actor hands them what arrives over the wire.
"""

from collections.abc import Callable

from casty import ActorSystem, Context, Ref, System, actor

from skyward.remote import failure_line
from skyward.remote.protocol import FOREVER, Freight, Request


class NodeSystem(ActorSystem):
    """The clustered system of a node, with the functions that its two actors, this one and the blob server, call.

    Casty starts both by their names when the driver's first message arrives, and passes them nothing but the system.
    """

    answer: Callable[[Request], None]
    serve_blobs: Callable[[Freight], None]


@actor(initial=0, pinned=True, idle_after=FOREVER, ask_timeout=FOREVER)
async def gateway(ctx: Context[int, Request]) -> None:
    """The gateway of a node."""
    assert isinstance(ctx.system, NodeSystem), "this actor runs on a node only"
    answer = ctx.system.answer
    with failure_line.end_node_on_error("an actor of the node failed"):
        async for request in ctx.inbox:
            answer(request)


def ref(system: System, address: str) -> Ref[Request]:
    """Return the gateway of the node at `address`, of which `system` is a client."""
    return system.ref(gateway, "gateway", at=address)
