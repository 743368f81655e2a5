"""What is cut out of the stream of a worker, and what lies in its pipes."""

import os
from collections.abc import Iterator

import pytest

from skyward.remote.node.worker import FRAME_HEADER
from skyward.remote.node.worker_link import Frames, WorkerLink, messages


def framed(*texts: bytes) -> bytes:
    return b"".join(FRAME_HEADER.pack(len(text)) + text for text in texts)


@pytest.fixture
def link() -> Iterator[WorkerLink]:
    made = WorkerLink(1)
    yield made
    made.close()


def test_a_stream_is_cut_into_the_messages_that_are_whole() -> None:
    data = framed(b"one", b"", b"three")

    assert [bytes(each) for each in messages(data)] == [b"one", b"", b"three"]
    assert [bytes(each) for each in messages(data[:-1])] == [b"one", b""]
    assert list(messages(data[: FRAME_HEADER.size - 1])) == []


@pytest.mark.parametrize("size", [1, 3, 11, 100])
def test_messages_arrive_in_whatever_pieces_they_come(link: WorkerLink, size: int) -> None:
    heard: list[bytes] = []

    def hear(worker: WorkerLink, data: bytes) -> int:
        found = [bytes(each) for each in messages(data)]
        heard.extend(found)
        return sum(FRAME_HEADER.size + len(each) for each in found)

    frames = Frames(link, hear)
    data = framed(b"one", b"", b"three", bytes(50))
    for at in range(0, len(data), size):
        frames.data_received(data[at : at + size])
    frames.connection_lost(None)

    assert heard == [b"one", b"", b"three", bytes(50)]
    assert link.disconnected.is_set()


def test_tokens_are_taken_by_either_end_once(link: WorkerLink) -> None:
    assert link.take_back() == 0
    link.tokens = os.pipe2(os.O_NONBLOCK)
    os.write(link.tokens[1], bytes(5))
    assert os.read(link.tokens[0], 1) == b"\0"

    assert link.take_back() == 4
    assert link.take_back() == 0


def test_what_a_worker_left_is_there_after_it_has_died(link: WorkerLink) -> None:
    assert link.read_outcomes() == b""
    link.outcome_pipe, end = os.pipe2(os.O_NONBLOCK)
    os.write(end, b"outcome")
    os.write(end, b" and another")
    os.close(end)

    assert link.read_outcomes() == b"outcome and another"
    assert link.read_outcomes() == b""


def test_messages_wait_until_there_is_a_connection(link: WorkerLink) -> None:
    link.send("start", 0)
    link.send("run", 0)

    assert len(link.waiting) == 2
