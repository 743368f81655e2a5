"""Machines that are about to be taken away: another comes, or the calls are told why not, and none waits for ever."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import skyward as sky
from skyward.actors import scaling
from skyward.events import NodeChanged
from skyward.providers.provider import Instance, Order
from tests import kit, work
from tests.kit import HOUR, Bell, Dear

ONE = sky.Worker(concurrency=1)


class Scarce(sky.Local):
    """There is room for two machines, and for none while there is a file `full`; `asked` has who was refused."""

    async def launch(self, order: Order) -> Instance:
        assert self.folder is not None
        if (self.folder / "full").exists() or len(list(self.folder.glob("skyward-*"))) >= 2:
            work.note(self.folder / "asked", order.node)
            raise sky.NoCapacity("there is no room")
        return await super().launch(order)

    def refusals(self) -> list[str]:
        assert self.folder is not None
        asked = self.folder / "asked"
        return asked.read_text().split() if asked.exists() else []


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(scaling, "PAUSE", 0.02)
    return iter(())


def notice(compute: sky.Compute, number: int) -> None:
    """The node says that its machine is about to be taken away."""
    assert compute._driver is not None
    link = compute._driver._office.links[number]
    compute._driver._loop.call_soon_threadsafe(link._noticed, "terminate")


def changes(compute: sky.Compute) -> list[NodeChanged]:
    return [each for each in compute.events() if isinstance(each, NodeChanged)]


def where() -> int:
    return sky.instance_info().node


def test_calls_go_to_a_node_that_could_be_had_only_after_the_one_that_was_taken_away(
    tmp_path: Path, bell: Bell
) -> None:
    provider = Scarce(folder=tmp_path)
    with sky.Compute(provider=provider, worker=ONE) as compute:
        running = compute.submit(work.ring, bell.port)
        bell.answer()
        (tmp_path / "full").touch()
        notice(compute, 0)
        kit.until(lambda: len(provider.refusals()) >= 3)
        waiting = compute.submit(where)
        (tmp_path / "full").unlink()
        kit.kill(kit.host(compute.nodes[0]))
        bell.answer().release(b"again")
        assert running.result(kit.SOON) == b"again"
        assert waiting.result(kit.SOON) == 1


def test_the_calls_are_told_when_no_other_node_can_be_had(tmp_path: Path, bell: Bell) -> None:
    provider = Scarce(folder=tmp_path)
    with sky.Compute(provider=provider, worker=ONE) as compute:
        running = compute.submit(work.ring, bell.port)
        bell.answer()
        (tmp_path / "full").touch()
        notice(compute, 0)
        kit.until(lambda: len(provider.refusals()) >= 3)
        waiting = compute.submit(where)
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
