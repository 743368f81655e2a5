"""Where large buffers come and go on a node: the actor at the end of a link's second connection."""

from typing import assert_never

from casty import Context, Ref, System, actor

from skyward.remote.blobs import Blob
from skyward.remote.door import Entrance
from skyward.remote.protocol import CHUNK, FOREVER, Chunk, Drop, Fetch, Freight, Store, Stored
from skyward.remote.room import Room

type _Arriving = dict[str, tuple[Blob, set[int]]]
"""By name: the blobs that are not complete, and the offsets of the chunks that they have."""


@actor(initial=0, pinned=True, idle_after=FOREVER, ask_timeout=FOREVER)
async def store(ctx: Context[int, Freight]) -> None:
    """The store of a node."""
    assert isinstance(ctx.system, Entrance), "this actor runs on a node only"
    room = ctx.system.room
    arriving: _Arriving = {}
    with room.vital():
        async for message in ctx.inbox:
            _handle(room, arriving, message)


def ref(system: System, address: str) -> Ref[Freight]:
    """Return the store of the node at `address`, of which `system` is a client."""
    return system.ref(store, "store", at=address)


def _handle(room: Room, arriving: _Arriving, message: Freight) -> None:
    match message:
        case Store():
            message.reply_to.tell(Stored(_keep(room, arriving, message)))
        case Drop(names, results):
            for name in names:
                arriving.pop(name, None)
                room.blobs.pop(name, None)
            for batch in results:
                room.results.pop(batch, None)
            message.reply_to.tell(Stored())
        case Fetch(batch, at):
            result = room.results.get(batch)
            message.reply_to.tell(Chunk(b"" if result is None else result.read(at, CHUNK)))
        case _:
            assert_never(message)


def _keep(room: Room, arriving: _Arriving, chunk: Store) -> str:
    """Keep a chunk, and the blob once it is complete; return why that is not possible, else nothing."""
    if chunk.name in room.blobs:
        return ""  # it was sent twice
    try:
        if chunk.name not in arriving:
            arriving[chunk.name] = Blob(chunk.size, chunk.name), set()
        blob, offsets = arriving[chunk.name]
        blob.write(chunk.at, chunk.data)
    except OSError as error:
        arriving.pop(chunk.name, None)
        return f"it cannot keep a large buffer of {chunk.size:,} bytes: {error.strerror}"
    offsets.add(chunk.at)
    if len(offsets) == len(range(0, chunk.size, CHUNK)):
        blob.seal()
        room.blobs[chunk.name] = blob
        del arriving[chunk.name]
    return ""
