"""Large buffers are kept by content, and copied once for each group of calls."""

import gc
import hashlib
import pickle
import time
from collections.abc import Generator

import numpy as np
import pytest

from skyward.calls import blob_store
from skyward.calls.blob_store import BlobStore, BufferCache
from skyward.remote.blobs import Blob, view
from tests import kit


class Counting(BlobStore):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def put(self, content: memoryview) -> Blob:
        self.asked += 1
        return super().put(content)


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def seen(counting: Counting) -> BufferCache:
    return BufferCache(counting)


def raw(array: np.ndarray) -> memoryview:
    """What pickle hands out of an array."""
    return memoryview(array).cast("B")


def test_equal_content_is_there_once() -> None:
    here = BlobStore()
    first, second = here.put(memoryview(b"abc")), here.put(memoryview(bytearray(b"abc")))

    assert first is second
    assert first.name == hashlib.sha256(b"abc").hexdigest()
    assert first.read(0, 10) == b"abc"


def test_where_no_node_has_a_store_nothing_is_hashed_and_equal_content_is_there_once_all_the_same() -> None:
    here = BlobStore(lambda: False)
    first, second, other = (here.put(memoryview(content)) for content in (b"abc", bytearray(b"abc"), b"abd"))

    assert first is second
    assert first.name == first.ref.tag != other.name
    assert (first.read(0, 10), other.read(0, 10)) == (b"abc", b"abd")
    with pytest.raises(PermissionError):
        first.write(0, b"x")


def test_what_nobody_holds_is_not_kept() -> None:
    here = BlobStore()
    inode = here.put(memoryview(b"abc")).ref.tag
    gc.collect()

    assert here.put(memoryview(b"abc")).ref.tag != inode


def test_an_array_that_comes_again_is_not_copied_again(counting: Counting, seen: BufferCache) -> None:
    array = np.arange(10_000)

    assert seen.put(raw(array)) is seen.put(raw(array)) is seen.put(raw(array[:]))
    assert counting.asked == 1


def test_a_part_of_an_array_is_not_the_array(seen: BufferCache) -> None:
    array = np.arange(10_000)

    assert seen.put(raw(array)) is not seen.put(raw(array[:100]))
    assert seen.put(raw(array[100:200])).read(0, 8) == array[100:101].tobytes()


@pytest.mark.parametrize("place", [0, 1, 4_999, 5_000, 9_998, 9_999])
def test_an_array_that_was_changed_in_one_byte_is_seen_to_have_changed(seen: BufferCache, place: int) -> None:
    array = np.zeros(10_000, "u1")
    before = seen.put(raw(array))
    for value in (1, 2):
        array[place] = value
        assert seen.put(raw(array)).read(0, 10_000) == array.tobytes()
    array[place] = 0

    assert seen.put(raw(array)) is before


def test_calls_that_wait_share_a_comparison_that_began_after_they_were_handed_over(seen: BufferCache) -> None:
    array = np.zeros(10_000, "u1")
    early = time.monotonic_ns()
    first = seen.put(raw(array))
    array[17] = 1

    with seen.handed_over(early):
        assert seen.put(raw(array)) is first  # what it held at any time since is right
    with seen.handed_over(time.monotonic_ns()):
        assert seen.put(raw(array)).read(17, 1) == b"\1"
    assert seen.put(raw(array)).read(17, 1) == b"\1"


def test_an_array_at_the_place_of_another_is_compared_although_that_one_was_just_looked_at(seen: BufferCache) -> None:
    memory = bytearray(10_000)
    early = time.monotonic_ns()
    old = np.frombuffer(memory, "u1")
    seen.put(raw(old))
    del old
    memory[5] = 1
    new = np.frombuffer(memory, "u1")

    with seen.handed_over(early):
        assert seen.put(raw(new)).read(5, 1) == b"\1"


def test_an_array_that_goes_takes_nothing_from_the_one_that_has_its_place(
    counting: Counting, seen: BufferCache
) -> None:
    memory = bytearray(10_000)
    old, new = np.frombuffer(memory, "u1"), np.frombuffer(memory, "u1")
    seen.put(raw(old))
    blob = seen.put(raw(new))
    del old
    gc.collect()

    assert seen.put(raw(new)) is blob
    assert counting.asked == 1


def test_an_array_that_is_gone_is_forgotten(counting: Counting, seen: BufferCache) -> None:
    for number in range(5):
        seen.put(raw(np.full(10_000, number)))
    gc.collect()

    assert counting.asked == 5
    assert not seen._arrays


def test_bytes_that_come_again_are_not_copied_again(counting: Counting, seen: BufferCache) -> None:
    large = b"x" * 1000

    assert seen.put(memoryview(large)) is seen.put(memoryview(large))
    assert counting.asked == 1


def test_a_part_of_bytes_is_not_the_bytes(seen: BufferCache) -> None:
    large = bytes(range(200)) * 10
    parts = [pickle.PickleBuffer(memoryview(large)[at : at + 500]).raw() for at in (0, 100, 101)]

    assert [seen.put(part).read(0, 500) for part in parts] == [bytes(part) for part in parts]
    assert seen.put(memoryview(large)).read(0, 2000) == large


def test_only_the_last_bytes_are_remembered(counting: Counting, seen: BufferCache) -> None:
    large = [bytes([number]) * 1000 for number in range(blob_store.MAX_REMEMBERED + 1)]
    for each in large:
        seen.put(memoryview(each))
    seen.put(memoryview(large[1]))
    assert counting.asked == blob_store.MAX_REMEMBERED + 1
    seen.put(memoryview(large[0]))
    assert counting.asked == blob_store.MAX_REMEMBERED + 2


def test_what_tells_no_address_is_looked_for_each_time(counting: Counting, seen: BufferCache) -> None:
    large = bytearray(b"abc" * 100)

    assert seen.put(memoryview(large)) is seen.put(memoryview(large))
    assert counting.asked == 2


def test_what_says_a_wrong_address_is_not_believed(seen: BufferCache) -> None:
    class Buffer(bytearray):
        address = 4096

    first, second = Buffer(b"abc" * 100), Buffer(b"abd" * 100)

    assert seen.put(memoryview(first)).read(0, 3) == b"abc"
    assert seen.put(memoryview(second)).read(0, 3) == b"abd"


def test_a_blob_is_named_by_what_is_in_it_though_the_array_changes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    here, memory = BlobStore(), bytearray(3 * blob_store.PIECE_BYTES)
    write = Blob.write

    def interrupted(blob: Blob, at: int, data: bytes) -> None:
        write(blob, at, data)
        memory[:] = b"x" * len(memory)

    monkeypatch.setattr(Blob, "write", interrupted)
    blob = here.put(memoryview(memory))
    monkeypatch.undo()
    content = blob.read(0, len(memory))

    assert content == bytes(blob_store.PIECE_BYTES) + b"x" * (2 * blob_store.PIECE_BYTES)
    assert blob.name == hashlib.sha256(content).hexdigest()
    assert here.put(memoryview(bytes(len(memory)))).read(0, len(memory)) == bytes(len(memory))


def test_a_buffer_may_be_put_by_what_interrupts_another() -> None:
    here = BlobStore()
    with here._lock:  # as a signal handler, or an object that is collected
        assert here.put(memoryview(b"abc")).read(0, 3) == b"abc"


SECONDS = [pytest.param(1.5, id="short"), pytest.param(120, id="long", marks=pytest.mark.long)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("by_content", [False, True])
def test_threads_that_put_equal_buffers_find_their_content_while_blobs_come_and_go(
    by_content: bool, seconds: float
) -> None:
    here = BlobStore(lambda: by_content)
    groups = [BufferCache(here) for _ in range(2)]
    arrays = [np.full(5000, value, "u1") for value in range(3)]

    def put(thread: int) -> Generator[str]:
        random = np.random.default_rng(thread)
        while True:
            content = raw(arrays[random.integers(3)].copy() if thread % 2 else arrays[random.integers(3)])
            blob = (groups[thread % 2] if thread < 3 else here).put(content)
            found = bytes(view(blob.ref))
            yield "" if found == bytes(content) else f"{found[:1]!r} for {bytes(content[:1])!r}"
            if not random.integers(50):
                groups[thread % 2].clear()
                gc.collect(0)

    wrong, looked = kit.repeated(6, seconds, put)
    assert not wrong
    assert min(looked) > 10
