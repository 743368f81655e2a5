"""Zip files that are the same whenever they are made."""

import io
import time
import zipfile

import pytest

from skyward.environment.archive import EPOCH, write_zip


def zipped(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    write_zip(file, iter(members))
    return file.getvalue()


def test_the_bytes_depend_on_the_content_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = zipped([("a/one.py", b"1"), ("two", b"22" * 1000)])
    monkeypatch.setattr(time, "time", lambda: 2e9)

    assert zipped([("a/one.py", b"1"), ("two", b"22" * 1000)]) == made
    assert zipped([("a/one.py", b"2"), ("two", b"22" * 1000)]) != made


def test_what_is_in_it_comes_out_in_order() -> None:
    with zipfile.ZipFile(io.BytesIO(zipped([("b", b"22" * 1000), ("a", b"")]))) as archive:
        assert [(each.filename, each.date_time, each.file_size) for each in archive.infolist()] == [
            ("b", EPOCH, 2000),
            ("a", EPOCH, 0),
        ]
        assert archive.read("b") == b"22" * 1000
        assert archive.getinfo("b").compress_size < 100
