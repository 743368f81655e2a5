import os

import pytest

from skyward.remote import failure_line
from skyward.remote.node_messages import NodeFailed, NodeMessage, decode


def reported(capfd: pytest.CaptureFixture[str]) -> tuple[str, NodeMessage | None]:
    """What was printed, and the message that ended it."""
    return decode(capfd.readouterr().err.removesuffix("\n"))


def test_a_failure_is_one_line_with_its_reason(capfd: pytest.CaptureFixture[str]) -> None:
    failure_line.report("two\nlines", final=True)

    assert reported(capfd) == ("", NodeFailed("two\nlines", final=True))


def test_a_long_reason_is_cut_so_that_a_pipe_takes_it_in_one_piece(capfd: pytest.CaptureFixture[str]) -> None:
    failure_line.report("x" + "é" * 5000 + "\udcff")

    assert reported(capfd) == ("", NodeFailed("x" + "é" * 1499, final=False))


def test_an_exception_is_reported_after_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    failure_line.report_exception("cannot start", OSError(28, "No space left on device"))

    traceback, message = reported(capfd)
    assert traceback == "OSError: [Errno 28] No space left on device\n"
    assert isinstance(message, NodeFailed)
    assert message.reason.startswith("cannot start: OSError: [Errno 28] No space left on device (")


def test_a_failure_that_nobody_reads_is_no_failure_of_its_own() -> None:
    read, write = os.pipe()
    kept = os.dup(2)
    os.close(read)
    os.dup2(write, 2)
    try:
        failure_line.report("nobody reads this")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(write)


class ProcessEnded(BaseException):
    """Stands for the end of this process."""


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes with which this process would have ended."""
    found: list[int] = []

    def end(code: int) -> None:
        found.append(code)
        raise ProcessEnded

    monkeypatch.setattr(os, "_exit", end)
    return found


def test_a_node_that_is_ended_says_why(capfd: pytest.CaptureFixture[str], codes: list[int]) -> None:
    with pytest.raises(ProcessEnded):
        failure_line.end_node("no worker")

    assert codes == [failure_line.SAID]
    assert reported(capfd) == ("", NodeFailed("no worker", final=False))


def test_an_error_where_none_may_happen_ends_the_node(capfd: pytest.CaptureFixture[str], codes: list[int]) -> None:
    with pytest.raises(ProcessEnded), failure_line.end_node_on_error("an actor failed"):
        raise KeyError(7)
    with failure_line.end_node_on_error("an actor failed"):
        pass

    assert codes == [failure_line.SAID]
    traceback, message = reported(capfd)
    assert traceback.startswith("Traceback")
    assert message == NodeFailed("an actor failed: KeyError: 7", final=False)
