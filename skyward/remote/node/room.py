"""The state that a node's actors share and no message carries: payloads, outcomes, the executor.

A `Room` is the node's local `ActorSystem`, so an actor finds it as `ctx.system` and there is no state of a module.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Self

from casty import ActorSystem, System

from skyward.remote import failure_line
from skyward.remote.blobs import MISSING, Blob, Ref
from skyward.remote.node import slot_state
from skyward.remote.node.executor import Executor
from skyward.remote.protocol import Batch, Opening, Outcome, Request


class Room(ActorSystem):
    """The node's local actor system, of foreman and slots, with its tables.

    Attributes
    ----------
    slots
        How many slots the node has.
    threads
        Whether they are threads of one process; nothing can be taken back from those.
    requests
        What came over the wire and the foreman has not taken yet, by number.
    batches
        The batches that are queued or running, by number.
    outcomes
        The outcomes that the driver has not acknowledged, by number of batch.
    openings
        Of the outcomes, how their batches were opened where that took long, by number.
    functions
        Functions by value, by name.
    blobs
        The large buffers that the node was sent, by name.
    results
        Large results that the driver has not fetched, by number of batch.
    notice
        What was said of the end of this machine, if it is about to be taken away.
    executor
        Runs the batches.
    renew
        Called whenever the driver was heard.
    """

    executor: Executor

    def __new__(cls, *, slots: int, threads: bool, renew: Callable[[], None]) -> Self:
        """Make the system; casty takes its arguments here, and gets none."""
        return super().__new__(cls)

    def __init__(self, *, slots: int, threads: bool, renew: Callable[[], None]) -> None:
        super().__init__()
        self.slots, self.threads, self.renew = slots, threads, renew
        self.requests: dict[int, Request] = {}
        self.batches: dict[int, Batch] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.openings: dict[int, Opening] = {}
        self.functions: dict[str, bytes] = {}
        self.blobs: dict[str, Blob] = {}
        self.results: dict[int, Blob] = {}
        self.notice = ""
        self._ears: dict[int, Callable[[slot_state.Event], None]] = {}

    @classmethod
    def of(cls, system: System) -> Self:
        """Return the room an actor runs in."""
        assert isinstance(system, cls), "this actor runs on a node only"
        return system

    def places(self, batch: Batch) -> dict[str, Ref]:
        """Return where the large buffers of a batch are, by name; `MISSING` for one that the node does not have."""
        if batch.places:
            return dict(zip(batch.blobs, batch.places, strict=True))
        return {name: self.blobs[name].ref if name in self.blobs else MISSING for name in batch.blobs}

    def keep(self, outcome: Outcome, result: Blob | None, opening: Opening | None) -> None:
        """Keep the outcome of a batch, with its result if that is large, and its opening if that took long."""
        self.outcomes[outcome.batch] = outcome
        if result is not None:
            self.results[outcome.batch] = result
        if opening is not None:
            self.openings[outcome.batch] = opening

    def listen(self, slot: int, ear: Callable[[slot_state.Event], None]) -> None:
        """Have the executor tell this slot through `ear`."""
        self._ears[slot] = ear

    def tell(self, slot: int, event: slot_state.Event) -> None:
        """Tell a slot what happened to its worker."""
        self._ears[slot](event)

    @contextlib.contextmanager
    def vital(self) -> Iterator[None]:
        """Run an actor that must not fail: one that raised has lost what it knew, so the node ends and is replaced."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it ends the node
            failure_line.report_exception("an actor of the node failed", error)
            os._exit(failure_line.SAID)

    def fail(self, reason: str) -> None:
        """End the node, and say why."""
        failure_line.report(reason)
        os._exit(failure_line.SAID)
