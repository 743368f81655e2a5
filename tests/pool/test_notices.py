"""Machines that are about to be taken away: another comes, or the calls are told why not, and none waits for ever."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import skyward as sky
from skyward.actors import scaling
from skyward.events import NodeChanged
from skyward.providers.provider import Instance, Order
from skyward.remote.call_options import CallOptions
from tests import kit, work
from tests.kit import HOUR, Bell, Dear

ONE = sky.Worker(concurrency=1)


class Scarce(sky.Local):
    """There is room for two machines, and for none while there is a file `full`; `asked` has who was refused."""

    async def launch(self, order: Order) -> Instance:
        assert self.folder is not None
        if (self.folder / "full").exists() or len(list(self.folder.glob("skyward-*"))) >= 2:
            work.note(self.folder / "asked", order.name)
            raise sky.NoCapacity("there is no room")
        return await super().launch(order)

    def refusals(self) -> list[str]:
        assert self.folder is not None
        asked = self.folder / "asked"
        return asked.read_text().split() if asked.exists() else []


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(scaling, "RESTART_DELAY_S", 0.02)
    return iter(())


def notice(compute: sky.Compute, number: int) -> None:
    """The node says that its machine is about to be taken away."""
    assert compute._driver is not None
    client = compute._driver._nodes.client(number)
    assert client is not None
    compute._driver._loop.call_soon_threadsafe(client._noticed, "terminate")


def changes(compute: sky.Compute) -> list[NodeChanged]:
    return [each for each in compute.events() if isinstance(each, NodeChanged)]


def where() -> int:
    return sky.instance_info().node


def leaving_without_another(
    compute: sky.Compute, provider: Scarce, bell: Bell
) -> tuple[sky.Future[bytes], sky.Future[int]]:
    """A call on a node that leaves, and one that waits for another node, for which there is no room again and again."""
    assert provider.folder is not None
    running = compute.submit(work.ring, bell.port)
    bell.answer()
    (provider.folder / "full").touch()
    notice(compute, 0)
    kit.until(lambda: len(provider.refusals()) >= 3)
    return running, compute.submit(where)


def test_calls_go_to_a_node_that_could_be_had_only_after_the_one_that_was_taken_away(
    tmp_path: Path, bell: Bell
) -> None:
    provider = Scarce(folder=tmp_path)
    with sky.Compute(provider=provider, worker=ONE) as compute:
        running, waiting = leaving_without_another(compute, provider, bell)
        (tmp_path / "full").unlink()
        kit.kill(kit.host(compute.nodes[0]))
        bell.answer().release(b"again")
        assert running.result(kit.SOON) == b"again"
        assert waiting.result(kit.SOON) == 1


def test_the_calls_are_told_when_no_other_node_can_be_had(tmp_path: Path, bell: Bell) -> None:
    provider = Scarce(folder=tmp_path)
    with sky.Compute(provider=provider, worker=ONE) as compute:
        running, waiting = leaving_without_another(compute, provider, bell)
        kit.kill(kit.host(compute.nodes[0]))
        assert [type(call.exception(kit.SOON)) for call in (running, waiting)] == [sky.NoCapacity] * 2
        with pytest.raises(sky.PoolFailed, match="there is no room"):
            _ = compute.submit(where)


def test_what_is_too_dear_beside_a_machine_that_leaves_is_asked_for_again_after_it(bell: Bell) -> None:
    with sky.Compute(provider=Dear(), worker=ONE, options=sky.Options(max_hourly=1.5 * HOUR)) as compute:
        running = compute.submit(work.ring, bell.port)
        line = bell.answer()
        notice(compute, 0)
        kit.until(lambda: any(each.stage == "ended" for each in changes(compute)))
        line.release()
        assert running.result(kit.SOON) == b"on"
        assert compute.submit(where).result(kit.SOON) == 1


def test_what_is_too_dear_just_when_one_leaves_is_asked_for_again() -> None:
    with sky.Compute(provider=Dear(), worker=ONE, options=sky.Options(max_hourly=1.5 * HOUR)) as compute:
        notice(compute, 0)
        kit.until(lambda: [node.number for node in compute.nodes] == [1])
        assert compute.submit(where).result(kit.SOON) == 1


def test_calls_for_a_node_that_leaves_are_told_and_those_for_every_node_go_to_the_others(bell: Bell) -> None:
    with sky.Compute(nodes=2, worker=ONE) as compute:
        running = compute.submit_under(CallOptions(node=0), work.ring, (bell.port,), {})
        line = bell.answer()
        queued = compute.submit_under(CallOptions(node=0), where, (), {})
        notice(compute, 0)
        kit.until(lambda: len(compute.nodes) == 3)
        assert compute.broadcast(where) == [1, 2]
        line.release()
        assert running.result(kit.SOON) == b"on"
        with pytest.raises(sky.BatchLost, match="node 0 has left the pool"):
            queued.result(kit.SOON)
        with pytest.raises(sky.BatchLost, match="node 0 has left the pool"):
            compute.submit_under(CallOptions(node=0), where, (), {}).result(kit.SOON)
        with pytest.raises(sky.InvalidArgument, match="node=3: the pool has nodes 1 to 2"):
            _ = compute.submit_under(CallOptions(node=3), where, (), {})
        assert compute.submit_under(CallOptions(node=2), where, (), {}).result(kit.SOON) == 2
        assert compute.broadcast(where) == [1, 2]
        with pytest.raises(sky.InvalidArgument, match="node 2 has no share"):
            compute.broadcast(sky.shard, range(10))


def test_a_call_that_was_lost_with_its_node_is_told_when_no_other_comes_under_its_number(bell: Bell) -> None:
    with sky.Compute(nodes=2, worker=ONE) as compute:
        running = compute.submit_under(CallOptions(node=0), work.ring, (bell.port,), {})
        bell.answer()
        notice(compute, 0)
        kit.until(lambda: len(compute.nodes) == 3)
        kit.kill(kit.host(compute.nodes[0]))
        with pytest.raises(sky.BatchLost, match="node 0 has left the pool"):
            running.result(kit.SOON)


def test_a_broadcast_waits_for_a_node_that_comes_under_a_number_that_was_given_up(bell: Bell) -> None:
    with sky.Compute(worker=ONE) as compute:
        notice(compute, 0)
        kit.until(lambda: [node.number for node in compute.nodes] == [1])
        notice(compute, 1)
        assert compute._driver is not None
        driver = compute._driver
        kit.until(lambda: driver.node_numbers() == [0])
        assert compute.broadcast(where) == [0]
