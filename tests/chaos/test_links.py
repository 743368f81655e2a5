"""A link that is cut, silent or slow costs time and nothing else: no call runs twice, and none is lost."""

import math
import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import pytest

import skyward as sky
from skyward.events import NodeSilent
from skyward.remote.call_options import CallOptions
from tests import kit
from tests.forward import Links, Way
from tests.history import History
from tests.kit import Bell
from tests.work import ring

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
    folder: Path, *, nodes: int = 2, grace: float = 60.0, delay: float = 0.0, down: float = 0.0, again: bool = False
) -> Iterator[tuple[sky.Compute, Links, History]]:
    """A pool whose nodes are behind forwards; what it was asked is answered as it should be when the block is over."""
    made = History(folder.parent / "notes", (folder.parent / "notes").read_text)
    with (
        Links(folder, delay=delay) as links,
        sky.Compute(
            provider=links.provider,
            nodes=nodes,
            worker=sky.Worker(concurrency=2),
            options=sky.Options(grace=grace),
        ) as compute,
    ):
        yield compute, links, made
        made.all(down + kit.SOON)
        report = compute.report()
    if made.answered:
        made.check(report, again=again)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "nodes"
    made.mkdir()
    return made


STUCK = """
import ctypes, os, pathlib, sys, threading, time

def wait(sign=pathlib.Path(os.environ["STUCK"])):
    while not sign.exists():
        time.sleep(0.05)
    if sign.read_text() == str(os.getpid()):
        ctypes.PyDLL(None).sleep(600)  # and nobody else has the interpreter meanwhile

if "skyward.remote.node" in sys.orig_argv:
    threading.Thread(target=wait, daemon=True).start()
    os.register_at_fork(after_in_child=lambda: threading.Thread(target=wait, daemon=True).start())
"""
"""What has a node's process be stuck once its pid is in a file."""


def test_a_node_whose_interpreter_is_stuck_is_lost_though_its_connection_is_heard(
    tmp_path: Path, bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(STUCK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("STUCK", str(tmp_path / "stuck"))
    with sky.Compute(worker=sky.Worker(concurrency=1), options=sky.Options(grace=1.0)) as compute:
        future = compute.submit(ring, bell.port)
        first = bell.answer()
        (tmp_path / "said").write_text(str(kit.host(compute.nodes[0])))
        (tmp_path / "said").rename(tmp_path / "stuck")
        bell.answer().release()  # it runs on another node
        assert future.result(kit.SOON) == b"on"
        first.release()


def test_a_slow_line_costs_time_and_nothing_else(folder: Path) -> None:
    with distant(folder, nodes=1, grace=1.0) as (compute, links, _):
        links.latest[0].rate = 300_000
        with compute.task_group(blob_threshold=math.inf) as group:
            there = group.submit(len, bytes(3_000_000))
            back = [group.submit(bytes, LARGE) for _ in range(2)]
        assert there.result(0) == 3_000_000
        assert [len(each.result(0)) for each in back] == [LARGE] * 2
        assert not compute.report().retries
        assert not [event for event in compute.events() if isinstance(event, NodeSilent)]


@pytest.mark.parametrize(
    "down", [0.0, 1.0, 5.0, pytest.param(30.0, marks=[pytest.mark.slow, pytest.mark.timeout(240)])]
)
def test_a_link_that_drops_at_random_moments_loses_and_doubles_nothing(down: float, folder: Path) -> None:
    luck = random.Random(7)
    with distant(folder, grace=300.0, down=down) as (
        compute,
        links,
        made,
    ):  # a cut may follow on a cut
        made.ask(compute, range(200))
        for _ in range(2 if down > 1 else 6):
            for forward in links.latest.values():
                way: Way = luck.choice(("there", "back"))
                forward.cut_after((way, luck.randrange(1, 3000)), down=down)
            made.more(1, down + kit.SOON)
        made.all(down + kit.SOON)
        assert sum(forward.cuts for forward in links.latest.values()) >= 2


@pytest.mark.parametrize("down", [0.0, 1.0])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_link_cut_at_any_moment_of_the_protocol_loses_and_doubles_nothing(
    moment: str, down: float, folder: Path
) -> None:
    with distant(folder, nodes=1) as (compute, links, made):
        forward = links.latest[0]
        forward.cut_after(*MOMENTS[moment], down=down)
        made.ask(compute, [os.urandom(LARGE)] * 20)
        made.all()
        assert forward.cuts == 1


def test_a_link_that_is_silent_for_a_while_loses_and_doubles_nothing(folder: Path) -> None:
    with distant(folder, nodes=1) as (compute, links, made):
        made.ask(compute, range(50))
        made.more()
        links.latest[0].freeze()
        thaw = threading.Timer(3.0, links.latest[0].thaw)
        thaw.start()
        made.all()
        thaw.join()


def test_a_node_that_is_frozen_for_a_while_loses_and_doubles_nothing(folder: Path) -> None:
    with distant(folder, nodes=1) as (compute, _, made):
        host = kit.host(compute.nodes[0])
        made.ask(compute, range(50))
        made.more()
        os.kill(host, signal.SIGSTOP)
        wake = threading.Timer(3.0, os.kill, (host, signal.SIGCONT))
        wake.start()
        made.all()
        wake.join()


def test_a_frozen_node_is_noticed_and_its_work_goes_elsewhere(folder: Path, bell: Bell) -> None:
    with distant(folder, grace=0.5) as (compute, _, _):
        first = compute.nodes[1]
        waiting = [compute.submit_under(CallOptions(node=node), ring, (bell.port,), {}) for node in range(2)]
        lines = [bell.answer() for _ in waiting]
        os.kill(kit.host(first), signal.SIGSTOP)
        for line in (*lines, bell.answer()):
            line.release()
        assert [future.result(kit.SOON) for future in waiting] == [b"on", b"on"]
        assert compute.nodes[1].instance != first.instance


def test_a_node_whose_link_is_down_for_longer_than_its_grace_is_lost(folder: Path) -> None:
    with distant(folder, grace=0.5, again=True) as (compute, links, made):
        first = compute.nodes[1]
        made.ask(compute, range(100))
        made.more()
        links.latest[1].cut(down=60.0)
        made.all()
        assert sum(compute.report().retries.values()) <= 8  # what one node held may run twice
        assert compute.broadcast(sum, (2, 3)) == [5, 5]
        assert compute.nodes[1].instance != first.instance


def test_the_late_answer_of_a_lost_node_is_counted_and_dropped(folder: Path, bell: Bell) -> None:
    with distant(folder, grace=0.5) as (compute, links, _):
        heard = threading.Event()
        links.hold_back = lambda: heard.wait(kit.SOON)
        future = compute.submit_under(CallOptions(node=1), ring, (bell.port,), {})
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
