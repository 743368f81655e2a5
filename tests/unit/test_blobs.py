"""Buffers in anonymous memory, and who finds them."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skyward.remote.blobs import ALIGNMENT, Blob, Ref, parted, starts, view


def places() -> set[str]:
    """What the descriptors of this process lead to that is a blob."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found.add(os.readlink(fd))
        except FileNotFoundError:
            continue
    return {place for place in found if "memfd:skyward-test" in place}


def test_another_process_finds_a_blob_and_copies_nothing() -> None:
    blob = Blob(5, "test")
    blob.write(0, b"abc")
    blob.write(3, b"de")
    script = f"from skyward.remote.blobs import Ref, view; print(bytes(view({blob.ref!r})).decode())"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=30, env=environment)

    assert said.strip() == "abcde"


def test_the_bytes_of_a_blob_are_counted_once_however_many_share_it() -> None:
    blob = Blob.of([b"abc"])
    assert (blob.charge(), blob.charge(), Blob.adopt(blob.ref).charge()) == (3, 0, 3)


def test_a_view_of_another_process_is_read_only() -> None:
    blob = Blob.of([b"abc"])
    seen = view(blob.ref)

    assert seen.readonly
    with pytest.raises(TypeError):
        seen[0] = 1
    assert bytes(seen) == b"abc"


def test_ones_own_view_can_be_written_and_changes_nothing_for_others() -> None:
    blob = Blob.of([b"abc"])
    mine = blob.view()
    mine[0] = ord("x")

    assert bytes(mine) == b"xbc"
    assert blob.read(0, 3) == b"abc"


def test_a_blob_that_nobody_holds_leaves_nothing_and_what_was_mapped_stays() -> None:
    blob = Blob(3, "test")
    blob.write(0, b"abc")
    seen = view(blob.ref)
    assert len(places()) == 1
    del blob
    gc.collect()

    assert places() == set()
    assert bytes(seen) == b"abc"


def test_an_adopted_blob_does_not_need_the_one_it_came_from() -> None:
    blob = Blob.of([b"abc"])
    adopted = Blob.adopt(blob.ref)
    del blob

    assert bytes(adopted.view()) == b"abc"


def test_a_place_where_another_blob_is_now_is_not_mistaken_for_it() -> None:
    blob = Blob.of([b"abc"])
    ref = Ref(blob.ref.path, blob.ref.inode + 1, 3)

    with pytest.raises(FileNotFoundError, match="not the buffer any more"):
        view(ref)


def test_a_place_where_nothing_is_any_more_is_an_error() -> None:
    blob = Blob.of([b"abc"])
    ref = blob.ref
    del blob

    with pytest.raises(FileNotFoundError):
        Blob.adopt(ref)


@pytest.mark.parametrize("parts", [[], [b""], [b"", b"a"], [b"a" * 64, b"b"], [b"a" * 65, b"", b"c" * 3]])
def test_parts_come_back_as_they_were(parts: list[bytes]) -> None:
    sizes = [len(part) for part in parts]
    whole = Blob.of(parts).view()

    assert [bytes(part) for part in parted(whole, sizes)] == parts
    assert all(start % ALIGNMENT == 0 for start in starts(sizes)[:-1])


def test_more_than_a_system_call_writes_is_written() -> None:
    blob = Blob(3 << 20)
    blob.write(1, memoryview(b"z" * ((3 << 20) - 1)))

    assert blob.read((3 << 20) - 1, 10) == b"z"
