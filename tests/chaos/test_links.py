"""A link that is cut, silent or slow costs time and nothing else: no call runs twice, and none is lost."""

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import pytest

import skyward as sky
from skyward.remote.terms import Terms
from tests import kit
from tests.forward import Links, Way
from tests.kit import Bell
from tests.work import note_and_echo, ring

LARGE = 400_000
"""Bytes of an argument and of a result by which the moments of the protocol can be told apart."""

MOMENTS: dict[str, tuple[tuple[Way, int], ...]] = {
    "in an assignment": (("there", LARGE // 2),),
    "between an assignment and its answer": (("there", LARGE), ("back", 1)),
    "in an answer": (("back", LARGE // 2),),
    "between an answer and its acknowledgement": (("back", LARGE), ("there", 1)),
}


@contextmanager
def distant(
    folder: Path, *, nodes: int = 2, grace: float = 60.0, delay: float = 0.0
) -> Iterator[tuple[sky.Compute, Links]]:
    """A pool whose nodes are behind forwards."""
    with (
        Links(folder, delay=delay) as links,
        sky.Compute(
            provider=links.provider,
            nodes=nodes,
            worker=sky.Worker(concurrency=2),
            options=sky.Options(grace=grace),
        ) as compute,
    ):
        yield compute, links


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "nodes"
    made.mkdir()
    return made


def runs(file: Path) -> Counter[int]:
    """How often each call has run."""
    return Counter(int(line) for line in file.read_text().split())


@pytest.mark.parametrize(
    "down", [0.0, 1.0, 5.0, pytest.param(30.0, marks=[pytest.mark.slow, pytest.mark.timeout(240)])]
)
def test_a_link_that_drops_at_random_moments_loses_and_doubles_nothing(
    down: float, folder: Path, tmp_path: Path
) -> None:
    luck, notes, count = random.Random(7), tmp_path / "notes", 200
    with distant(folder, grace=300.0) as (compute, links):  # a cut may follow before a node was heard again
        results = compute.map(note_and_echo, [notes] * count, range(count), range(count))
        for _ in range(2 if down > 1 else 6):
            for forward in links.latest.values():
                way: Way = luck.choice(("there", "back"))
                forward.cut_after((way, luck.randrange(1, 3000)), down=down)
            next(results)
        assert list(results)[-1] == count - 1
        assert sum(forward.cuts for forward in links.latest.values()) >= 2
    assert runs(notes) == Counter(range(count))


@pytest.mark.parametrize("down", [0.0, 1.0])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_link_cut_at_any_moment_of_the_protocol_loses_and_doubles_nothing(
    moment: str, down: float, folder: Path, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    with distant(folder, nodes=1) as (compute, links):
        forward = links.latest[0]
        forward.cut_after(*MOMENTS[moment], down=down)
        results = list(compute.map(note_and_echo, [notes] * 20, range(20), [os.urandom(LARGE)] * 20))
        assert forward.cuts == 1
    assert [len(result) for result in results] == [LARGE] * 20
    assert runs(notes) == Counter(range(20))


def test_a_link_that_is_silent_for_a_while_loses_and_doubles_nothing(folder: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with distant(folder, nodes=1) as (compute, links):
        results = compute.map(note_and_echo, [notes] * 50, range(50), range(50))
        next(results)
        links.latest[0].freeze()
        thaw = threading.Timer(3.0, links.latest[0].thaw)
        thaw.start()
        assert list(results) == list(range(1, 50))
        thaw.join()
    assert runs(notes) == Counter(range(50))


def test_a_node_that_is_frozen_for_a_while_loses_and_doubles_nothing(folder: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with distant(folder, nodes=1) as (compute, _):
        host = kit.host(compute.nodes[0])
        results = compute.map(note_and_echo, [notes] * 50, range(50), range(50))
        next(results)
        os.kill(host, signal.SIGSTOP)
        wake = threading.Timer(3.0, os.kill, (host, signal.SIGCONT))
        wake.start()
        assert list(results) == list(range(1, 50))
        wake.join()
    assert runs(notes) == Counter(range(50))


def test_a_frozen_node_is_noticed_and_its_work_goes_elsewhere(folder: Path, bell: Bell) -> None:
    with distant(folder, grace=0.5) as (compute, _):
        first = compute.nodes[1]
        waiting = [compute.submit_under(Terms(node=node), ring, (bell.port,), {}) for node in range(2)]
        lines = [bell.answer() for _ in waiting]
        os.kill(kit.host(first), signal.SIGSTOP)
        for line in (*lines, bell.answer()):
            line.release()
        assert [future.result(kit.SOON) for future in waiting] == [b"on", b"on"]
        assert compute.nodes[1].instance != first.instance


def test_a_node_whose_link_is_down_for_longer_than_its_grace_is_lost(folder: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with distant(folder, grace=0.5) as (compute, links):
        first = compute.nodes[1]
        results = compute.map(note_and_echo, [notes] * 100, range(100), range(100))
        next(results)
        links.latest[1].cut(down=60.0)
        assert list(results) == list(range(1, 100))
        assert compute.broadcast(sum, (2, 3)) == [5, 5]
        assert compute.nodes[1].instance != first.instance
    assert runs(notes).keys() == set(range(100))
    assert sum(runs(notes).values()) <= 100 + 4  # what one node held may have run twice


def test_the_late_answer_of_a_lost_node_is_counted_and_dropped(folder: Path, bell: Bell) -> None:
    with distant(folder, grace=0.5) as (compute, links):
        heard = threading.Event()
        links.hold_back = lambda: heard.wait(kit.SOON)
        future = compute.submit_under(Terms(node=1), ring, (bell.port,), {})
        line = bell.answer()
        links.latest[1].freeze()
        line.release(b"late")
        while not compute.report().retries:  # until it is given up: it was the attempt of a lost node
            futures.wait([future], 0.05)
        links.latest[1].thaw()
        while not compute.report().late:
            futures.wait([future], 0.05)
        heard.set()
        bell.answer().release(b"in time")
        assert future.result(kit.SOON) == b"in time"
        assert compute.report().late == 1
