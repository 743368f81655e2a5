"""What is written down before it is done."""

import asyncio
from pathlib import Path

import pytest

from skyward.providers.aws import journal
from skyward.providers.aws.journal import Journal


def test_a_line_is_there_for_this_user_alone(tmp_path: Path) -> None:
    written = Journal(tmp_path / "state" / "aws.jsonl")
    asyncio.run(written.note("run_instances", pool="p", region="r", nodes=["a", "b"]))

    (line,) = written.lines()
    assert (line["event"], line["pool"], line["nodes"]) == ("run_instances", "p", ["a", "b"])
    assert written.path.stat().st_mode & 0o777 == 0o600
    assert written.path.parent.stat().st_mode & 0o777 == 0o700


def test_what_was_begun_and_is_not_gone_is_unfinished(tmp_path: Path) -> None:
    written = Journal(tmp_path / "aws.jsonl")
    for event, pool in (("run_instances", "one"), ("run_instances", "two"), ("gone", "one")):
        asyncio.run(written.note(event, pool=pool, region="eu-central-1"))

    assert written.unfinished() == {"two": "eu-central-1"}


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    written = Journal(tmp_path / "aws.jsonl")
    asyncio.run(written.note("run_instances", pool="one", region="r"))
    with written.path.open("a") as file:
        file.write('{"event": "run_inst\n')
    asyncio.run(written.note("made", pool="one"))

    assert [line["event"] for line in written.lines()] == ["run_instances", "made"]


def test_a_journal_that_has_grown_is_begun_anew_and_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_SIZE", 100)
    written = Journal(tmp_path / "aws.jsonl")
    for number in range(3):
        asyncio.run(written.note("run_instances", pool=f"pool-{number}", region="eu-central-1"))

    assert written.path.stat().st_size < 200
    assert set(written.unfinished()) == {"pool-1", "pool-2"}


def test_nothing_is_written_at_first(tmp_path: Path) -> None:
    assert Journal(tmp_path / "aws.jsonl").unfinished() == {}
