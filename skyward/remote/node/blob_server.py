"""Receive and serve large buffers on a node: the actor at the end of a link's second connection."""

from typing import assert_never

from casty import Context, Ref, System, actor

from skyward.remote.blobs import Blob
from skyward.remote.node.gateway import ClusterSystem
from skyward.remote.node.room import Room
from skyward.remote.protocol import CHUNK, FOREVER, Chunk, Drop, Fetch, Freight, Store, Stored


@actor(initial=0, pinned=True, idle_after=FOREVER, ask_timeout=FOREVER)
async def store(ctx: Context[int, Freight]) -> None:
    """The store of a node."""
    assert isinstance(ctx.system, ClusterSystem), "this actor runs on a node only"
    held = _Store(ctx.system.room)
    with held.room.vital():
        async for message in ctx.inbox:
            held.handle(message)


def ref(system: System, address: str) -> Ref[Freight]:
    """Return the store of the node at `address`, of which `system` is a client."""
    return system.ref(store, "store", at=address)


class _Store:
    """What the store holds beside the room: the blob that arrives, the offsets it has, and the round of both."""

    def __init__(self, room: Room) -> None:
        self.room, self.round = room, 0
        self.blob: Blob | None = None
        self.offsets: set[int] = set()

    def handle(self, message: Freight) -> None:
        match message:
            case Store():
                message.reply_to.tell(Stored(self.keep(message)))
            case Drop(names, results):
                if names and self.is_current(message.round):
                    self.blob = None
                    for name in names:
                        self.room.blobs.pop(name, None)
                for batch in results:
                    self.room.results.pop(batch, None)
                message.reply_to.tell(Stored())
            case Fetch(batch, at):
                result = self.room.results.get(batch)
                message.reply_to.tell(Chunk(b"" if result is None else result.read(at, CHUNK)))
            case _:
                assert_never(message)

    def is_current(self, number: int) -> bool:
        """Begin a new round; say no to a message of an earlier one, which a lost connection has held up."""
        if number > self.round:
            self.round, self.blob = number, None
        return number == self.round

    def keep(self, chunk: Store) -> str:
        """Keep a chunk, and the blob once it is complete; return why that is not possible, else nothing."""
        if not self.is_current(chunk.round) or chunk.name in self.room.blobs:
            return ""
        try:
            if self.blob is None:
                self.blob, self.offsets = Blob(chunk.size, chunk.name), set()
            self.blob.write(chunk.at, chunk.data)
        except OSError as error:
            self.blob = None
            return f"it cannot keep a large buffer of {chunk.size:,} bytes: {error.strerror}"
        self.offsets.add(chunk.at)
        if len(self.offsets) == len(range(0, chunk.size, CHUNK)):
            self.blob.seal()
            self.room.blobs[chunk.name], self.blob = self.blob, None
        return ""
