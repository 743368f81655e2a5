"""A simulated node and the driver's link to it: what decides is real, mailboxes, links and workers are not."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from skyward.actors import routing
from skyward.remote.node import scheduler, slot_state

SLOTS = 2
"""Slots of each node."""

type Happening = Callable[[], None]


@dataclass(slots=True)
class Worker:
    """What a slot has its batch run by."""

    up: bool = False
    batch: int | None = None
    given: tuple[int, ...] = ()
    begun: int = 0
    tokens: int = 0
    tray: list[int] = field(default_factory=list)
    stopped: bool = False

    @property
    def may_begin(self) -> bool:
        """Whether it is about to look for the next of what it was given."""
        return self.batch is None and self.begun < len(self.given)

    def empty_tray(self) -> tuple[int, ...]:
        """Take what it has left there."""
        left = tuple(self.tray)
        self.tray.clear()
        return left


@dataclass(slots=True)
class Slot:
    """A slot as `slot` makes one of `slot_state`: messages from the agent, direct calls from the worker."""

    number: int
    node: "Node"
    state: slot_state.SlotState = field(default_factory=slot_state.Starting)
    inbox: deque[slot_state.SlotEvent] = field(default_factory=deque)
    worker: Worker | None = None
    timer: int | None = None

    def hear(self) -> None:
        if self.inbox:
            self.handle(self.inbox.popleft())

    def handle(self, event: slot_state.SlotEvent) -> None:
        self.state, effects = slot_state.step(self.state, event)
        self.perform(effects)

    def perform(self, effects: tuple[slot_state.SlotEffect, ...]) -> None:
        agent = self.node.inbox
        for effect in effects:
            match effect:
                case slot_state.StartWorker():
                    assert self.worker is None
                    self.worker = Worker()
                case slot_state.StopWorker():
                    assert self.worker is None or self.worker.up
                    if self.worker is not None:
                        self.worker.stopped = True
                case slot_state.Send(batches):
                    assert self.node.batches.issuperset(batches)
                    if self.worker is not None:
                        assert self.worker.batch is None
                        assert not self.worker.may_begin
                        self.worker.given, self.worker.begun, self.worker.tokens = batches, 0, len(batches)
                case slot_state.TakeBack():
                    self.handle(slot_state.Recalled(self.take_back()))
                case slot_state.WakeMe(batch):
                    self.timer = batch
                case slot_state.ReportUp() | slot_state.ReportFree():
                    agent.append(scheduler.SlotOpened(self.number))
                case slot_state.ReportDown():
                    agent.append(scheduler.SlotClosed(self.number))
                case slot_state.Refuse(batches):
                    agent.append(scheduler.BatchesRefused(self.number, batches))
                case slot_state.ReportBatches(batches, verdict, _, free):
                    self.timer = None
                    if verdict != "done":
                        self.node.outcomes.update(dict.fromkeys(batches, verdict))
                    seconds = 0.0001 if batches[0] % 50 else 1.0
                    agent.append(scheduler.BatchesFinished(self.number, batches, free, seconds))
                case slot_state.ReportUseless():
                    self.node.useless = True

    def come_up(self) -> None:
        if self.worker is not None and not self.worker.up:
            self.worker.up = True
            self.handle(slot_state.WorkerStarted())

    def begin(self) -> None:
        if self.worker is None or not self.worker.may_begin:
            return
        if len(self.worker.given) > 1 and not self.worker.tokens:
            self.worker.given = ()
            self.handle(slot_state.Finished(self.worker.empty_tray()))
            return
        self.worker.tokens -= 1
        self.worker.batch = self.worker.given[self.worker.begun]
        self.worker.begun += 1

    def finish(self) -> None:
        if self.worker is not None and self.worker.batch is not None:
            self.node.outcomes[self.worker.batch] = "done"
            self.worker.tray.append(self.worker.batch)
            self.worker.batch = None
            if self.worker.begun == len(self.worker.given):
                self.handle(slot_state.Finished(self.worker.empty_tray()))

    def look_into_tray(self) -> None:
        if self.worker is not None and self.worker.tray:
            self.handle(slot_state.Finished(self.worker.empty_tray(), last=False))

    def take_back(self) -> int:
        """What had several batches gives back those that it has not begun; what had one does not."""
        if self.worker is None or len(self.worker.given) < 2:
            return 0
        count, self.worker.tokens = self.worker.tokens, 0
        self.look_into_tray()
        return count

    def exit(self) -> None:
        if self.worker is not None:
            unstarted = self.take_back()
            self.worker = None
            self.handle(slot_state.WorkerExited("it ended", unstarted))

    def overrun(self) -> None:
        if self.timer is not None:
            self.inbox.append(slot_state.Overran(self.timer))
            self.timer = None

    def progress(self, work: bool) -> Iterator[Happening]:
        if self.inbox:
            yield self.hear
        if self.worker is not None and self.worker.tray:
            yield self.look_into_tray
        match self.worker:
            case Worker(stopped=True):
                yield self.exit
            case Worker(up=False):
                yield self.come_up
            case Worker(batch=int()) if work:
                yield self.finish
            case Worker(may_begin=True):
                yield self.begin


class Node:
    """A node as `agent` makes one of `scheduler`, with its slots. Its tables are those of the agent."""

    def __init__(self) -> None:
        self.desk = scheduler.NodeQueue()
        self.inbox: deque[scheduler.SchedulerEvent] = deque()
        self.batches: set[int] = set()
        self.outcomes: dict[int, str] = {}
        self.given: deque[tuple[int, ...]] = deque()
        self.answers: deque[tuple[int, int, list[tuple[int, str]]]] = deque()
        self.ask = self.rests = self.looks = 0
        self.useless = False
        self.arrived: Counter[int] = Counter()
        self.left: Counter[int] = Counter()
        self.slots = [Slot(number, self) for number in range(SLOTS)]
        for slot in self.slots:
            slot.perform(slot_state.begin()[1])
            slot.come_up()
            self.hear()

    def hear(self) -> None:
        if not self.inbox:
            return
        match event := self.inbox.popleft():
            case scheduler.BatchesAssigned(batches):
                self.batches.update(batches)
                self.arrived.update(batches)
            case scheduler.Asked(_, ask):
                self.ask = ask
            case scheduler.BatchesFinished(_, batches):
                self.batches.difference_update(batches)
        for effect in scheduler.step(self.desk, event):
            match effect:
                case scheduler.StartBatches(slot, batches):
                    assert self.batches.issuperset(batches)
                    assert len(batches) == 1 or not any(batch % 3 == 0 for batch in batches)
                    self.slots[slot].inbox.append(slot_state.Run(batches, None if batches[0] % 3 else 1.0))
                case scheduler.RecallBatches(slot):
                    self.slots[slot].inbox.append(slot_state.Recall())
                case scheduler.ScheduleRecall():
                    self.looks += 1
                case scheduler.StopBatch(slot, batch):
                    self.slots[slot].inbox.append(slot_state.Stop(batch))
                case scheduler.NoteKilled(batch):
                    self.batches.remove(batch)
                    self.outcomes[batch] = "killed"
                case scheduler.GiveBack(batches):
                    for batch in batches:
                        self.batches.remove(batch)
                    self.left.update(batches)
                    self.given.append(batches)
                case scheduler.Rest():
                    self.rests += 1
                case scheduler.AnswerCollect(number, batches):
                    self.answers.append((self.ask, number, [(batch, self.outcomes[batch]) for batch in batches]))
                case scheduler.Forget(batches):
                    for batch in batches:
                        del self.outcomes[batch]

    def rested(self) -> None:
        if self.rests:
            self.rests -= 1
            self.inbox.append(scheduler.Rested())

    def look(self) -> None:
        if self.looks:
            self.looks -= 1
            self.inbox.append(scheduler.RecallTick())

    def elapse(self) -> None:
        self.inbox.append(scheduler.CollectTimedOut(self.ask))

    def progress(self, work: bool) -> Iterator[Happening]:
        if self.inbox:
            yield self.hear
        if self.rests:
            yield self.rested
        if self.looks:
            yield self.look
        for slot in self.slots:
            yield from slot.progress(work)

    def assert_idle(self) -> None:
        """Everything has left, once, and every slot is free."""
        assert self.arrived == self.left
        assert (self.batches, self.outcomes) == (set(), {})
        assert sorted(self.desk.free) == list(range(SLOTS))


class Link:
    """The driver's end of a node: commands one after the other, outcomes by one poll after the other."""

    def __init__(self, number: int, node: Node, tell: Callable[[routing.RoutingEvent], None]) -> None:
        self.number, self.node, self.tell = number, node, tell
        self.orders: deque[routing.AssignBatches | routing.RevokeBatches] = deque()
        self.revoking: routing.RevokeBatches | None = None
        self.after = self.ask = 0
        self.asking = False

    def send(self) -> None:
        if self.orders and self.revoking is None:
            match order := self.orders.popleft():
                case routing.AssignBatches(_, batches):
                    self.node.inbox.append(
                        scheduler.BatchesAssigned(batches, frozenset(batch for batch in batches if batch % 3 == 0))
                    )
                case routing.RevokeBatches(_, batches, kill):
                    self.revoking = order
                    self.node.inbox.append(scheduler.Withdrawn(batches, kill))

    def take_back(self) -> None:
        if self.revoking is not None and self.node.given:
            self.tell(routing.GaveBack(self.number, self.revoking.batches, self.node.given.popleft()))
            self.revoking = None

    def collect(self) -> None:
        """Ask; when it is asked already, the ask or its answer was lost on the way."""
        self.ask, self.asking = self.ask + 1, True
        self.node.inbox.append(scheduler.Asked(self.after, self.ask))

    def take(self) -> None:
        if not self.node.answers:
            return
        ask, number, outcomes = self.node.answers.popleft()
        if ask != self.ask:
            return
        self.asking = False
        assert number >= self.after
        fresh = outcomes[len(outcomes) - (number - self.after) :]
        assert len(fresh) == number - self.after
        self.after = number
        self.node.left.update(batch for batch, _ in fresh)
        killed = tuple(batch for batch, verdict in fresh if verdict == "killed")
        died = tuple(routing.Died(batch, "it died") for batch, verdict in fresh if verdict == "died")
        done = tuple(batch for batch, verdict in fresh if verdict in ("done", "overdue"))
        if fresh:
            self.tell(routing.Answered(self.number, done, killed, died, number % 2))

    def progress(self, work: bool) -> Iterator[Happening]:
        if self.orders and self.revoking is None:
            yield self.send
        if self.revoking is not None and self.node.given:
            yield self.take_back
        if not self.asking:
            yield self.collect
        if self.node.answers:
            yield self.take
        yield from self.node.progress(work)

    def mishaps(self) -> Iterator[Happening]:
        yield self.collect
        yield self.node.elapse
        for slot in self.node.slots:
            yield slot.exit
            yield slot.overrun
