"""Prints come home: whole, in order, and with the slot they are from, on real nodes."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import skyward as sky
from skyward.events import Logged, Printed
from tests import printing
from tests.kit import Bell, until


@pytest.fixture(scope="module", params=["process", "thread"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def compute(kind: str) -> Iterator[sky.Compute]:
    worker = sky.Worker(concurrency=2, executor=kind)  # type: ignore[arg-type]
    with sky.Compute(nodes=2, worker=worker, options=sky.Options(retries=0)) as compute:
        yield compute


def said(compute: sky.Compute, mark: str, end: str) -> list[Printed | Logged]:
    """What tasks have said from the line `mark` on to the text `end`, which is waited for."""
    found: list[Printed | Logged] = []

    def is_there() -> bool:
        found[:] = [event for event in compute.events() if isinstance(event, Printed | Logged)]
        return any(end in event.text for event in found)

    until(is_there)
    first = next(number for number, event in enumerate(found) if mark in event.text)
    return found[first:]


def test_what_a_task_says_is_in_order_with_its_place(compute: sky.Compute) -> None:
    node, slot = compute.submit(printing.speak, "order").result(60)
    events = said(compute, "order begins", "order ends")
    assert {(event.node, event.slot) for event in events} == {(node, slot)}
    told = [(line, "log" if isinstance(event, Logged) else event.stream) for event in events for line in _lines(event)]
    assert told == [
        ("order begins", "stdout"),
        ("order err", "stderr"),
        ("order logged", "log"),
        ("order ends", "stdout"),
    ]


def _lines(event: Printed | Logged) -> list[str]:
    return event.text.splitlines()


def test_every_line_of_every_slot_comes_in_its_order(compute: sky.Compute) -> None:
    places = list(compute.map(printing.count, range(8), [300] * 8))
    for task, place in enumerate(places):
        events = said(compute, f"task {task} ", f"task {task} line 299\n")
        lines = [
            line
            for event in events
            if (event.node, event.slot) == place
            for line in event.text.splitlines()
            if line.startswith(f"task {task} ")
        ]
        assert lines == [f"task {task} line {number}" for number in range(300)]


def test_a_record_has_its_logger_its_level_and_its_traceback(compute: sky.Compute) -> None:
    compute.submit(printing.stumble, "stumbled").result(60)
    (record,) = [event for event in said(compute, "stumbled", "stumbled") if isinstance(event, Logged)]
    assert (record.logger, record.level, record.text) == ("tests.printing", logging.ERROR, "stumbled 1")
    assert record.trace.splitlines()[-1] == "ZeroDivisionError: integer division or modulo by zero"
    assert (Path(record.path).name, record.function) == ("printing.py", "stumble")


def test_a_warning_is_printed(compute: sky.Compute) -> None:
    compute.submit(printing.warn, "mind the gap").result(60)
    (event, *_) = said(compute, "mind the gap", "mind the gap")
    assert isinstance(event, Printed)
    assert event.stream == "stderr"
    assert "UserWarning: mind the gap" in event.text


def test_other_programs_and_c_libraries_are_heard(compute: sky.Compute, kind: str) -> None:
    _, slot = compute.submit(printing.beside, "beside").result(60)
    events = said(compute, "beside program", "beside libc")
    assert [text for event in events for text in event.text.splitlines()] == ["beside program", "beside libc"]
    assert {event.slot for event in events} == {slot if kind == "process" else -1}


def test_a_part_of_a_line_is_there_while_its_task_runs(compute: sky.Compute) -> None:
    with Bell() as bell:
        running = compute.submit(printing.ask, "continue? ", bell.port)
        line = bell.answer()
        said(compute, "continue? ", "continue? ")
        line.release()
        running.result(60)
    (first, second, *_) = said(compute, "continue? ", "yes")
    assert (first.text, second.text) == ("continue? ", "yes\n")


@pytest.mark.parametrize("how", ["exit", "kill", "abort"])
def test_nothing_is_lost_when_a_task_dies_right_after_printing(compute: sky.Compute, how: str) -> None:
    with pytest.raises(sky.BatchLost):
        compute.submit(printing.say_and_die, f"dying by {how}", how).result(60)
    events = said(compute, f"dying by {how}", f"{how} without an end")
    text = "".join(event.text for event in events if isinstance(event, Printed) and event.stream == "stdout")
    assert text.startswith("".join(f"dying by {how} {number}\n" for number in range(1000)) + f"{how} without an end")


def test_what_a_task_leaves_running_is_heard(compute: sky.Compute, kind: str) -> None:
    if kind == "thread":
        pytest.skip("a thread that prints is the same process")
    with Bell() as bell:
        compute.submit(printing.leave_running, "from behind", bell.port).result(60)
        bell.answer().release()
        said(compute, "from behind", "from behind")


# ---------------------------------------------------------------- as it is shown


def shown(capfd: pytest.CaptureFixture[str], compute: sky.Compute, *call: object) -> tuple[str, str]:
    """What is shown of one call, all of it, when the block is left."""
    capfd.readouterr()
    with compute:
        compute.submit(*call).result(60)  # type: ignore[arg-type]
    return capfd.readouterr()


def own(err: str) -> list[str]:
    """The lines, but for those on what the pool of the tests before has printed."""
    return [line for line in err.splitlines() if "not shown" not in line]


def one_slot(kind: str, **options: object) -> sky.Compute:
    worker = sky.Worker(concurrency=1, executor=kind)  # type: ignore[arg-type]
    return sky.Compute(worker=worker, options=sky.Options(**options))  # type: ignore[arg-type]


def test_long_records_in_a_burst_come_as_records(kind: str) -> None:
    sizes = [10, 40_000, 65_500, 200_000] * 5
    with one_slot(kind) as compute:
        compute.submit(printing.log_at_length, sizes).result(60)
    events = [event for event in compute.events() if isinstance(event, Printed | Logged)]
    assert [type(event) for event in events] == [Logged] * 20
    assert [event.text.startswith("begins") and event.text.endswith("ends") for event in events] == [True] * 20
    assert ["characters are left out" in event.text for event in events] == [size > 30_000 for size in sizes]


def test_each_line_is_shown_on_its_stream_with_its_place(
    kind: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tests.printing"):
        out, err = shown(capfd, one_slot(kind), printing.speak, "shown")
    assert out == "[node 0 slot 0] shown begins\n[node 0 slot 0] shown ends\n"
    assert own(err) == ["[node 0 slot 0] shown err"]
    assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
        ("tests.printing", "WARNING", "[node 0 slot 0] shown logged"),
        ("tests.printing", "INFO", "[node 0 slot 0] shown in detail"),
    ]


def test_a_progress_bar_is_readable(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    _, err = shown(capfd, one_slot(kind), printing.progress, 400)
    lines = own(err)
    assert lines[-1].startswith("[node 0 slot 0] 100%|")
    assert len(lines) <= 3
    assert "\r" not in err


def test_a_flood_is_shown_in_part_and_kept_whole(kind: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    compute = one_slot(kind, record=tmp_path)
    out, err = shown(capfd, compute, printing.count, 0, 20_000)
    assert 1000 <= len(out.splitlines()) < 10_000
    (file,) = tmp_path.iterdir()
    (note,) = [line for line in err.splitlines() if "are not shown" in line]
    assert note.startswith("[node 0] ")
    assert note.endswith(f" lines are not shown, as there were too many; all are in {file}")
    kept = "".join(event.text for event in compute.events() if isinstance(event, Printed) and event.stream == "stdout")
    assert kept == "".join(f"task 0 line {number}\n" for number in range(20_000))


def test_the_last_words_of_a_pool_are_shown(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    out, _ = shown(capfd, one_slot(kind), print, "no end", "")
    assert out == "[node 0 slot 0] no end \n"
