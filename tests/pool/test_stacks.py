"""Where running calls are, for someone whose run does not go on."""

import os
import signal
from pathlib import Path

import pytest

import skyward as sky
from tests import kit, work


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_a_call_that_waits_is_seen_where_it_waits(executor: str) -> None:
    worker = sky.Worker(concurrency=2, executor=executor)  # type: ignore[arg-type]
    with sky.Compute(nodes=2, worker=worker) as compute, kit.Bell() as bell:
        assert compute.stacks() == ()
        futures = [compute.submit(work.ring, bell.port) for _ in range(3)]
        lines = [bell.answer() for _ in range(3)]
        stacks = compute.stacks()
        assert len(stacks) == 3
        assert sorted((each.node, each.slot) for each in stacks) == [(each.node, each.slot) for each in stacks]
        assert {each.call for each in stacks} == {f"ring({bell.port})"}
        assert all("in ring" in each.text for each in stacks)
        assert all("zygote" not in each.text for each in stacks)
        assert str(stacks[0]).startswith(f"node {stacks[0].node} slot {stacks[0].slot}, for 0.")
        for line in lines:
            line.release()
        for future in futures:
            future.result()
        assert compute.stacks() == ()


def test_a_node_that_does_not_answer_is_named() -> None:
    with sky.Compute(worker=sky.Worker(concurrency=1), options=sky.Options(grace=60)) as compute:
        host = kit.host(compute.nodes[0])
        os.kill(host, signal.SIGSTOP)
        try:
            (stack,) = compute.stacks(timeout=0.2)
        finally:
            os.kill(host, signal.SIGCONT)
        assert (stack.node, stack.slot) == (0, -1)
        assert str(stack) == "node 0: it did not answer within 0.2 s"


def test_there_are_no_stacks_without_a_pool(tmp_path: Path) -> None:
    with pytest.raises(sky.NoCompute):
        sky.Compute().stacks()
