"""A pool without nodes: its calls run when the test says so."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from skyward.calls.blob_store import BlobStore
from skyward.calls.completion import Answer, CompletionThread, CompletionThreads, PendingCall
from skyward.remote.future import Future
from skyward.remote.protocol import Outcome
from skyward.remote.serialization import call_codec


class CountedThreads(CompletionThreads):
    """Counts the threads that were released."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.back = 0
        self.came_back = threading.Event()

    def release(self, thread: CompletionThread) -> None:
        super().release(thread)
        self.back += 1
        self.came_back.set()


class Cluster:
    """A pool that runs a call when the test says so."""

    def __init__(self) -> None:
        self.numbers: Iterator[int] = itertools.count(1)
        self.blob_store = BlobStore()
        self.completion_threads = CountedThreads("results")
        self.blob_threshold = 1 << 20
        self.has_budget = False
        self.sources = None
        self.reloaded: Callable[[], tuple[str, ...]] = tuple
        self.entries: dict[int, PendingCall] = {}
        self.forgotten: list[int] = []
        self.counted: list[tuple[int, int, bool]] = []
        self.sent = threading.Event()

    def reaches(self, token: str) -> bool:
        return True

    def send(self, entries: list[PendingCall]) -> None:
        self.entries.update((entry.future.batch, entry) for entry in entries)
        self.sent.set()

    def count(self, group: int, tasks: int, *, final: bool) -> None:
        self.counted.append((group, tasks, final))

    def forget(self, batches: Iterable[int]) -> None:
        self.forgotten += batches

    def shown(self, batch: int) -> str:
        return f"call {batch}"

    def end(self, future: Future[Any]) -> None:
        """Have the call end on slot 3 of node 5, after 7 seconds."""
        entry = self.entries.pop(future.batch)
        packed = entry.packed
        blobs = {blob.name: blob.ref for blob in packed.blobs}
        status, parts = call_codec.execute(packed.payload, call_codec.beside(packed.functions, blobs, packed.buffers))
        outcome = Outcome(future.batch, status, bytes(parts[0]), 7.0, 3)
        entry.group.completion.put([(entry, Answer(outcome, 5))])
