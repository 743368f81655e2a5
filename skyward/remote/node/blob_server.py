"""Receive and serve large buffers on a node: the actor at the end of the driver's second connection."""

from collections.abc import Mapping
from typing import assert_never

from casty import Context, Ref, System, actor

from skyward.remote import blobs, failure_line
from skyward.remote.blobs import MISSING_BLOB, Blob
from skyward.remote.node.gateway import NodeSystem
from skyward.remote.protocol import CHUNK_BYTES, FOREVER, Batch, Chunk, Drop, Fetch, Freight, Store, Stored


@actor(initial=0, pinned=True, idle_after=FOREVER, ask_timeout=FOREVER)
async def store(ctx: Context[int, Freight]) -> None:
    """The blob server of a node."""
    assert isinstance(ctx.system, NodeSystem), "this actor runs on a node only"
    serve = ctx.system.serve_blobs
    with failure_line.end_node_on_error("an actor of the node failed"):
        async for message in ctx.inbox:
            serve(message)


def ref(system: System, address: str) -> Ref[Freight]:
    """Return the blob server of the node at `address`, of which `system` is a client."""
    return system.ref(store, "store", at=address)


class BlobServer:
    """Owns the large buffers that the node was sent, and the large results that the driver has not fetched.

    Attributes
    ----------
    blobs
        The complete buffers, by name.
    results
        The results, by number of batch.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, Blob] = {}
        self.results: dict[int, Blob] = {}
        self._round = 0
        self._blob: Blob | None = None  # it arrives, in this round, and has these offsets
        self._offsets: set[int] = set()

    def places(self, batch: Batch) -> Mapping[str, blobs.Ref]:
        """Return where the large buffers of a batch are, by name; `MISSING_BLOB` for one that is not here."""
        if batch.places:
            return dict(zip(batch.blobs, batch.places, strict=True))
        return {name: self.blobs[name].ref if name in self.blobs else MISSING_BLOB for name in batch.blobs}

    def keep_result(self, batch: int, result: Blob) -> None:
        """Keep the large result of a batch until the driver has it."""
        self.results[batch] = result

    def drop_result(self, batch: int) -> None:
        """Drop the large result of a batch, if it has one."""
        self.results.pop(batch, None)

    def handle(self, message: Freight) -> None:
        """Carry out a message of the driver, and answer it."""
        match message:
            case Store():
                message.reply_to.tell(Stored(self._keep(message)))
            case Drop(names, results):
                if names and self._is_current(message.round):
                    self._blob = None
                    for name in names:
                        self.blobs.pop(name, None)
                for batch in results:
                    self.drop_result(batch)
                message.reply_to.tell(Stored())
            case Fetch(batch, at):
                result = self.results.get(batch)
                message.reply_to.tell(Chunk(b"" if result is None else result.read(at, CHUNK_BYTES)))
            case _:
                assert_never(message)

    def _is_current(self, number: int) -> bool:
        """Begin a new round if the number is that of one; a message of an earlier round was held up and is ignored."""
        if number > self._round:
            self._round, self._blob = number, None
        return number == self._round

    def _keep(self, chunk: Store) -> str:
        """Keep a chunk, and the blob once it is complete; return why that is not possible, else an empty string."""
        if not self._is_current(chunk.round) or chunk.name in self.blobs:
            return ""
        try:
            if self._blob is None:
                self._blob, self._offsets = Blob(chunk.size, chunk.name), set()
            self._blob.write(chunk.at, chunk.data)
        except OSError as error:
            self._blob = None
            return f"it cannot keep a large buffer of {chunk.size:,} bytes: {error.strerror}"
        self._offsets.add(chunk.at)
        if len(self._offsets) == len(range(0, chunk.size, CHUNK_BYTES)):
            self._blob.seal()
            self.blobs[chunk.name], self._blob = self._blob, None
        return ""
