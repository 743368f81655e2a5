"""Buffers in anonymous memory, and who finds them."""

import gc
import os
import re
import resource
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skyward.remote.blobs import ALIGNMENT, MISSING_BLOB, Blob, BlobError, address, parted, starts, view


def places() -> set[str]:
    """What the descriptors of this process lead to that is a blob."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found.add(os.readlink(fd))
        except FileNotFoundError:
            continue
    return {place for place in found if re.match(r"/memfd:skyward-[0-9a-f]{32} ", place)}


@contextmanager
def no_more_files() -> Iterator[None]:
    """Have this process open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_another_process_finds_a_blob_and_copies_nothing() -> None:
    blob = Blob(5, "test")
    blob.write(0, b"abc")
    blob.write(3, b"de")
    blob.seal()
    script = f"from skyward.remote.blobs import Ref, view; print(bytes(view({blob.ref!r})).decode())"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=150, env=environment)

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
    gc.collect()
    before = places()
    blob = Blob.of([b"abc"])
    seen = view(blob.ref)
    assert len(places() - before) == 1
    del blob

    assert places() == before
    assert bytes(seen) == b"abc"


def test_an_adopted_blob_does_not_need_the_one_it_came_from() -> None:
    blob = Blob.of([b"abc"])
    adopted = Blob.adopt(blob.ref)
    del blob

    assert bytes(adopted.view()) == b"abc"


def test_a_place_where_another_blob_is_now_is_not_mistaken_for_it() -> None:
    ref = Blob.of([b"abc"]).ref
    other = Blob.of([b"xyz"])
    assert other.ref.path == ref.path  # the number of a descriptor is used again

    for opened in (view, Blob.adopt):
        with pytest.raises(BlobError, match="another file is in its place"):
            opened(ref)
    assert bytes(view(other.ref)) == b"xyz"


def test_a_place_where_a_pipe_is_now_is_an_error_at_once() -> None:
    ref = Blob.of([b"abc"]).ref
    pipe = os.pipe()
    os.close(pipe[1])  # opening it would wait for somebody who writes
    assert ref.path.endswith(f"/{pipe[0]}")

    with pytest.raises(BlobError, match="another file"):
        view(ref)
    os.close(pipe[0])


def test_a_place_where_nothing_is_any_more_is_an_error() -> None:
    ref = Blob.of([b"abc"]).ref

    for gone in (ref, MISSING_BLOB):
        for opened in (view, Blob.adopt):
            with pytest.raises(BlobError, match="cannot be opened: No such file"):
                opened(gone)


def test_a_blob_that_is_not_complete_is_not_opened() -> None:
    blob = Blob(3)
    blob.write(0, b"ab")
    with pytest.raises(BlobError, match="not complete"):
        view(blob.ref)
    blob.write(2, b"c")
    blob.seal()
    assert bytes(view(blob.ref)) == b"abc"

    with pytest.raises(BlobError, match="not complete"):
        view(replace(blob.ref, size=4))


def test_nobody_changes_a_blob_that_is_complete() -> None:
    blob = Blob.of([b"abc"])

    with pytest.raises(PermissionError):
        blob.write(0, b"x")
    with pytest.raises(PermissionError):
        os.truncate(blob.ref.path, 1)
    assert bytes(view(blob.ref)) == b"abc"


def test_nobody_finds_a_blob_whose_file_is_being_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    blob, found, close = Blob.of([b"abc"]), list[Blob | None](), os.close
    ref = weakref.ref(blob)

    def closing(number: int) -> None:
        found.append(ref())
        close(number)

    monkeypatch.setattr(os, "close", closing)
    del blob

    assert found == [None]


def test_what_a_finalizer_of_the_users_still_does_with_a_blob_is_an_error_not_another_file() -> None:
    said: list[object] = []

    class Last:
        def __init__(self) -> None:
            self.me, self.blob = self, Blob.of([b"abc"])
            assert self.blob.equals(memoryview(b"abc"))

        def __del__(self) -> None:
            other = Blob.of([b"xyz"])  # has the same descriptor
            for use in (lambda: self.blob.read(0, 3), lambda: view(self.blob.ref)):
                try:
                    said.append(use())
                except OSError as error:
                    said.append(type(error))
            said.extend((self.blob.equals(memoryview(b"abc")), other.read(0, 3)))

    Last()
    gc.collect()

    assert said == [OSError, BlobError, False, b"xyz"]


def test_without_a_descriptor_a_blob_is_not_opened_and_that_is_said() -> None:
    blob = Blob.of([b"abc"])
    with no_more_files():
        with pytest.raises(BlobError, match=r"Too many open files.*ulimit -n"):
            view(blob.ref)
        with pytest.raises(OSError, match="Too many open files"):
            Blob(3)

    assert bytes(view(blob.ref)) == b"abc"


def test_without_address_space_a_blob_is_not_opened() -> None:
    script = """
import resource
from skyward.remote.blobs import Blob, BlobError, view
blob = Blob(1 << 30)
blob.seal()
resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
for use in (lambda: view(blob.ref), blob.view, lambda: blob.equals(memoryview(bytes(1 << 30)))):
    try:
        use()
    except (OSError, MemoryError) as error:
        print(type(error).__name__)
"""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=150, env=environment)

    assert said.split() == ["BlobError", "OSError", "MemoryError"]


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * 5000])
def test_a_blob_equals_what_has_the_same_bytes(content: bytes) -> None:
    blob = Blob.of([content])

    assert blob.equals(memoryview(content))
    assert blob.equals(memoryview(bytearray(content)))
    assert not blob.equals(memoryview(content + b"a"))
    for place in {0, len(content) // 2, len(content) - 1} if content else ():
        other = bytearray(content)
        other[place] ^= 1
        assert not blob.equals(memoryview(other))


def test_bytes_are_where_their_owner_says() -> None:
    array = np.arange(100)

    assert address(memoryview(array).cast("B")) == array.ctypes.data
    assert address(memoryview(array).cast("B")[8:].toreadonly()) == array.ctypes.data + 8


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
