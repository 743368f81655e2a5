"""Where records and the journal are."""

import asyncio
import pwd
from pathlib import Path

import pytest

from skyward.errors import InvalidArgument
from skyward.providers.aws import journal
from skyward.providers.aws.journal import Journal
from skyward.telemetry import event_log


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME")
    return tmp_path


@pytest.fixture
def xdg(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "xdg"))
    return home / "xdg"


def begin(path: Path, pool: str, region: str) -> None:
    asyncio.run(Journal(path).note("run_instances", pool=pool, region=region))


@pytest.mark.skipif("sys.platform != 'linux'")
def test_records_and_the_journal_are_in_one_folder(home: Path) -> None:
    state = home / ".local" / "state" / "skyward"

    assert (event_log.usual(), journal.usual().path) == (state / "runs", state / "aws.jsonl")


def test_both_follow_xdg_state_home(xdg: Path) -> None:
    assert (event_log.usual(), journal.usual().path) == (xdg / "skyward" / "runs", xdg / "skyward" / "aws.jsonl")


def test_a_pool_in_the_journal_of_before_is_found_until_it_is_gone(home: Path, xdg: Path) -> None:
    former = home / ".local" / "state" / "skyward" / "aws.jsonl"
    begin(former, "before", "eu-west-3")
    begin(xdg / "skyward" / "aws.jsonl", "now", "eu-central-1")
    assert journal.usual().unfinished() == {"before": "eu-west-3", "now": "eu-central-1"}

    written = former.read_bytes()
    asyncio.run(journal.usual().note("gone", pool="before"))
    assert journal.usual().unfinished() == {"now": "eu-central-1"}
    assert former.read_bytes() == written


def test_a_line_is_read_once_where_both_places_are_one(home: Path) -> None:
    asyncio.run(journal.usual().note("run_instances", pool="one", region="r"))

    assert [line["pool"] for line in journal.usual().lines()] == ["one"]


def test_without_a_home_the_state_is_where_xdg_has_it(xdg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)

    assert journal.usual().path == xdg / "skyward" / "aws.jsonl"
    assert journal.usual().unfinished() == {}


def test_without_a_home_and_xdg_both_say_what_to_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)

    for usual in (event_log.usual, journal.usual):
        with pytest.raises(InvalidArgument, match=r"no home folder .* set HOME or XDG_STATE_HOME"):
            usual()
