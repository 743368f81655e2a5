"""The node's only door: the one actor that a driver reaches. It decides nothing, and hands all to the foreman."""

from typing import Self

from casty import ActorSystem, Cluster, Context, Ref, Runtime, System, actor

from skyward.remote.node import agent
from skyward.remote.node.room import Room
from skyward.remote.protocol import FOREVER, Request


class ClusterSystem(ActorSystem):
    """The node as the driver sees it: a cluster of one, on 127.0.0.1, that leads into `room`."""

    def __new__(cls, *, cluster: Cluster, runtime: Runtime, room: Room) -> Self:
        """Make the system; casty takes its arguments here."""
        return super().__new__(cls, cluster=cluster, runtime=runtime)  # type: ignore[call-arg]

    def __init__(self, *, cluster: Cluster, runtime: Runtime, room: Room) -> None:
        super().__init__(cluster=cluster, runtime=runtime)
        self.room = room


@actor(initial=0, pinned=True, idle_after=FOREVER, ask_timeout=FOREVER)
async def gateway(ctx: Context[int, Request]) -> None:
    """The door of a node."""
    assert isinstance(ctx.system, ClusterSystem), "this actor runs on a node only"
    room = ctx.system.room
    inside = agent.ref(room)
    number = 0
    with room.vital():
        async for request in ctx.inbox:
            number += 1
            room.requests[number] = request
            inside.tell(agent.RequestReceived(number))


def ref(system: System, address: str) -> Ref[Request]:
    """Return the door of the node at `address`, of which `system` is a client."""
    return system.ref(gateway, "door", at=address)
