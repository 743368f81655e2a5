"""Large buffers are kept by content, and hashed once for each group of calls."""

import gc
import hashlib

import numpy as np
import pytest

from skyward import shelf
from skyward.remote.blobs import Blob
from skyward.shelf import Seen, Shelf


class Counting(Shelf):
    def __init__(self) -> None:
        super().__init__()
        self.hashed = 0

    def put(self, content: memoryview) -> Blob:
        self.hashed += 1
        return super().put(content)


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def seen(counting: Counting) -> Seen:
    return Seen(counting)


def raw(array: np.ndarray) -> memoryview:
    """What pickle hands out of an array."""
    return memoryview(array).cast("B")


def test_equal_content_is_there_once() -> None:
    here = Shelf()
    first, second = here.put(memoryview(b"abc")), here.put(memoryview(bytearray(b"abc")))

    assert first is second
    assert first.name == hashlib.sha256(b"abc").hexdigest()
    assert first.read(0, 10) == b"abc"


def test_what_nobody_holds_is_not_kept() -> None:
    here = Shelf()
    inode = here.put(memoryview(b"abc")).ref.inode
    gc.collect()

    assert here.put(memoryview(b"abc")).ref.inode != inode


def test_an_array_that_comes_again_is_not_hashed_again(counting: Counting, seen: Seen) -> None:
    array = np.arange(10_000)

    assert seen.put(raw(array)) is seen.put(raw(array)) is seen.put(raw(array[:]))
    assert counting.hashed == 1


def test_a_part_of_an_array_is_not_the_array(seen: Seen) -> None:
    array = np.arange(10_000)

    assert seen.put(raw(array)) is not seen.put(raw(array[:100]))
    assert seen.put(raw(array[100:200])).read(0, 8) == array[100:101].tobytes()


def test_an_array_that_was_written_to_is_seen_to_have_changed(seen: Seen) -> None:
    array = np.arange(10_000)
    before = seen.put(raw(array))
    array[:] = 7

    assert seen.put(raw(array)).read(0, 8) == np.int64(7).tobytes()
    assert before.read(8, 8) == np.int64(1).tobytes()


def test_an_array_that_is_gone_is_forgotten(counting: Counting, seen: Seen) -> None:
    for number in range(5):
        seen.put(raw(np.full(10_000, number)))
    gc.collect()

    assert counting.hashed == 5
    assert not seen._arrays


def test_bytes_that_come_again_are_not_hashed_again(counting: Counting, seen: Seen) -> None:
    large = b"x" * 1000

    assert seen.put(memoryview(large)) is seen.put(memoryview(large))
    assert counting.hashed == 1


def test_only_the_last_bytes_are_remembered(counting: Counting, seen: Seen) -> None:
    large = [bytes([number]) * 1000 for number in range(shelf.KEPT + 1)]
    for each in large:
        seen.put(memoryview(each))
    seen.put(memoryview(large[1]))
    assert counting.hashed == shelf.KEPT + 1
    seen.put(memoryview(large[0]))
    assert counting.hashed == shelf.KEPT + 2


def test_what_tells_no_address_is_hashed_each_time(counting: Counting, seen: Seen) -> None:
    large = bytearray(b"abc" * 100)

    assert seen.put(memoryview(large)) is seen.put(memoryview(large))
    assert counting.hashed == 2


def test_what_cannot_be_followed_to_its_end_is_hashed_each_time(counting: Counting, seen: Seen) -> None:
    class Buffer(bytearray):
        __slots__ = ()
        address = 4096

    large = Buffer(b"abc" * 100)
    seen.put(memoryview(large))
    seen.put(memoryview(large))

    assert counting.hashed == 2
