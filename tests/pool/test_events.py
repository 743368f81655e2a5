"""What happens in a run is told as events: to the caller, and in a file that outlives the program."""

from collections import Counter
from pathlib import Path

import pytest

import skyward as sky
from skyward.actors import driver
from skyward.events import (
    BatchesArrived,
    BatchesEnded,
    BatchLost,
    BatchRetried,
    NodeChanged,
    Reported,
    RunEnded,
    RunStarted,
)
from skyward.telemetry import event_log
from tests import work


def test_a_run_is_told_from_its_start_to_its_end(tmp_path: Path) -> None:
    with sky.Compute(worker=sky.Worker(concurrency=2), options=sky.Options(record=tmp_path)) as compute:
        assert list(compute.map(abs, range(-6, 0), chunksize=2)) == [6, 5, 4, 3, 2, 1]
    events = list(compute.events())
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)
    assert sky.Report.from_dict(events[-1].report) == compute.report()
    assert [step for step, _ in compute.report().starts[0]] == ["launching", "reaching", "booting", "joining"]
    stages = [event.stage for event in events if isinstance(event, NodeChanged)]
    assert stages == ["launching", "reaching", "booting", "joining", "ready", "ending", "ended"]
    assert sum(event.tasks for event in events if isinstance(event, BatchesArrived)) == 6
    ended = [event for event in events if isinstance(event, BatchesEnded)]
    assert Counter(status for event in ended for status in event.statuses) == {"returned": 3}
    assert sum(sum(event.tasks) for event in ended) == 6
    (file,) = tmp_path.iterdir()
    assert list(event_log.read(file)) == events


def test_what_has_been_done_so_far_is_told_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MIN_REPORT_INTERVAL_S", 0.01)
    with sky.Compute(worker=sky.Worker(concurrency=1), options=sky.Options(record=tmp_path)) as compute:
        assert compute.submit(abs, -1).result() == 1
        reports = (
            sky.Report.from_dict(event.report) for event in compute.events(follow=True) if isinstance(event, Reported)
        )
        assert next(report for report in reports if report.tasks == 1).calls == 1


def test_a_batch_that_dies_is_told_with_its_cause(tmp_path: Path) -> None:
    options = sky.Options(record=tmp_path, retries=1)
    with sky.Compute(worker=sky.Worker(concurrency=1), options=options) as compute, pytest.raises(sky.BatchLost):
        compute.submit(work.die).result()
    events = list(compute.events())
    (retried,) = [event for event in events if isinstance(event, BatchRetried)]
    (lost,) = [event for event in events if isinstance(event, BatchLost)]
    assert lost.batch == retried.batch
    assert lost.causes[0] == retried.cause
    assert len(lost.causes) == 2


@pytest.mark.parametrize(
    ("error", "told"), [(ValueError("no"), "ValueError: no"), (MemoryError(), "MemoryError")], ids=["text", "no text"]
)
def test_a_run_that_fails_says_why(tmp_path: Path, error: Exception, told: str) -> None:
    with (
        pytest.raises(type(error)),
        sky.Compute(worker=sky.Worker(concurrency=1), options=sky.Options(record=tmp_path)) as compute,
    ):
        raise error
    *_, last = compute.events()
    assert isinstance(last, RunEnded)
    assert last.error == told


def test_there_are_no_events_before_the_block() -> None:
    with pytest.raises(sky.NoCompute, match="enter the block first"):
        sky.Compute().events()
