"""What happens to the one batch a slot has in hand."""

import pytest

from skyward.remote import turn
from skyward.remote.turn import (
    FAILURES,
    Event,
    Exited,
    Finished,
    GivenUp,
    Idle,
    Overran,
    Refuse,
    Report,
    ReportDown,
    ReportUp,
    ReportUseless,
    Run,
    Running,
    Send,
    Started,
    Starting,
    StartWorker,
    Stop,
    Stopping,
    StopWorker,
    Turn,
    WakeMe,
    step,
)


def test_a_slot_begins_by_starting_its_worker() -> None:
    assert turn.begin() == (Starting(), (StartWorker(),))


@pytest.mark.parametrize(
    ("before", "event", "after", "effects"),
    [
        (Starting(), Started(), Idle(), (ReportUp(),)),
        (Idle(), Started(), Idle(), ()),
        (Idle(), Run(1, None), Running(1), (Send(1),)),
        (Idle(), Run(1, 5.0), Running(1), (Send(1), WakeMe(1, 5.0))),
        (Starting(), Run(1, None), Starting(), (Refuse(1),)),
        (Running(1), Finished(1), Idle(), (Report(1, "done"),)),
        (Running(2), Finished(1), Running(2), ()),
        (Running(1), Stop(1), Stopping(1, "killed"), (StopWorker(),)),
        (Running(2), Stop(1), Running(2), ()),
        (Running(1), Overran(1), Stopping(1, "overdue"), (StopWorker(),)),
        (Idle(), Overran(1), Idle(), ()),
        (Stopping(1, "killed"), Finished(1), Stopping(None, "killed"), (Report(1, "done"), ReportDown())),
        (Stopping(None, "killed"), Exited("x"), Starting(), (StartWorker(),)),
        (Stopping(1, "overdue"), Exited("x"), Starting(), (Report(1, "overdue", "x"), StartWorker())),
        (Running(1), Exited("x"), Starting(), (Report(1, "died", "x"), StartWorker())),
        (Idle(), Exited("x"), Starting(), (ReportDown(), StartWorker())),
        (Starting(), Exited("x"), Starting(1), (StartWorker(),)),
        (Starting(FAILURES - 1), Exited("x"), GivenUp(), (ReportUseless("x"),)),
        (GivenUp(), Exited("x"), GivenUp(), ()),
    ],
)
def test_a_step_leads_where_it_should(
    before: Turn, event: Event, after: Turn, effects: tuple[turn.Effect, ...]
) -> None:
    assert step(before, event) == (after, effects)
