"""Where large buffers come and go on a node: the actor at the end of a link's second connection."""

from typing import assert_never

from casty import Context, Ref, System, actor

from skyward.remote.blobs import Blob
from skyward.remote.door import Entrance
from skyward.remote.protocol import CHUNK, FOREVER, Chunk, Drop, Fetch, Freight, Store, Stored
from skyward.remote.room import Room


@actor(initial=0, pinned=True, idle_after=FOREVER, ask_timeout=FOREVER)
async def store(ctx: Context[int, Freight]) -> None:
    """The store of a node."""
    assert isinstance(ctx.system, Entrance), "this actor runs on a node only"
    room = ctx.system.room
    with room.vital():
        async for message in ctx.inbox:
            _handle(room, message)


def ref(system: System, address: str) -> Ref[Freight]:
    """Return the store of the node at `address`, of which `system` is a client."""
    return system.ref(store, "store", at=address)


def _handle(room: Room, message: Freight) -> None:
    match message:
        case Store(name, size, at, data):
            blob = room.blobs.get(name)
            if blob is None:
                blob = room.blobs[name] = Blob(size, name)
            blob.write(at, data)
            message.reply_to.tell(Stored())
        case Drop(names, results):
            for name in names:
                room.blobs.pop(name, None)
            for batch in results:
                room.results.pop(batch, None)
            message.reply_to.tell(Stored())
        case Fetch(batch, at):
            result = room.results.get(batch)
            message.reply_to.tell(Chunk(b"" if result is None else result.read(at, CHUNK)))
        case _:
            assert_never(message)
