"""What state a node is in, and what comes next."""

import pytest

from skyward.actors import lifecycle as life
from skyward.actors.lifecycle import LifecycleEvent, NodeStage, step

STARTING: list[NodeStage] = [life.Reaching(), life.Booting(), life.Joining()]
SERVING: list[NodeStage] = [life.Ready(), life.Unresponsive(1)]


def test_a_node_begins_by_being_launched_against_the_clock() -> None:
    assert life.begin() == (life.Launching(), (life.Launch(), life.WaitStart()))


@pytest.mark.parametrize(
    ("before", "event", "after", "effect"),
    [
        (life.Launching(), life.Launched(), life.Reaching(), life.Reach()),
        (life.Reaching(), life.Reached(), life.Booting(), life.Boot()),
        (life.Booting(), life.Booted(), life.Joining(), life.Join()),
        (life.Joining(), life.Joined(), life.Ready(), life.AnnounceUp()),
        (life.Ready(), life.Silenced(), life.Unresponsive(1), life.WaitGrace(1)),
    ],
)
def test_a_node_goes_forward(
    before: NodeStage, event: LifecycleEvent, after: NodeStage, effect: life.LifecycleEffect
) -> None:
    assert step(before, event) == (after, (effect,))


def test_a_silent_node_that_is_heard_again_is_ready() -> None:
    assert step(life.Unresponsive(1), life.Heard()) == (life.Ready(1), ())


@pytest.mark.parametrize("stage", STARTING)
@pytest.mark.parametrize(
    "event", [life.Failed("boot", "x"), life.NodeExited("x"), life.Dismissed(), life.StartOverdue()], ids=repr
)
def test_a_start_that_fails_ends_the_machine(stage: NodeStage, event: LifecycleEvent) -> None:
    after, effects = step(stage, event)
    assert isinstance(after, life.Ending)
    assert effects == (life.Terminate(1),)


@pytest.mark.parametrize("stage", SERVING)
@pytest.mark.parametrize("event", [life.NodeExited("x"), life.Dismissed()], ids=repr)
def test_a_node_that_served_is_announced_lost_before_it_is_ended(stage: NodeStage, event: LifecycleEvent) -> None:
    after, effects = step(stage, event)
    assert isinstance(after, life.Ending)
    assert [type(effect) for effect in effects] == [life.AnnounceDown, life.Terminate]


def test_a_node_silent_beyond_its_grace_is_lost() -> None:
    assert isinstance(step(life.Unresponsive(1), life.GraceOver(1))[0], life.Ending)
    assert step(life.Ready(1), life.GraceOver(1)) == (life.Ready(1), ())


def test_a_node_silent_again_is_given_its_whole_grace_again() -> None:
    stage, effects = step(life.Ready(1), life.Silenced())
    assert effects == (life.WaitGrace(2),)
    assert step(stage, life.GraceOver(1)) == (stage, ())
    assert isinstance(step(stage, life.GraceOver(2))[0], life.Ending)


def test_a_launch_that_failed_is_ended_all_the_same() -> None:
    assert step(life.Launching(), life.Failed("launch", "x")) == (life.Ending("x"), (life.Terminate(1),))
    assert step(life.Launching(), life.Failed("launch", "x", final=True))[0] == life.Ending("x", final=True)


@pytest.mark.parametrize("event", [life.Dismissed(), life.StartOverdue()], ids=repr)
@pytest.mark.parametrize("answer", [life.Launched(), life.Failed("launch", "x")], ids=repr)
def test_a_launch_not_wanted_any_more_is_ended_when_its_answer_comes(
    event: LifecycleEvent, answer: LifecycleEvent
) -> None:
    stage, effects = step(life.Launching(), event)
    assert effects == ()
    assert step(stage, life.Heard()) == (stage, ())
    assert step(stage, answer)[1] == (life.Terminate(1),)


def test_an_end_that_fails_is_tried_again_and_then_reported_as_a_leak() -> None:
    stage: NodeStage = life.Ending("x")
    for attempt in range(2, life.MAX_TERMINATE_ATTEMPTS + 1):
        stage, effects = step(stage, life.TerminateFailed("no"))
        assert effects == (life.Terminate(attempt),)
    stage, effects = step(stage, life.TerminateFailed("no"))
    assert isinstance(stage, life.Ended)
    assert stage.leaked
    assert effects == (life.ReportEnd("x; it could not be terminated: no", leaked=True),)


def test_a_machine_that_is_gone_is_reported() -> None:
    assert step(life.Ending("x"), life.Terminated()) == (life.Ended("x"), (life.ReportEnd("x", leaked=False),))


@pytest.mark.parametrize("stage", [*STARTING, *SERVING, life.Ending("x"), life.Ended("x")], ids=repr)
def test_news_that_no_longer_matter_change_nothing(stage: NodeStage) -> None:
    assert step(stage, life.Launched()) == (stage, ())


def test_a_failure_that_would_come_again_is_reported_as_such() -> None:
    stage, _ = step(life.Booting(), life.Failed("boot", "no Python", final=True))
    assert step(stage, life.Terminated())[1] == (life.ReportEnd("no Python", leaked=False, final=True),)
    assert step(stage, life.TerminateFailed("no"))[0] == life.Ending("no Python", 2, final=True)
