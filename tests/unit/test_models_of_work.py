"""Random histories of the work: every batch is answered exactly once, whatever crosses what.

What decides is real: `routing`, `scheduler` and `slot_state`. What stands between them is simulated: mailboxes, links,
workers. A history is a string of bytes; each pair of them picks one of the things that can happen next, and a 0 is
nothing at all.
"""

from collections import Counter, deque

from hypothesis import given, settings
from hypothesis import strategies as st

from skyward.actors import router_state, routing
from tests.simulation import SLOTS, Happening, Link, Node

QUICK = settings(max_examples=120)
PAIRS = 250
HISTORIES = st.binary(min_size=2 * PAIRS, max_size=2 * PAIRS)
NODES = 3
LIMITS = {0: None, 1: 1, 2: 2, 3: None}


class Pool:
    """A router and its nodes. A lost node's link may go on talking until it is closed."""

    def __init__(self, prefetch: int | None) -> None:
        self.routing = router_state.RouterState(prefetch)
        self.inbox: deque[routing.RoutingEvent] = deque()
        self.links: dict[int, Link] = {}
        self.lost: dict[int, Link] = {}
        self.given_up: set[int] = set()
        self.terms: list[routing.Submitted] = []
        self.answered: dict[int, int] = {}
        self.cancelled: set[int] = set()
        self.answered_by_node: set[int] = set()
        self.looks = 0

    def hear(self) -> None:
        if not self.inbox:
            return
        match event := self.inbox.popleft():
            case routing.Cancelled(batches):
                self.cancelled.update(set(batches) - self.answered.keys())
            case routing.Answered(_, done):
                self.answered_by_node.update(done)
        for effect in routing.step(self.routing, event):
            match effect:
                case routing.AssignBatches(node) | routing.RevokeBatches(node):
                    if node in self.links:
                        self.links[node].orders.append(effect)
                case routing.ScheduleRebalance():
                    self.looks += 1
                case routing.Complete(batches):
                    for batch in batches:
                        assert batch in self.answered_by_node
                        self.answer(batch)
                case routing.Fail(batch, causes):
                    given_up = self.terms[batch].node in self.given_up
                    assert len(causes) == self.terms[batch].retries + 1 or (given_up and causes == ("given up",))
                    self.answer(batch)
        self.check()

    def look(self) -> None:
        if self.looks:
            self.looks -= 1
            self.inbox.append(routing.RebalanceTick())

    def answer(self, batch: int) -> None:
        assert batch not in self.answered
        assert batch not in self.cancelled
        self.answered[batch] = len(self.answered)

    def check(self) -> None:
        """No batch is on two nodes at once, and no group on more slots than its limit."""
        desks = [self.links[number].node.desk for number in self.routing.nodes if number in self.links]
        queued = [batch for each in desks for batch in each.queue]
        running = [batch for each in desks for batch in each.running]
        assert len({*queued, *running}) == len(queued) + len(running)
        nodes = self.routing.nodes.values()
        assert self.routing.filled == sum(min(len(node.held), node.slots) for node in nodes)
        assert self.routing.slots == sum(node.slots for node in nodes)
        groups = Counter(self.terms[batch].group for batch in running if self.terms[batch].node is None)
        for group, limit in LIMITS.items():
            assert limit is None or groups[group] <= limit

    def submit(self, group: int, pick: int) -> None:
        count, node = pick % 5 + 1, NODES - 1 if pick % 11 == 0 else None
        batches = tuple(range(len(self.terms), len(self.terms) + count))
        arrival = routing.Submitted(batches, group, LIMITS[group], node, retries=pick % 3)
        self.terms += [arrival] * count
        self.inbox.append(arrival)

    def cancel(self, pick: int) -> None:
        if self.terms:
            terms = self.terms[pick % len(self.terms)]
            self.inbox.append(routing.Cancelled(terms.batches[pick % 2 :]))

    def come_or_go(self, pick: int) -> None:
        number = pick % NODES
        if number in self.links:
            self.lost[number] = self.links.pop(number)
            self.inbox.append(routing.NodeDown(number, "lost"))
        elif number in self.lost:
            if routing.NodeDown(number, "lost") not in self.inbox:  # a replacement takes longer than any mailbox
                del self.lost[number]
        elif number == NODES - 1 and pick % 16 == 0 and number not in self.given_up:
            self.given_up.add(number)
            self.inbox.append(routing.NodeRemoved(number, "given up"))
        elif number not in self.given_up:
            self.links[number] = Link(number, Node(), self.inbox.append)
            self.inbox.append(routing.NodeUp(number, SLOTS))

    def progress(self, work: bool = True) -> list[Happening]:
        happenings: list[Happening] = [self.hear] if self.inbox else []
        happenings += [self.look] if self.looks and work else []  # where nothing ever ends, looks do not either
        for link in (*self.links.values(), *self.lost.values()):
            happenings += link.progress(work)
        return happenings

    def mishaps(self) -> list[Happening]:
        return [each for link in (*self.links.values(), *self.lost.values()) for each in link.mishaps()]

    def live(self, history: bytes) -> None:
        for what, pick in zip(history[::2], history[1::2], strict=True):
            if what == 0:
                continue
            if what < 16:
                self.submit(what % 4, pick)
            elif what < 24:
                self.cancel(pick)
            elif what < 36:
                self.come_or_go(pick)
            elif what < 64 and (mishaps := self.mishaps()):
                mishaps[pick % len(mishaps)]()
            elif happenings := self.progress():
                happenings[pick % len(happenings)]()

    def settle_down(self, work: bool) -> None:
        """Without further mishaps, have everything happen until nothing can."""
        for _ in range(40 * (len(self.terms) + 10)):
            happenings = self.progress(work)
            if not happenings:
                return
            for happening in happenings:
                happening()
        raise AssertionError("they go on talking for ever")

    def mend(self) -> None:
        """Replace what was lost."""
        for number in range(NODES):
            if number in self.links and self.links[number].node.useless:
                self.come_or_go(number)
            if number in self.lost:
                self.come_or_go(number)
            if number not in self.links and number not in self.given_up:
                self.links[number] = Link(number, Node(), self.inbox.append)
                self.inbox.append(routing.NodeUp(number, SLOTS))


@QUICK
@given(HISTORIES, st.sampled_from([None, 0, 1]))
def test_every_batch_is_answered_exactly_once(history: bytes, prefetch: int | None) -> None:
    pool = Pool(prefetch)
    pool.live(history)
    pool.settle_down(work=False)
    pool.mend()
    pool.settle_down(work=True)

    assert pool.answered.keys() | pool.cancelled == set(range(len(pool.terms)))
    left = pool.routing
    assert [left.items, left.groups, list(left.turns), left.pinned] == [{}, {}, [], {}]
    assert not any(node.held for node in left.nodes.values())
    for link in pool.links.values():
        link.node.assert_idle()


@QUICK
@given(HISTORIES)
def test_every_batch_leaves_its_node_exactly_once(history: bytes) -> None:
    heard: list[routing.RoutingEvent] = []
    link = Link(0, Node(), heard.append)
    sent = 0
    for what, pick in zip(history[::2], history[1::2], strict=True):
        happenings = [*link.progress(work=True)]
        if 0 < what < 24:
            link.orders.append(routing.AssignBatches(0, tuple(range(sent, sent + 1 + pick % 3))))
            sent += 1 + pick % 3
        elif what < 40 and sent:
            link.orders.append(routing.RevokeBatches(0, tuple(range(pick % sent, sent, 2)), kill=what % 2 == 0))
        elif what < 64:
            mishaps = [*link.mishaps()]
            mishaps[pick % len(mishaps)]()
        elif what and happenings:
            happenings[pick % len(happenings)]()
    while happenings := [*link.progress(work=True)]:
        for happening in happenings:
            happening()
    if not link.node.useless:
        link.node.assert_idle()
        assert link.node.arrived == Counter(range(sent))
