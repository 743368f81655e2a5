"""The protocol with one node over its line: assign, revoke, collect.

Commands go one at a time and numbered, and each is repeated until it is answered; outcomes are collected by one long
poll after the other, each acknowledging what came before. So a broken connection delays things and changes nothing.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from weakref import WeakSet

from skyward.actors import routing
from skyward.actors.blob_cache import BlobCache
from skyward.actors.blob_transfer import BlobTransfer
from skyward.actors.call_table import CallTable
from skyward.actors.connection import NodeConnection
from skyward.calls.completion import Answer, PendingCall
from skyward.events import NOT_COUNTED, BatchesEnded, BatchesReturned, BatchesSent, NodeFacts, ResultsLost
from skyward.remote.blobs import Blob
from skyward.remote.node import blob_server, gateway
from skyward.remote.protocol import Assign, Batch, Collect, Facts, Look, Opening, Outcome, Revoke, Seen
from skyward.remote.serialization import exceptions
from skyward.telemetry.event_log import EventLog, now

ANSWER_TIMEOUT_S = 5.0
"""Seconds after which a request that was not answered is repeated; a large one is given longer."""

COLLECT_WAIT_S = 10.0
"""Seconds that a node may leave a `Collect` unanswered when it has nothing."""

MAX_FUNCTION_BYTES = 64 << 20
"""Bytes of functions by value that a node keeps for calls to come."""

MAX_ASSIGN_BYTES = 8 << 20
"""Bytes of payload after which an `Assign` is sent and the next one begun."""


@dataclass(frozen=True, slots=True)
class _Revocation:
    batches: tuple[int, ...]
    kill: bool


class _SentBatch(NamedTuple):
    """What is said of a batch on the node, also when nobody waits for it any more."""

    name: str = ""
    tasks: int = 1
    first: int = NOT_COUNTED


_UNNAMED_BATCH = _SentBatch()


class NodeClient:
    """The connection to one node, once it is up.

    Parameters
    ----------
    node
        The number of the node.
    connect
        Makes a connection to an actor of the node, as `NodeConnection` does.
    calls
        The calls that the numbers stand for.
    bundles
        The user's own modules as the node is sent them, by name.
    record
        Where it is noted what is sent to the node and what it answers.
    tell
        Tells the router something.
    store_size
        Bytes of large buffers that the node may keep; None when it finds them in this process's memory.
    heard
        Called with whether the node was heard, whenever that changes.
    noticed
        Called when the node says that its machine is about to be taken away, once or more often.
    broken
        Called with the reason when this end of the connection has failed, which is a bug; the node is of no more use.
    """

    def __init__(
        self,
        node: int,
        *,
        connect: Callable[..., NodeConnection],
        calls: CallTable,
        bundles: Mapping[str, bytes],
        record: EventLog,
        tell: Callable[[routing.RoutingEvent], None],
        store_size: int | None,
        heard: Callable[[bool], None],
        noticed: Callable[[str], None],
        broken: Callable[[str], None],
    ) -> None:
        self._node, self._calls, self._bundles, self._record, self._tell = node, calls, bundles, record, tell
        self._noticed, self._broken = noticed, broken
        self._line = connect(gateway.ref, heard=heard, measured=self._measured, said=self._said)
        self._bulk = None if store_size is None else BlobTransfer(connect(blob_server.ref), store_size)
        self._orders: deque[tuple[int, ...] | _Revocation] = deque()
        self._functions = BlobCache(MAX_FUNCTION_BYTES)
        self._wake = asyncio.Event()
        self._number = 0
        self._told = 0.0
        self._loads: deque[int] = deque()
        self._loading = asyncio.Event()
        self._fetched: list[int] = []
        self._sent: dict[int, _SentBatch] = {}
        self._unfetched: dict[int, tuple[Outcome, int]] = {}  # large results to come, and the tasks of their batches
        self._mapped: WeakSet[Blob] = WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, timeout: float) -> None:
        """Connect, and begin to collect.

        Raises
        ------
        Unreachable
            The node did not accept the connection within `timeout` seconds.
        """
        await self._line.open(timeout)
        for loop in (self._send(), self._collect(), self._line.watch(), self._load()):
            self._run(loop)

    async def close(self) -> None:
        """Stop, and let go of the connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._unfetched:
            self._results_lost(tuple(self._unfetched))
        await self._line.close()
        if self._bulk is not None:
            await self._bulk.close()

    def assign(self, batches: Sequence[int]) -> None:
        """Send these batches soon, each after the large buffers that it needs and the node lacks."""
        ready = [batch for batch in batches if not self._must_load(batch)]
        if ready:
            self._order(tuple(ready))

    def revoke(self, batches: Sequence[int], *, kill: bool) -> None:
        """Ask these batches back, after everything that was assigned before."""
        here = tuple(batch for batch in batches if batch in self._loads)
        if here:
            for batch in here:
                self._loads.remove(batch)
            self._give_back(here)
        if there := tuple(batch for batch in batches if batch not in here):
            self._order(_Revocation(there, kill))

    async def look(self) -> Seen:
        """Ask what runs on the node, and where it is."""
        return await self._line.ask(Look(), ANSWER_TIMEOUT_S)

    @property
    def sends_buffers(self) -> bool:
        """Whether the node is sent large buffers; else it finds them in this process's memory."""
        return self._bulk is not None

    @property
    def round_trip(self) -> float:
        """Seconds that the way there and back takes."""
        return self._line.round_trip

    def _measured(self, seconds: float) -> None:
        """Tell the router of a round trip that has changed by a tenth."""
        if abs(seconds - self._told) > 0.1 * self._told:
            self._told = seconds
            self._tell(routing.Measured(self._node, seconds))

    def _said(self, facts: Facts) -> None:
        used = facts.load, facts.memory, round(facts.cpu, 4), facts.total
        self._record.put(NodeFacts(now(), self._node, facts.queued, facts.running, *used))
        if facts.notice:
            self._noticed(facts.notice)

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._orders:
                if isinstance(order := self._orders[0], _Revocation):
                    self._orders.popleft()
                    await self._revoke(order)
                else:
                    await self._assign()

    def _order(self, order: tuple[int, ...] | _Revocation) -> None:
        self._orders.append(order)
        self._wake.set()

    def _give_back(self, batches: tuple[int, ...]) -> None:
        self._left(batches)
        gone = tuple(batch for batch in batches if self._calls.get(batch) is None)
        self._tell(routing.GaveBack(self._node, batches, batches, gone))

    def _left(self, batches: Sequence[int]) -> None:
        """These batches are not on the node any more."""
        for batch in batches:
            self._sent.pop(batch, None)
            self._functions.done(batch)
            if self._bulk is not None:
                self._bulk.stock.done(batch)

    # ------------------------------------------------------------ large buffers

    def _must_load(self, batch: int) -> bool:
        entry = self._calls.get(batch)
        if self._bulk is None or entry is None or not entry.packed.blobs:
            return False
        self._bulk.stock.need(batch, (blob.name for blob in entry.packed.blobs))
        if not self._bulk.stock.missing(batch):
            return False
        self._loads.append(batch)
        self._loading.set()
        return True

    async def _load(self) -> None:
        """Bring what batches need to the node, one after the other."""
        while self._bulk is not None:
            await self._loading.wait()
            self._loading.clear()
            while self._loads:
                await self._load_next(self._bulk, self._loads[0])

    async def _load_next(self, bulk: BlobTransfer, batch: int) -> None:
        """Bring one thing that a batch needs, or send it."""
        entry = self._calls.get(batch)
        missing = bulk.stock.missing(batch)
        if entry is not None and missing:
            blob = next(blob for blob in entry.packed.blobs if blob.name == missing[0])
            problem = await bulk.put(blob)
            if not problem:
                self._calls.count_shared(self._node, blob.size)
            elif batch in self._loads:
                self._loads.remove(batch)
                self._left((batch,))
                self._died(batch, f"node {self._node}: {problem}")
        elif batch in self._loads:
            self._loads.remove(batch)
            self._order((batch,))

    async def _fetch(self, outcome: Outcome, tasks: int) -> None:
        """Get a large result, and tell the router that the batch is done."""
        assert outcome.large is not None
        result: memoryview | None = None
        cause = f"its result was lost on node {self._node}"

        def wanted() -> bool:
            return self._calls.get(outcome.batch) is not None

        try:
            if self._bulk is not None:
                result = await self._bulk.fetch(outcome, wanted)
            elif wanted():
                result = Blob.adopt(outcome.large).view()
        except OSError as error:
            cause += f": {error}"
        if self._bulk is None:
            self._fetched.append(outcome.batch)
        if result is None and wanted():
            self._results_lost((outcome.batch,))
            self._died(outcome.batch, cause)
            return
        del self._unfetched[outcome.batch]
        self._calls.keep({outcome.batch: Answer(outcome, self._node, tasks, result)})
        if result is not None:
            self._calls.count_fetched(self._node, len(result))
        self._tell(routing.Answered(self._node, (outcome.batch,), seconds=outcome.seconds))

    def _results_lost(self, batches: Sequence[int]) -> None:
        lost = [self._unfetched.pop(batch) for batch in batches]
        tasks, seconds = sum(tasks for _, tasks in lost), sum(outcome.seconds for outcome, _ in lost)
        raised = sum(outcome.status != "returned" for outcome, _ in lost)
        self._calls.note(ResultsLost(now(), self._node, len(lost), tasks, raised, round(seconds, 6)))

    def _died(self, batch: int, cause: str) -> None:
        self._tell(routing.Answered(self._node, died=(routing.Died(batch, cause),)))

    # ------------------------------------------------------------ commands

    async def _assign(self) -> None:
        batches: list[Batch] = []
        gone: list[int] = []
        functions: dict[str, bytes] = {}
        forget: list[str] = []
        size = 0
        while self._orders and not isinstance(order := self._orders[0], _Revocation) and size < MAX_ASSIGN_BYTES:
            taken = 0
            for number in order:
                taken += 1
                entry = self._calls.get(number)
                if entry is None:  # cancelled in the meantime
                    gone.append(number)
                    continue
                batches.append(_batch(number, entry, places=self._bulk is None))
                self._sent[number] = _SentBatch(entry.name, entry.tasks, entry.first)
                size += len(entry.packed.payload)
                if self._bulk is None and entry.packed.blobs:
                    self._map(entry.packed.blobs)
                needed = entry.packed.functions
                self._functions.need(number, (*needed, *entry.packed.modules))
                for name in self._functions.missing(number):
                    functions[name] = needed[name] if name in needed else self._bundles[name]
                    size += len(functions[name])
                    forget += self._functions.admit(name, len(functions[name]))
                    self._functions.arrived()
                if size >= MAX_ASSIGN_BYTES:
                    break
            self._orders.popleft()
            if taken < len(order):
                self._orders.appendleft(order[taken:])
        if gone:
            self._give_back(tuple(gone))
        if not batches:
            return
        self._number += 1
        self._calls.note(BatchesSent(now(), self._node, len(batches), size))
        assign = Assign(self._number, tuple(batches), functions, tuple(forget))
        await self._line.ask(assign, ANSWER_TIMEOUT_S + size / 1e6)

    def _map(self, blobs: Iterable[Blob]) -> None:
        """Note the large buffers that the node maps from now on."""
        new = [blob for blob in blobs if blob not in self._mapped]
        self._mapped.update(new)
        self._calls.count_shared(self._node, sum(blob.size for blob in new))

    async def _revoke(self, order: _Revocation) -> None:
        self._number += 1
        answer = await self._line.ask(Revoke(self._number, order.batches, order.kill), ANSWER_TIMEOUT_S)
        self._left(answer.batches)
        if answer.batches:
            self._record.put(BatchesReturned(now(), self._node, len(answer.batches)))
        self._tell(routing.GaveBack(self._node, order.batches, answer.batches))

    async def _collect(self) -> None:
        after = 0
        while True:
            fetched, self._fetched = tuple(self._fetched), []
            news = await self._line.ask(Collect(after, COLLECT_WAIT_S, fetched), COLLECT_WAIT_S + ANSWER_TIMEOUT_S)
            if news.number <= after:
                continue
            self._take(news.outcomes[len(news.outcomes) - (news.number - after) :], news.openings)
            after = news.number
            del news  # results are not held while this waits

    def _take(self, outcomes: Sequence[Outcome], openings: Mapping[int, Opening]) -> None:
        """Pass on what the node has answered; some of it may have been sent before."""
        opened = [openings.get(outcome.batch) for outcome in outcomes] if openings else []
        known = [self._sent.get(outcome.batch, _UNNAMED_BATCH) for outcome in outcomes]
        self._calls.note(self._ended(outcomes, known, opened))
        self._left([outcome.batch for outcome in outcomes])
        killed, died, ran = [], [], 0.0
        answers: dict[int, Answer] = {}
        for outcome, (_, tasks, _) in zip(outcomes, known, strict=True):
            if outcome.large is not None:
                self._unfetched[outcome.batch] = outcome, tasks
                self._run(self._fetch(outcome, tasks))
                continue
            match outcome.status:
                case "killed":
                    killed.append(outcome.batch)
                case "died":
                    cause = f"slot {outcome.slot} of node {self._node}: {outcome.payload.decode()}"
                    died.append(routing.Died(outcome.batch, cause))
                case _:
                    ran += outcome.seconds
                    answers[outcome.batch] = Answer(outcome, self._node, tasks)
        self._calls.keep(answers)
        seconds = ran / max(1, len(answers))
        self._tell(routing.Answered(self._node, tuple(answers), tuple(killed), tuple(died), seconds))

    def _ended(
        self, outcomes: Sequence[Outcome], known: Sequence[_SentBatch], openings: Sequence[Opening | None]
    ) -> BatchesEnded:
        """Say what the node has answered, for those who look on."""
        functions = [sent.name for sent in known]
        return BatchesEnded(
            now(),
            self._node,
            tuple([outcome.batch for outcome in outcomes]),
            tuple([outcome.slot for outcome in outcomes]),
            tuple([round(outcome.seconds, 6) for outcome in outcomes]),
            tuple([outcome.status for outcome in outcomes]),
            tuple([sent.tasks for sent in known]),
            sum([len(outcome.payload) for outcome in outcomes]),
            tuple([_summary(outcome) for outcome in outcomes if outcome.status == "raised"]),
            tuple(functions[:1] if len(set(functions)) == 1 else functions),
            tuple([sent.first for sent in known]),
            tuple([round(each.seconds, 6) if each else 0.0 for each in openings]),
            sum(filter(None, openings), Opening(0.0, {})).imports,
        )

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._stopped)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """A loop ends by being cancelled; an error in it is a bug, and the node is of no more use."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logging.getLogger("skyward").error("the link to node %s failed", self._node, exc_info=error)
            self._broken(f"the link to it failed: {type(error).__name__}: {error}")


def _summary(outcome: Outcome) -> str:
    return exceptions.summary(outcome.payload) if outcome.large is None else "an exception that is large"


def _batch(number: int, entry: PendingCall, *, places: bool) -> Batch:
    packed = entry.packed
    batch = Batch(number, packed.payload, (*packed.functions, *packed.modules), entry.terms.timeout)
    if not packed.blobs:
        return batch
    names = tuple(blob.name for blob in packed.blobs)
    refs = tuple(blob.ref for blob in packed.blobs) if places else ()
    return replace(batch, buffers=packed.buffers, blobs=names, places=refs)
