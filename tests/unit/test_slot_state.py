"""What happens to the one batch a slot has in hand."""

import pytest

from skyward.remote.node import slot_state
from skyward.remote.node.slot_state import (
    MAX_START_FAILURES,
    Finished,
    GivenUp,
    Idle,
    Overran,
    Recall,
    Recalled,
    Refuse,
    ReportBatches,
    ReportDown,
    ReportFree,
    ReportUp,
    ReportUseless,
    Run,
    Running,
    Send,
    SlotEvent,
    SlotState,
    Starting,
    StartWorker,
    Stop,
    Stopping,
    StopWorker,
    TakeBack,
    WakeMe,
    WorkerExited,
    WorkerStarted,
    step,
)


def test_a_slot_begins_by_starting_its_worker() -> None:
    assert slot_state.begin() == (Starting(), (StartWorker(),))


@pytest.mark.parametrize(
    ("before", "event", "after", "effects"),
    [
        (Starting(), WorkerStarted(), Idle(), (ReportUp(),)),
        (Idle(), WorkerStarted(), Idle(), ()),
        (Idle(), Run((1,)), Running((1,)), (Send((1,)),)),
        (Idle(), Run((1,), 5.0), Running((1,)), (Send((1,)), WakeMe(1, 5.0))),
        (Idle(), Run((1, 2)), Running((1, 2)), (Send((1, 2)),)),
        (Starting(), Run((1, 2)), Starting(), (Refuse((1, 2)),)),
        (Running((1,)), Finished((1,)), Idle(), (ReportBatches((1,), "done", free=True),)),
        (Running((1, 2, 3)), Finished((1, 2, 3)), Idle(), (ReportBatches((1, 2, 3), "done", free=True),)),
        (Running((2,)), Finished((1,)), Running((2,)), ()),
        (Running((1, 2)), Finished((1,), last=False), Running((2,)), (ReportBatches((1,), "done"),)),
        (Running((1, 2), 2), Finished((1,), last=False), Running((2,), 2), (ReportBatches((1,), "done"),)),
        (Running((1,)), Finished((1,), True, 0.5), Idle(), (ReportBatches((1,), "done", free=True, seconds=0.5),)),
        (Running((1, 2, 3)), Finished((2,), last=False), Running((1, 3)), (ReportBatches((2,), "done"),)),
        (Running(()), Finished(()), Idle(), (ReportFree(),)),
        (Running((1, 2, 3)), Finished((1,)), Idle(), (Refuse((2, 3)), ReportBatches((1,), "done", free=True))),
        (Idle(), Finished(()), Idle(), ()),
        (Running((1,)), Recall(), Running((1,)), ()),
        (Idle(), Recall(), Idle(), ()),
        (Running((1, 2)), Recall(), Running((1, 2)), (TakeBack(),)),
        (Running((1, 2, 3)), Recalled(2), Running((1,)), (Refuse((2, 3)),)),
        (Running((1, 2)), Recalled(2), Running(()), (Refuse((1, 2)),)),
        (Running((1, 2)), Recalled(0), Running((1, 2)), ()),
        (Idle(), Recalled(1), Idle(), ()),
        (Running((1,)), Stop(1), Stopping((1,), "killed"), (StopWorker(),)),
        (Running((2,)), Stop(1), Running((2,)), ()),
        (Idle(), Stop(1), Idle(), ()),
        (Running((1, 2)), Stop(1), Running((1, 2), stopping=1), (TakeBack(),)),
        (Running((1, 2, 3), stopping=1), Recalled(2), Stopping((1,), "killed"), (Refuse((2, 3)), StopWorker())),
        (Running((1, 2, 3), stopping=2), Recalled(1), Stopping((1, 2), "killed"), (Refuse((3,)), StopWorker())),
        (Running((1, 2, 3), stopping=1), Recalled(1), Running((1, 2)), (Refuse((3,)),)),
        (Running((1, 2), stopping=2), Recalled(1), Running((1,)), (Refuse((2,)),)),
        (Running((1,)), Overran(1), Stopping((1,), "overdue"), (StopWorker(),)),
        (Running((2,)), Overran(1), Running((2,)), ()),
        (Idle(), Overran(1), Idle(), ()),
        (Stopping((1,), "killed"), Finished((1,)), Stopping((), "killed"), (ReportBatches((1,), "done"), ReportDown())),
        (Stopping((1, 2), "killed"), Finished((1,)), Stopping((2,), "killed"), (ReportBatches((1,), "done"),)),
        (Stopping((1,), "killed"), Finished((2,)), Stopping((1,), "killed"), ()),
        (Stopping((), "killed"), Finished(()), Stopping((), "killed"), ()),
        (Stopping((), "killed"), WorkerExited("x"), Starting(), (StartWorker(),)),
        (
            Stopping((1,), "overdue"),
            WorkerExited("x"),
            Starting(),
            (ReportBatches((1,), "overdue", "x"), StartWorker()),
        ),
        (Running((1,)), WorkerExited("x"), Starting(), (ReportBatches((1,), "died", "x"), StartWorker())),
        (
            Running((1, 2, 3)),
            WorkerExited("x", unstarted=2),
            Starting(),
            (Refuse((2, 3)), ReportBatches((1,), "died", "x"), StartWorker()),
        ),
        (Running((1, 2)), WorkerExited("x", unstarted=2), Starting(), (Refuse((1, 2)), StartWorker())),
        (Idle(), WorkerExited("x"), Starting(), (ReportDown(), StartWorker())),
        (Starting(), WorkerExited("x"), Starting(1), (StartWorker(),)),
        (Starting(MAX_START_FAILURES - 1), WorkerExited("x"), GivenUp(), (ReportUseless("x"),)),
        (GivenUp(), WorkerExited("x"), GivenUp(), ()),
    ],
)
def test_a_step_leads_where_it_should(
    before: SlotState, event: SlotEvent, after: SlotState, effects: tuple[slot_state.SlotEffect, ...]
) -> None:
    assert step(before, event) == (after, effects)
