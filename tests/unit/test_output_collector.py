"""What is written into the pipes of workers is printed as frames: in order, whole lines, and nothing is lost."""

import contextlib
import os
import selectors
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skyward.remote.node import output_collector
from skyward.remote.node.output_capture import OutputPipes
from skyward.remote.node.output_collector import OutputCollector
from skyward.remote.node_messages import OutputFrame, decode
from skyward.remote.output_protocol import ERR, LOG, OUT, FrameDecoder, strokes
from tests.kit import SOON


class Desk:
    """A collector at work: `heard` is what it has printed of each slot and stream."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.selector = selector
        self.read, self.out = os.pipe()
        os.set_blocking(self.read, False)
        self.collector = OutputCollector(selector, self.out)
        self.heard: list[tuple[int, int, str]] = []
        self._ear, self._part = FrameDecoder(), b""

    def worker(self, number: int, slot: int) -> OutputPipes:
        """Open the pipes of a worker, which keeps its ends."""
        given = self.collector.open(number, slot)
        kept = OutputPipes(*(os.dup(end) for end in (given.out, given.err, given.page)))
        self.collector.forked()
        return kept

    def work(self, until: Callable[[], object]) -> None:
        """Have the collector work until something is true."""
        deadline = time.monotonic() + SOON
        while not until():
            assert time.monotonic() < deadline
            for key, _ in self.selector.select(min(self.collector.timeout() or 0.01, 0.01)):
                assert self.collector.handle_ready(key.data)
            self.collector.flush()
            self.listen()

    def listen(self) -> None:
        """Take what was printed."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.read, 1 << 16):
                *lines, self._part = (self._part + data).split(b"\n")
                for line in lines:
                    _, said = decode(line.decode())
                    assert isinstance(said, OutputFrame)
                    self.heard.append((said.slot, said.stream, self._ear.hear(said)))

    def text(self, slot: int, stream: int) -> str:
        """All that was heard of one stream."""
        return "".join(text for *place, text in self.heard if place == [slot, stream])


@pytest.fixture
def desk() -> Iterator[Desk]:
    with selectors.DefaultSelector() as selector:
        desk = Desk(selector)
        yield desk
        os.close(desk.read)
        os.close(desk.out)


def let_go(pens: OutputPipes) -> None:
    for end in (pens.out, pens.err, pens.page):
        os.close(end)


def say(pens: OutputPipes, slot: int, text: str, stream: int = OUT) -> None:
    for stroke in strokes(stream, slot, text.encode(), 4096):
        os.write(pens.page, stroke)


def test_lines_of_a_slot_come_in_the_order_they_were_written(desk: Desk) -> None:
    pens = desk.worker(1, 0)
    for number in range(3):
        say(pens, 0, f"out {number}\n")
        say(pens, 0, f"err {number}\n", ERR)
        say(pens, 0, f"log {number}\n", LOG)
    desk.work(lambda: len(desk.heard) == 9)
    assert desk.heard == [
        (0, stream, f"{name} {number}\n")
        for number in range(3)
        for stream, name in ((OUT, "out"), (ERR, "err"), (LOG, "log"))
    ]
    let_go(pens)
    desk.collector.finish(1)


def test_what_other_programs_write_has_the_worker_s_slot(desk: Desk) -> None:
    pens = desk.worker(1, 3)
    os.write(pens.out, b"a\n")
    os.write(pens.err, b"b\n")
    desk.work(lambda: len(desk.heard) == 2)
    assert sorted(desk.heard) == [(3, OUT, "a\n"), (3, ERR, "b\n")]
    let_go(pens)
    desk.collector.finish(1)


def test_a_program_that_a_task_runs_comes_between_what_the_task_prints(desk: Desk) -> None:
    pens, expected = desk.worker(1, 0), ""
    for number in range(5):
        say(pens, 0, f"{number} before\n")
        expected += f"{number} before\n"
        desk.work(lambda: desk.text(0, OUT) == expected)  # noqa: B023 - a program takes longer to start
        say(pens, 0, f"{number} just before\n")
        os.write(pens.out, f"{number} meanwhile\n".encode())
        for key, _ in desk.selector.select(0):
            desk.collector.handle_ready(key.data)
        say(pens, 0, f"{number} after\n")
        expected += f"{number} just before\n{number} meanwhile\n{number} after\n"
    desk.work(lambda: len(desk.text(0, OUT)) == len(expected))
    assert desk.text(0, OUT) == expected
    let_go(pens)
    desk.collector.finish(1)


def test_a_part_of_a_line_is_printed_after_a_while(desk: Desk) -> None:
    pens = desk.worker(1, 0)
    say(pens, 0, "wait")
    began = time.monotonic()
    desk.work(lambda: desk.heard)
    assert desk.heard == [(0, OUT, "wait")]
    assert time.monotonic() - began >= output_collector.PARTIAL_LINE_DELAY_S / 2
    let_go(pens)
    desk.collector.finish(1)


def test_a_record_of_logging_is_printed_when_it_is_whole_however_long_that_takes(desk: Desk) -> None:
    pens = desk.worker(1, 0)
    say(pens, 0, '["half', LOG)
    say(pens, 0, "a part")
    desk.work(lambda: desk.heard)  # after a while
    assert desk.heard == [(0, OUT, "a part")]
    say(pens, 0, ' a record"]\n', LOG)
    desk.work(lambda: len(desk.heard) == 2)
    assert desk.heard[1] == (0, LOG, '["half a record"]\n')
    let_go(pens)
    desk.collector.finish(1)


def test_large_tables_come_in_whole_lines_although_somebody_reads_late(desk: Desk) -> None:
    pens, table = desk.worker(1, 0), "".join(f"row {number} {'x' * 200}\n" for number in range(2000))
    writer = threading.Thread(target=say, args=(pens, 0, table), daemon=True)
    writer.start()
    until = time.monotonic() + 2 * output_collector.PARTIAL_LINE_DELAY_S
    while time.monotonic() < until:  # nobody takes what is printed
        for key, _ in desk.selector.select(0.01):
            desk.collector.handle_ready(key.data)
        desk.collector.flush()
    desk.work(lambda: len(desk.text(0, OUT)) == len(table))
    writer.join(SOON)
    assert desk.text(0, OUT) == table
    assert all(text.endswith("\n") for _, _, text in desk.heard if text)
    let_go(pens)
    desk.collector.finish(1)


def test_what_a_worker_wrote_before_it_died_is_there_at_once(desk: Desk) -> None:
    pens = desk.worker(1, 0)
    say(pens, 0, "last words\nand no end")
    os.write(pens.err, b"a dump")
    let_go(pens)
    desk.collector.finish(1)
    desk.listen()
    assert desk.heard == [(0, OUT, "last words\n"), (0, OUT, "and no end"), (0, ERR, "a dump")]
    assert desk.collector.timeout() is None


def test_who_a_dead_worker_has_started_is_still_heard(desk: Desk) -> None:
    pens = desk.worker(1, 0)
    os.close(pens.page)
    os.close(pens.err)
    desk.collector.finish(1)
    os.write(pens.out, b"later\n")
    desk.work(lambda: desk.heard)
    os.close(pens.out)
    desk.work(lambda: not desk.selector.get_map())


def test_who_writes_much_is_held_up_until_somebody_reads(desk: Desk) -> None:
    pens, text = desk.worker(1, 0), "x" * 3000 + "\n"

    def write() -> None:
        for _ in range(1000):
            say(pens, 0, text)
        let_go(pens)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    deadline = time.monotonic() + SOON
    while desk.collector._size <= output_collector.MAX_WAITING_BYTES:
        assert time.monotonic() < deadline
        for key, _ in desk.selector.select(0.01):
            desk.collector.handle_ready(key.data)
        desk.collector.flush()
    assert writer.is_alive()
    desk.work(lambda: len(desk.text(0, OUT)) == 1000 * len(text))
    writer.join(SOON)
    assert desk.text(0, OUT) == text * 1000
    desk.collector.finish(1)


def test_the_end_of_the_node_leaves_nothing_unsaid(desk: Desk) -> None:
    pens = [desk.worker(number, number) for number in range(3)]
    for number in range(3):
        say(pens[number], number, f"I am {number}")
    desk.collector.close()
    desk.listen()
    assert sorted(desk.heard) == [(number, OUT, f"I am {number}") for number in range(3)]
    for each in pens:
        let_go(each)


def test_it_goes_on_when_nobody_listens_any_more() -> None:
    with selectors.DefaultSelector() as selector:
        desk = Desk(selector)
        pens = desk.worker(1, 0)
        os.close(desk.read)
        for _ in range(3):
            say(pens, 0, "text\n" * 100)
            desk.collector.finish(1)
        let_go(pens)
        desk.collector.finish(1)
        os.close(desk.out)


def test_a_disk_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_collector, "MAX_FILE_BYTES", 1 << 20)
    with selectors.DefaultSelector() as selector, (tmp_path / "out").open("wb") as out:
        made = OutputCollector(selector, out.fileno())
        given = made.open(1, 0)
        pens = OutputPipes(*(os.dup(end) for end in (given.out, given.err, given.page)))
        made.forked()
        for _ in range(60):
            say(pens, 0, "x" * 40_000 + "\n")
            made.finish(1)
        let_go(pens)
        made.finish(1)
    printed = (tmp_path / "out").read_text()
    assert (1 << 20) < len(printed) < (1 << 20) + 5000
    assert "this node has printed 1 MB; nothing more is shown" in printed.splitlines()[-1]
