import os
import pwd
import resource
import signal
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from skyward.config.spec import Options
from skyward.errors import InvalidArgument
from skyward.events import Event, Logged, NodeHeard, Printed
from skyward.telemetry import event_log
from skyward.telemetry.event_log import EventLog
from tests import kit

NAME = "07311200-1234567"
"""The beginning of the name of a run; one more digit makes it whole."""


def test_what_was_put_is_read_again_by_another_program(tmp_path: Path) -> None:
    made = EventLog("run", tmp_path / "runs")
    heard = [NodeHeard(float(number), number) for number in range(3)]
    for each in heard:
        made.put(each)
    assert list(made.events()) == heard
    made.close()
    assert made.path is not None
    assert list(event_log.read(made.path)) == list(made.events()) == heard


def test_a_record_is_for_its_user_alone(tmp_path: Path) -> None:
    made = EventLog("run", tmp_path / "runs")
    made.close()
    assert made.path is not None
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.path.parent.stat().st_mode) == 0o700


def test_a_record_that_is_not_kept_lasts_as_long_as_it_is_held() -> None:
    made = EventLog("run", None)
    made.put(NodeHeard(1.0, 1))
    made.close()
    assert made.path is None
    assert list(made.events()) == [NodeHeard(1.0, 1)]


def test_who_follows_hears_of_all_until_the_end(tmp_path: Path) -> None:
    made = EventLog("run", tmp_path)
    made.put(NodeHeard(1.0, 1))
    found: list[Event] = []
    begun = threading.Event()

    def follow() -> None:
        for event in made.events(follow=True):
            found.append(event)
            begun.set()

    follower = threading.Thread(target=follow)
    follower.start()
    assert begun.wait(kit.SOON)
    made.put(NodeHeard(2.0, 2))
    made.close()
    follower.join(kit.SOON)
    assert found == [NodeHeard(1.0, 1), NodeHeard(2.0, 2)]


def test_who_listens_hears_what_happens_from_then_on(tmp_path: Path) -> None:
    made = EventLog("run", tmp_path)
    found: list[Event] = []
    made.put(NodeHeard(1.0, 1))
    made.listen(found.extend)
    made.put(NodeHeard(2.0, 2))
    made.close()
    assert found == [NodeHeard(2.0, 2)]


def test_a_listener_that_fails_does_not_hurt_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = EventLog("run", tmp_path)
    found: list[Event] = []

    def fail(_: Sequence[Event]) -> None:
        raise ValueError("no")

    made.listen(fail)
    made.listen(found.extend)
    made.put(NodeHeard(1.0, 1))
    list(made.events())
    made.put(NodeHeard(2.0, 2))
    made.close()
    assert found == [NodeHeard(1.0, 1), NodeHeard(2.0, 2)]
    assert caplog.text.count("a listener of this run failed") == 1


def test_the_oldest_records_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "MAX_LOGS", 3)
    for number in range(5):
        path = tmp_path / f"{NAME}{number}.jsonl"
        path.touch()
        os.utime(path, (number, number))
    EventLog("new", tmp_path).close()
    assert sorted(path.stem for path in tmp_path.iterdir()) == [f"{NAME}3", f"{NAME}4", "new"]


def test_what_else_is_in_a_folder_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "MAX_LOGS", 1)
    others = ["data.jsonl", f"{NAME}.jsonl", f"{NAME}12.jsonl", f"{NAME}x.jsonl", f"my-{NAME}1.jsonl", f"{NAME}1.csv"]
    for name in (*others, f"{NAME}1.jsonl"):
        (tmp_path / name).touch()
    EventLog("new", tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} == {*others, "new.jsonl"}
    assert event_log.records(tmp_path) == []
    with pytest.raises(InvalidArgument, match="there are no records"):
        event_log.find_record("data", tmp_path)


def test_a_record_that_vanishes_or_cannot_be_removed_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "MAX_LOGS", 1)
    (tmp_path / f"{NAME}1.jsonl").symlink_to(tmp_path / "nowhere")  # as one that another program has just removed
    (tmp_path / f"{NAME}2.jsonl").mkdir()
    (tmp_path / f"{NAME}3.jsonl").touch()
    assert {path.stem for path in event_log.records(tmp_path)} == {f"{NAME}{number}" for number in (1, 2, 3)}
    made = EventLog("new", tmp_path)
    made.close()
    assert made.path is not None
    assert {path.stem for path in tmp_path.iterdir()} == {f"{NAME}2", "new"}


def test_a_run_goes_on_where_no_record_can_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    made = EventLog("run", blocked)
    made.put(NodeHeard(1.0, 1))
    made.close()
    assert list(made.events()) == [NodeHeard(1.0, 1)]
    assert "this run's record is kept in memory only" in caplog.text


def test_what_comes_after_a_line_that_was_torn_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = EventLog("run", tmp_path)
    assert made.path is not None
    long = Printed(1.0, 0, 0, "stdout", "x" * 5000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        made.put(NodeHeard(0.0, 0))
        assert list(made.events()) == [NodeHeard(0.0, 0)]
        resource.setrlimit(resource.RLIMIT_FSIZE, (made.path.stat().st_size + 1000, before[1]))  # as on a full disk
        made.put(long)
        assert list(made.events()) == [NodeHeard(0.0, 0)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    made.put(NodeHeard(2.0, 2))
    made.put(NodeHeard(3.0, 3))
    made.close()
    assert list(event_log.read(made.path)) == list(made.events()) == [NodeHeard(float(n), n) for n in (0, 2, 3)]
    assert b'xx\n{"event": "NodeHeard"' in made.path.read_bytes()
    assert caplog.text.count("is incomplete") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_run_goes_on_when_its_disk_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run.jsonl").symlink_to("/dev/full")
    made = EventLog("run", tmp_path)
    found: list[Event] = []
    heard = threading.Event()

    def listen(news: Sequence[Event]) -> None:
        found.extend(news)
        heard.set()

    made.listen(listen)
    for number in range(2):
        heard.clear()
        made.put(NodeHeard(float(number), number))
        assert heard.wait(kit.SOON)
    made.close()
    assert found == [NodeHeard(0.0, 0), NodeHeard(1.0, 1)]
    assert caplog.text.count("is incomplete") == 1


def test_what_tasks_print_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_log, "MAX_OUTPUT_BYTES", 1000)
    made = EventLog("run", tmp_path)
    found: list[Event] = []
    made.listen(found.extend)
    said: list[Event] = [
        Printed(1.0, 0, 0, "stdout", "x" * 500),
        Logged(2.0, 0, 0, "lib", 20, "y" * 500),
        NodeHeard(3.0, 1),
    ]
    for each in said * 2:
        made.put(each)
    made.close()
    assert found == said * 2
    assert list(made.events()) == [*said, said[-1]]
    assert caplog.text.count("further output is not recorded") == 1


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for number, name in enumerate(("11240000-aaaa1111", "11250000-aaaa2222", "11250000-bbbb3333")):
        (tmp_path / f"{name}.jsonl").touch()
        os.utime(tmp_path / f"{name}.jsonl", (number, number))
    return tmp_path


@pytest.mark.parametrize("name", ["11250000-bbbb3333", "11250000-bbbb3333.jsonl", "11250000-b"])
def test_a_record_is_found_by_a_beginning_of_its_name(runs: Path, name: str) -> None:
    assert event_log.find_record(name, runs) == runs / "11250000-bbbb3333.jsonl"


def test_a_record_is_found_by_its_path(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        event_log.find_record(str(runs / "11240000-aaaa1111.jsonl"), runs / "elsewhere")
        == runs / "11240000-aaaa1111.jsonl"
    )
    monkeypatch.chdir(runs)
    assert event_log.find_record("11240000-aaaa1111.jsonl") == Path("11240000-aaaa1111.jsonl")


def test_a_beginning_of_several_names_is_refused_with_them(runs: Path) -> None:
    with pytest.raises(
        InvalidArgument, match="2 runs begin with this: 11250000-aaaa2222, 11250000-bbbb3333; give more of the name"
    ):
        event_log.find_record("1125", runs)
    (runs / "11250000-cccc4444.jsonl").touch()
    (runs / "11250000-dddd5555.jsonl").touch()
    with pytest.raises(
        InvalidArgument,
        match=r"4 runs begin with this: 11250000-aaaa2222, 11250000-bbbb3333, 11250000-cccc4444, \.\.\.",
    ):
        event_log.find_record("1125", runs)


def test_a_name_that_no_run_has_is_refused_with_the_last_one(runs: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"no record in .* begins with this; the latest is 11250000-bbbb3333"):
        event_log.find_record("1126", runs)
    with pytest.raises(InvalidArgument, match="there are no records"):
        event_log.find_record("1126", runs / "elsewhere")


def test_records_are_where_they_usually_are() -> None:
    made = EventLog(f"{NAME}8", event_log.usual())
    made.close()
    assert event_log.find_record(NAME) == made.path


def test_a_run_is_recorded_in_the_folder_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert Options(record="runs").records() == Options(record=Path("runs")).records() == Path("runs")
    assert Options(record="~/runs").records() == Path("/home/me/runs")
    assert (Options(record=True).records(), Options(record=False).records()) == (event_log.usual(), None)
    given: Any = None
    with pytest.raises(InvalidArgument, match="must be True, False or a folder; choose whether"):
        Options(record=given)
    with pytest.raises(InvalidArgument, match="record='': is empty; choose whether"):
        Options(record="")
    with pytest.raises(InvalidArgument, match=r"record='~nobody-at-all/runs': .*names no folder"):
        Options(record="~nobody-at-all/runs")


def test_a_home_that_nobody_has_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="run='~nobody-at-all/x'"):
        event_log.find_record("~nobody-at-all/x", tmp_path)


def test_a_user_without_a_home_is_told_how_to_have_records(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(InvalidArgument, match="there is no home folder for the records of runs: set HOME"):
        event_log.usual()


def test_a_record_is_read_by_the_name_in_the_documentation() -> None:
    from skyward import record

    assert record.read is event_log.read
