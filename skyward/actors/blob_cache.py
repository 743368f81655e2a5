"""The contents of a node's store, and what to evict before more fits in. Pure: no I/O, no clock, no actor.

The driver is the only one to fill a node's store, so it knows what is there. What no batch on the node needs stays
until its room is wanted: the next call may bring it again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class BlobCache:
    """The store of one node.

    Attributes
    ----------
    limit
        Bytes that it may hold. One that is needed goes in all the same when nothing else can leave.
    present
        Size in bytes of each blob there, or on its way, by name, the one not used for longest first.
    coming
        The one that is on its way.
    needs
        The blobs of each batch that is on the node or on its way.
    users
        How many such batches need a blob.
    """

    limit: int
    present: dict[str, int] = field(default_factory=dict)
    coming: str | None = None
    needs: dict[int, tuple[str, ...]] = field(default_factory=dict)
    users: Counter[str] = field(default_factory=Counter)

    def need(self, batch: int, names: Iterable[str]) -> None:
        """Note that a batch comes which needs these."""
        self.done(batch)
        needed = self.needs[batch] = tuple(names)
        self.users.update(needed)
        for name in needed:
            if name in self.present:
                self.present[name] = self.present.pop(name)

    def done(self, batch: int) -> None:
        """Note that a batch has left the node."""
        for name in self.needs.pop(batch, ()):
            self.users[name] -= 1
            if not self.users[name]:
                del self.users[name]

    def missing(self, batch: int) -> list[str]:
        """Return what a batch needs and is not there."""
        return [name for name in self.needs.get(batch, ()) if name not in self.present or name == self.coming]

    def arrived(self) -> None:
        """Note that the one on its way is there."""
        self.coming = None

    def failed(self, name: str) -> None:
        """Note that this one, which was on its way, is not there."""
        self.coming = None
        del self.present[name]

    def admit(self, name: str, size: int) -> tuple[str, ...]:
        """Let a blob come, one at a time, and return what has to go for it."""
        gone = []
        held = sum(self.present.values()) + size
        for old, freed in _unused(self.present, self.users).items():
            if held <= self.limit:
                break
            gone.append(old)
            held -= freed
        for old in gone:
            del self.present[old]
        self.present[name] = size
        self.coming = name
        return tuple(gone)


def _unused(present: Mapping[str, int], users: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in present.items() if name not in users}
