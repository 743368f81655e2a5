"""Lines that stay, as time goes by."""

import io
import threading

from skyward.events import RunEnded, RunStarted
from skyward.telemetry.event_log import now
from skyward.view.console import Plain
from skyward.view.plain_log import START_NOTICE_DELAY_S
from tests import kit


class Paper(io.StringIO):
    """Where lines stay."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def write(self, text: str, /) -> int:
        written = super().write(text)
        self.written.set()
        return written


def started(at: float) -> RunStarted:
    return RunStarted(at, "r", "local", 1, 1, 1, "process", "p.py", "1", "3.12")


def ticking() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "skyward-console"]


def test_a_start_that_takes_its_time_is_told_although_nothing_happens() -> None:
    paper = Paper()
    plain = Plain(paper, brief=True)
    plain.hear([started(now() - START_NOTICE_DELAY_S + 0.1)])
    assert paper.written.wait(kit.SOON)
    assert paper.getvalue().startswith("skyward: 0 of 1 node ready · local · 0:0")
    plain.hear([RunEnded(now(), "", (), {})])
    kit.until(lambda: not ticking())
    assert paper.getvalue().count("\n") == 1


def test_it_ends_when_nobody_can_read_it_any_more() -> None:
    paper = Paper()
    plain = Plain(paper, brief=True)
    paper.close()
    plain.hear([started(now() - START_NOTICE_DELAY_S + 0.1)])
    kit.until(lambda: not ticking())
