"""What tasks print and log is shown on this program's streams and by its loggers."""

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from skyward.actors.node_starter import levels
from skyward.events import Logged, Printed
from skyward.view.output_echo import OutputEcho, tame


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("test-speaker")
    yield logger
    logger.setLevel(logging.NOTSET)
    logger.handlers.clear()


def test_lines_go_to_the_stream_they_were_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    OutputEcho("there")([Printed(0.0, 3, 7, "stdout", "a\nb\n"), Printed(0.0, 3, 7, "stderr", "c\n")])
    assert capsys.readouterr() == ("[node 3 slot 7] a\n[node 3 slot 7] b\n", "[node 3 slot 7] c\n")


def test_what_the_terminal_cannot_show_is_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    OutputEcho("there")([Printed(0.0, 0, 0, "stdout", "grün\n")])
    assert raw.getvalue() == b"[node 0 slot 0] gr\\xfcn\n"


@pytest.mark.parametrize("closed", [True, False])
def test_it_does_not_matter_when_nobody_listens(closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream if closed else None)
    OutputEcho("there")([Printed(0.0, 0, 0, "stdout", "text\n")])


def test_what_stands_in_the_place_of_a_stream_is_followed_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    speaker, texts = OutputEcho("there"), [io.StringIO(), io.StringIO()]
    for number, text in enumerate(texts):
        monkeypatch.setattr(sys, "stdout", text)
        for _ in range(2):
            text.write("mine ")
            speaker([Printed(0.0, 0, number, "stdout", "a\n")])
    assert ["write" in vars(text) for text in texts] == [False, True]
    speaker.close()
    assert ["write" in vars(text) for text in texts] == [False, False]
    assert [text.getvalue() for text in texts] == [f"mine \n[node 0 slot {slot}] a\n" * 2 for slot in range(2)]


def test_a_record_is_handled_by_its_own_logger(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger.name):
        OutputEcho("there")([Logged(0.0, 3, 7, logger.name, 20, "50 %s", "Trace\nback", "/src/lib.py", 12, "fit")])
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (logger.name, 20, "[node 3 slot 7] 50 %s")
    assert (record.pathname, record.lineno, record.funcName) == ("/src/lib.py", 12, "fit")
    assert vars(record)["skyward_node"] == 3
    assert vars(record)["skyward_slot"] == 7
    assert logging.Formatter().format(record) == "[node 3 slot 7] 50 %s\nTrace\nback"


def test_a_record_that_its_logger_does_not_want_is_not_shown(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    logger.setLevel(logging.ERROR)
    OutputEcho("there")([Logged(0.0, 3, 7, logger.name, 20, "text")])
    assert not caplog.records


def test_prints_and_records_keep_their_order(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.setLevel(logging.INFO)
    first, second = (Printed(0.0, 0, 0, "stdout", text) for text in ("a\n", "c\n"))
    OutputEcho("there")([first, Logged(0.0, 0, 0, logger.name, 20, "b"), second])
    assert [line[-1] for line in capsys.readouterr().out.splitlines()] == ["a", "b", "c"]


def test_loggers_that_have_a_level_are_known(logger: logging.Logger) -> None:
    logging.getLogger("test-speaker.below")
    logger.setLevel(logging.DEBUG)
    assert levels()[""] == logging.getLogger().level
    assert levels()["test-speaker"] == logging.DEBUG
    assert "test-speaker.below" not in levels()


def test_what_our_own_log_says_of_others_is_harmless(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("skyward")
    tame(logger)
    tame(logger)
    try:
        with caplog.at_level(logging.INFO, "skyward"):
            logger.info("%s: %d%%", "host\x1b[2J", 7)
            logger.info("plain %s", "text")
            try:
                raise ValueError("bad\x07")
            except ValueError:
                logger.exception("it failed")
    finally:
        logger.filters.clear()
        del vars(logger)["callHandlers"]
    assert len(caplog.records) == 3
    assert [record.getMessage() for record in caplog.records] == [r"host\x1b[2J: 7%", "plain text", "it failed"]
    assert caplog.records[1].args == ("text",)
    assert r"ValueError: bad\x07" in caplog.text
    assert "\x07" not in caplog.text
