"""Random histories of a node, of a pool's nodes, and of a slot: every launch is ended, and every run is answered.

Those of the work, which several modules decide together, are in `test_models_of_work`.
"""

from collections import Counter, deque

from hypothesis import example, given, settings
from hypothesis import strategies as st

from skyward.actors import lifecycle, scaling
from skyward.remote.node import slot_state

QUICK = settings(max_examples=200)

FORWARD: list[lifecycle.LifecycleEvent] = [
    lifecycle.Launched(),
    lifecycle.Reached(),
    lifecycle.Booted(),
    lifecycle.Joined(),
    lifecycle.Silenced(),
    lifecycle.Heard(),
]
LIFE: list[lifecycle.LifecycleEvent] = [
    *FORWARD,
    lifecycle.Failed("launch", "x"),
    lifecycle.Failed("boot", "x"),
    lifecycle.NodeExited("x"),
    lifecycle.GraceOver(1),
    lifecycle.GraceOver(2),
    lifecycle.StartOverdue(),
    lifecycle.Dismissed(),
    lifecycle.TerminateFailed("x"),
    lifecycle.Terminated(),
]


@QUICK
@given(
    st.integers(0, len(FORWARD)),
    st.lists(st.sampled_from(LIFE), max_size=30),
    st.integers(0, lifecycle.MAX_TERMINATE_ATTEMPTS + 1),
)
def test_every_launch_is_ended(forward: int, history: list[lifecycle.LifecycleEvent], refusals: int) -> None:
    stage, effects = lifecycle.begin()
    seen = list(effects)
    refused: list[lifecycle.LifecycleEvent] = [lifecycle.TerminateFailed("x")] * refusals
    completion: list[lifecycle.LifecycleEvent] = [
        lifecycle.Dismissed(),
        lifecycle.Launched(),
        *refused,
        lifecycle.Terminated(),
    ]
    for event in [*FORWARD[:forward], *history, *completion]:
        stage, effects = lifecycle.step(stage, event)
        seen += effects
    assert isinstance(stage, lifecycle.Ended)
    kinds = [type(effect) for effect in seen]
    assert kinds.count(lifecycle.Launch) == kinds.count(lifecycle.ReportEnd) == 1
    assert kinds[-1] is lifecycle.ReportEnd
    attempts = [effect.attempt for effect in seen if isinstance(effect, lifecycle.Terminate)]
    assert attempts == list(range(1, len(attempts) + 1))
    assert 1 <= len(attempts) <= lifecycle.MAX_TERMINATE_ATTEMPTS
    announced = [kind for kind in kinds if kind in (lifecycle.AnnounceUp, lifecycle.AnnounceDown)]
    assert announced in ([], [lifecycle.AnnounceUp, lifecycle.AnnounceDown])


class Supervisors:
    """The nodes of a pool that is decided on by `scaling`. What a supervisor says takes as long as the history says."""

    def __init__(self, attempts: int) -> None:
        self.state = scaling.Scaling(attempts)
        self.inbox: deque[scaling.ScalingEvent] = deque()
        self.alive: dict[int, int] = {}
        self.ready: set[int] = set()
        self.generations: dict[int, int] = {}
        self.seen: list[scaling.ScalingEffect] = []
        self.leaks: list[str] = []
        self.pauses: deque[scaling.Paused] = deque()
        self.failed = False

    def hear(self) -> None:
        if not self.inbox:
            return
        self.state, effects = scaling.step(self.state, self.inbox.popleft())
        for effect in effects:
            self.seen.append(effect)
            match effect:
                case scaling.StartNode(node, generation):
                    assert not self.state.closing
                    assert node not in self.alive
                    assert generation == self.generations.get(node, -1) + 1
                    self.alive[node] = self.generations[node] = generation
                case scaling.DrainNode(node):
                    self.inbox.append(scaling.NodeDrained(node))
                case scaling.Pause(node, generation):
                    self.pauses.append(scaling.Paused(node, generation))
                case scaling.Dismiss(node, generation):
                    assert self.generations[node] == generation
                case scaling.ReportFailed():
                    self.failed = True
                case scaling.Sweep():
                    assert not self.alive
                    self.inbox.append(scaling.Swept(("swept",), asked=False))
        self.check()

    def check(self) -> None:
        """A pool that has not failed has a node that stays, or is about to get one: each is there, or comes."""
        if self.failed or self.state.closing:
            return
        nodes = self.state.nodes
        coming = {event.node for event in (*self.inbox, *self.pauses) if isinstance(event, scaling.Paused)}
        there = self.alive.keys() | {event.node for event in self.inbox if isinstance(event, scaling.NodeEnded)}
        leaver = any(node.leaving for node in nodes.values())
        assert all(leaver or number in coming if node.pausing else number in there for number, node in nodes.items())
        assert any(not node.leaving for node in nodes.values())

    def serve(self, node: int) -> None:
        if node in self.alive and node not in self.ready:
            self.ready.add(node)
            self.inbox.append(scaling.NodeReady(node, self.alive[node]))

    def end(self, node: int, *, leaked: bool = False, final: bool = False) -> None:
        if node in self.alive:
            reason = f"{node}.{self.alive[node]}"
            self.leaks += [reason] * leaked
            self.ready.discard(node)
            self.inbox.append(scaling.NodeEnded(node, self.alive.pop(node), "it ended", reason * leaked, final))

    def wake(self) -> None:
        if self.pauses:
            self.inbox.append(self.pauses.popleft())

    def count(self, kind: type[scaling.ScalingEffect]) -> int:
        return sum(isinstance(effect, kind) for effect in self.seen)


FATES = st.sampled_from(
    ["hear", "hear", "serve", "serve", "end", "refuse", "wake", "leak", "want", "look", "notice", "close"]
)


HISTORIES = st.lists(st.tuples(FATES, st.integers(0, 3)), max_size=60)


def lived(history: list[tuple[str, int]], attempts: int, wanted: int) -> Supervisors:
    """A pool of so many nodes, of which one is needed, after this history."""
    pool = Supervisors(attempts)
    pool.inbox.append(scaling.Wanted(wanted, 1, 5))
    pool.hear()
    for what, node in history:
        match what:
            case "hear":
                pool.hear()
            case "serve":
                pool.serve(node)
            case "end" | "leak" | "refuse":
                pool.end(node, leaked=what == "leak", final=what == "refuse")
            case "wake":
                pool.wake()
            case "look":
                idle = dict.fromkeys(pool.ready, scaling.SCALE_DOWN_IDLE_S)
                pool.inbox.append(scaling.ScalingTick(node, 1, {} if node else idle))
            case "notice":
                pool.inbox.append(scaling.Noticed(node, pool.generations.get(node, 0)))
            case "want":
                pool.inbox.append(scaling.Wanted(node + 1))
            case _ if node == 0:
                pool.inbox.append(scaling.Closing())
    return pool


@QUICK
@given(HISTORIES, st.integers(1, 3), st.integers(1, 3))
def test_a_closing_pool_ends_every_node_it_started_and_says_so_once(
    history: list[tuple[str, int]], attempts: int, wanted: int
) -> None:
    pool = lived(history, attempts, wanted)
    pool.inbox.append(scaling.Closing())
    while pool.inbox:
        pool.hear()
        if not pool.inbox:
            for node in tuple(pool.alive):
                pool.end(node)
    assert pool.count(scaling.ReportOpened) <= 1
    assert pool.count(scaling.Sweep) == 1
    assert pool.count(scaling.ReportClosed) == 1
    assert pool.seen[-1] == scaling.ReportClosed((*pool.leaks, "swept"))


@QUICK
@given(HISTORIES, st.integers(1, 3), st.integers(1, 3))
def test_a_pool_fails_when_it_can_have_no_node(history: list[tuple[str, int]], attempts: int, wanted: int) -> None:
    pool = lived(history, attempts, wanted)
    while pool.inbox or pool.pauses or pool.alive:
        pool.hear()
        if not pool.inbox:
            pool.wake()
            for node in sorted(pool.alive, reverse=True):
                pool.end(node)
    assert pool.failed or pool.state.closing


TURNS = st.sampled_from(["started", "run", "finished", "next", "exited", "recall", "recalled", "stop", "overran"])


@QUICK
@given(st.lists(st.tuples(TURNS, st.integers(0, 2)), max_size=50))
@example([("started", 0), ("run", 1), ("stop", 1), ("exited", 1)])
def test_every_run_is_reported_or_refused_exactly_once(history: list[tuple[str, int]]) -> None:
    state, effects = slot_state.begin()
    given, answers = 0, Counter[int]()
    for what, pick in [*history, ("exited", 0)]:
        first, given = given, given + (pick + 1 if what == "run" else 0)
        events: dict[str, slot_state.SlotEvent] = {
            "started": slot_state.WorkerStarted(),
            "run": slot_state.Run(tuple(range(first, given)), 1.0 if pick == 0 else None),
            "finished": slot_state.Finished((first - 1 - pick,)),
            "next": slot_state.Finished((first - 1 - pick,), last=False),
            "exited": slot_state.WorkerExited("x", pick),
            "recall": slot_state.Recall(),
            "recalled": slot_state.Recalled(pick),
            "stop": slot_state.Stop(first - 1 - pick),
            "overran": slot_state.Overran(first - 1 - pick),
        }
        state, effects = slot_state.step(state, events[what])
        for effect in effects:
            match effect:
                case slot_state.ReportBatches(batches) | slot_state.Refuse(batches):
                    answers.update(batches)
    assert answers == Counter(range(given))
