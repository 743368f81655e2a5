"""A pool that grows with its work and shrinks when there is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from joblib import Parallel, delayed

import skyward as sky
from skyward.actors import provisioner, scaling
from tests import kit, work
from tests.kit import Bell


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(provisioner, "SCALING_INTERVAL_S", 0.05)
    monkeypatch.setattr(scaling, "SCALE_DOWN_IDLE_S", 0.5)
    return iter(())


def test_a_pool_grows_with_what_waits_and_shrinks_when_there_is_nothing(bell: Bell) -> None:
    with sky.Compute(nodes=(1, 3), worker=sky.Worker(concurrency=1)) as compute:
        assert (len(compute.nodes), compute.slots) == (1, 3)
        calls = [compute.submit(work.ring, bell.port) for _ in range(3)]
        lines = [bell.answer() for _ in range(3)]  # all run at once: two nodes have come
        assert [node.number for node in compute.nodes] == [0, 1, 2]
        for line in lines:
            line.release()
        assert [call.result(kit.SOON) for call in calls] == [b"on"] * 3
        kit.until(lambda: len(compute.nodes) == 1)  # the last one to have ended its call may be the one that stays
        assert compute.submit(work.square, 3).result(kit.SOON) == 9


def test_a_node_that_is_busy_does_not_leave(bell: Bell) -> None:
    with sky.Compute(nodes=(1, 3), worker=sky.Worker(concurrency=1)) as compute:
        calls = [compute.submit(work.ring, bell.port) for _ in range(3)]
        lines = [bell.answer() for _ in range(3)]
        lines.pop().release()
        lines.pop().release()
        kit.until(lambda: len(compute.nodes) < 3)  # one that is idle has left: not the busy one, not the last
        assert sum(call.done() for call in calls) == 2
        lines.pop().release()
        assert [call.result(kit.SOON) for call in calls] == [b"on"] * 3


def test_parallel_has_every_slot_that_may_come(tmp_path: Path) -> None:
    with sky.Compute(
        nodes=sky.Nodes(min=1, max=3, start=2),
        worker=sky.Worker(concurrency=2),
        plugins=[sky.plugins.joblib()],
    ):
        notes = tmp_path / "notes"
        Parallel(n_jobs=-1, batch_size=1)(delayed(work.note)(notes, str(number)) for number in range(60))

    assert sorted(map(int, notes.read_text().split())) == list(range(60))
