"""What a node's blob server keeps of the messages that reach it, late ones among them."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from skyward.remote.blobs import MISSING_BLOB, Blob, Ref, view
from skyward.remote.node.blob_server import BlobServer
from skyward.remote.protocol import CHUNK_BYTES, Batch, Drop, Fetch, Store


@dataclass
class Reply:
    said: list[Any] = field(default_factory=list)

    def tell(self, answer: Any) -> None:
        self.said.append(answer)


class Node:
    def __init__(self) -> None:
        self.server = BlobServer()

    def say(self, message: Any) -> Any:
        object.__setattr__(message, "reply_to", reply := Reply())
        self.server.handle(message)
        (answer,) = reply.said
        return answer

    def put(self, name: str, data: bytes, number: int) -> None:
        for chunk in chunks(name, data, number):
            assert self.say(chunk).problem == ""


def chunks(name: str, data: bytes, number: int) -> list[Store]:
    return [Store(name, len(data), at, data[at : at + CHUNK_BYTES], number) for at in range(0, len(data), CHUNK_BYTES)]


@pytest.fixture
def node() -> Node:
    return Node()


DATA = bytes(range(256)) * (CHUNK_BYTES // 100)


def test_a_blob_is_there_when_its_last_chunk_is_in_whatever_order_and_how_often_they_come(node: Node) -> None:
    first, *middle, last = chunks("a", DATA, 1)
    for chunk in (last, *middle, last):
        node.say(chunk)
    assert node.server.blobs == {}
    for _ in range(2):
        node.say(first)

    assert bytes(view(node.server.blobs["a"].ref)) == DATA


def test_a_drop_that_is_late_takes_nothing_that_was_sent_since(node: Node) -> None:
    node.put("a", DATA, 1)
    node.say(Drop(("a",), (), 2))
    node.put("b", DATA, 2)
    node.put("a", DATA, 3)
    node.say(Drop(("a",), (), 2))

    assert set(node.server.blobs) == {"a", "b"}


def test_a_chunk_that_is_late_begins_nothing_and_does_not_harm_what_arrives(node: Node) -> None:
    node.put("a", DATA, 1)
    node.say(Drop(("a",), (), 2))
    first, *others = chunks("b", DATA[::-1], 2)
    node.say(first)
    node.say(chunks("a", DATA, 1)[0])
    for chunk in others:
        node.say(chunk)

    assert set(node.server.blobs) == {"b"}
    assert bytes(view(node.server.blobs["b"].ref)) == DATA[::-1]


def test_a_blob_that_was_given_up_is_begun_from_nothing_in_the_next_round(node: Node) -> None:
    node.say(chunks("a", DATA, 1)[0])
    for chunk in chunks("a", DATA, 2)[1:]:
        node.say(chunk)
    assert node.server.blobs == {}
    node.put("a", DATA, 3)

    assert bytes(view(node.server.blobs["a"].ref)) == DATA


def test_a_chunk_that_cannot_be_kept_is_answered_with_the_reason(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Blob, "write", full)
    answers = [node.say(chunk) for chunk in chunks("a", DATA, 1)]

    assert {answer.problem for answer in answers} == {
        f"it cannot keep a large buffer of {len(DATA):,} bytes: No space left on device"
    }
    assert node.server.blobs == {}


def test_a_result_is_read_until_it_is_dropped(node: Node) -> None:
    node.server.keep_result(7, Blob.of([DATA]))

    assert node.say(Fetch(7, CHUNK_BYTES)).data == DATA[CHUNK_BYTES : 2 * CHUNK_BYTES]
    node.say(Drop((), (7,)))
    assert node.say(Fetch(7, 0)).data == b""


def test_the_places_of_a_batch_are_those_of_the_driver_or_else_of_what_was_sent(node: Node) -> None:
    node.put("a", DATA, 1)
    place = Ref("/somewhere", "tag", 3)

    assert node.server.places(Batch(1, b"", blobs=("a", "b"))) == {"a": node.server.blobs["a"].ref, "b": MISSING_BLOB}
    assert node.server.places(Batch(1, b"", blobs=("a",), places=(place,))) == {"a": place}
