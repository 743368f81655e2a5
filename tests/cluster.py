"""A pool without nodes: its calls run when the test says so."""

import itertools
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from skyward.delivery import Answer, Entry
from skyward.remote import wire
from skyward.remote.future import Future
from skyward.remote.protocol import Outcome
from skyward.shelf import Shelf


class Cluster:
    """A pool that runs a call when the test says so."""

    def __init__(self) -> None:
        self.numbers: Iterator[int] = itertools.count(1)
        self.shelf = Shelf()
        self.blob_threshold = 1 << 20
        self.sources = None
        self.entries: dict[int, Entry] = {}
        self.forgotten: list[int] = []
        self.dropped: list[str] = []
        self.drops = 0
        self.letting_go = threading.Event()
        self.sent = threading.Event()

    def send(self, entries: list[Entry]) -> None:
        self.entries.update((entry.future.batch, entry) for entry in entries)
        self.sent.set()

    def forget(self, batches: Iterable[int]) -> None:
        self.forgotten += batches

    def drop(self, functions: Iterable[str]) -> None:
        self.drops += 1
        self.dropped += functions
        self.letting_go.set()

    def end(self, future: Future[Any]) -> None:
        """Have the call end on slot 3 of node 5, after 7 seconds."""
        entry = self.entries.pop(future.batch)
        functions = {name: wire.load_function(entry.functions[name]) for name in entry.packed.functions}
        blobs = {blob.name: blob.ref for blob in entry.packed.blobs}
        status, parts = wire.execute(entry.packed.payload, wire.Beside(functions, blobs, entry.packed.buffers))
        outcome = Outcome(future.batch, status, bytes(parts[0]), 7.0, 3)
        entry.group.delivery.put([(entry, Answer(outcome, 5))])
