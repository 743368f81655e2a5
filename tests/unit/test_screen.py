"""Lines below the cursor of a real terminal, and what others write there."""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from skyward.view.screen import Screen
from skyward.view.sink import Sink
from skyward.view.status_text import StyledLine
from tests import kit
from tests.terminal import Terminal

WORK: StyledLine = (("work", "bold"), (" goes on", ""))


@pytest.fixture(autouse=True)
def coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal() as made:
        yield made


def work() -> list[StyledLine]:
    return [WORK]


def test_lines_stand_below_what_was_written_and_leave_nothing(terminal: Terminal) -> None:
    terminal.out.write("before, without an end")
    screen = Screen.of(terminal.out)
    screen.show(work)
    terminal.until(lambda seen: seen == ["before, without an end", "work goes on"])
    terminal.out.write(" and its end\nanother\n")
    terminal.until(lambda seen: seen == ["before, without an end and its end", "another", "", "work goes on"])
    screen.leave(work, "done")
    assert terminal.seen() == ["before, without an end and its end", "another", "done"]
    terminal.out.write("after\n")
    assert terminal.seen() == ["before, without an end and its end", "another", "done", "after"]
    assert "write" not in vars(terminal.out)


def test_many_prints_scroll_by_whole(terminal: Terminal) -> None:
    screen = Screen.of(terminal.out)
    screen.show(work)
    terminal.until(lambda seen: seen == ["", "work goes on"])
    for number in range(50):
        print("line", number, file=terminal.out)
        terminal.seen()
    screen.leave(work)
    assert terminal.seen() == [f"line {number}" for number in range(50)]


def test_threads_that_print_at_once_spoil_nothing(terminal: Terminal) -> None:
    screen = Screen.of(terminal.out)
    screen.show(work)

    def prints(name: str) -> None:
        for number in range(100):
            terminal.out.write(f"{name} {number}\n")

    threads = [threading.Thread(target=prints, args=(name,)) for name in "ab"]
    for each in threads:
        each.start()
    terminal.until(lambda seen: sum(line[:2] in ("a ", "b ") for line in seen) == 200)
    for each in threads:
        each.join(kit.SOON)
    screen.leave(work)
    assert sorted(terminal.seen()) == sorted(f"{name} {number}" for name in "ab" for number in range(100))


def test_it_stands_back_while_a_line_has_no_end(terminal: Terminal) -> None:
    screen = Screen.of(terminal.out)
    screen.show(work)
    terminal.until(lambda seen: seen == ["", "work goes on"])
    terminal.out.write("\r 10%|#   |")
    assert terminal.seen() == [" 10%|#   |"]
    terminal.out.write("\r 99%|### |")
    screen._draw()
    assert terminal.seen() == [" 99%|### |"]
    screen.leave(work, "done")
    assert terminal.seen() == ["done", " 99%|### |"]


def test_a_bar_that_wipes_itself_away_lets_it_come_back(terminal: Terminal) -> None:
    screen = Screen.of(terminal.out)
    screen.show(work)
    terminal.out.write("\r 10%")
    terminal.out.write("\r    ")
    terminal.out.write("\r")
    terminal.until(lambda seen: seen == ["", "work goes on"])
    screen.leave(work)


def test_a_handler_of_logging_that_holds_the_stream_is_heard(terminal: Terminal) -> None:
    handler = logging.StreamHandler(terminal.out)
    screen = Screen.of(terminal.out)
    screen.show(work)
    terminal.until(lambda seen: seen == ["", "work goes on"])
    handler.handle(logging.LogRecord("a", logging.INFO, "", 1, "it says", (), None))
    terminal.until(lambda seen: seen == ["it says", "", "work goes on"])
    screen.leave(work)


def test_another_stream_of_the_same_terminal_is_heard(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    with os.fdopen(os.dup(terminal.out.fileno()), "w", buffering=1) as other:
        monkeypatch.setattr(sys, "stderr", terminal.out)
        screen = Screen.of(terminal.out)
        sink = Sink.of(other)
        assert sink is Sink.of(terminal.out)
        screen.show(work)
        terminal.until(lambda seen: seen == ["", "work goes on"])
        print("from another stream", file=other)
        terminal.until(lambda seen: seen == ["from another stream", "", "work goes on"])
        screen.leave(work)
        assert "write" in vars(other)
        sink.release()
        sink.release()
        assert "write" not in vars(other)


def test_two_pools_share_a_screen(terminal: Terminal) -> None:
    def more() -> list[StyledLine]:
        return [(("other work", ""),)]

    screen = Screen.of(terminal.out)
    assert Screen.of(terminal.out) is screen
    screen.show(work)
    screen.show(more)
    terminal.until(lambda seen: seen == ["", "work goes on", "other work"])
    screen.leave(work, "done")
    terminal.until(lambda seen: seen == ["done", "", "other work"])
    screen.leave(more)
    assert terminal.seen() == ["done"]
    assert Screen.of(terminal.out) is not screen
    Screen.of(terminal.out).close()


def test_lines_are_cut_to_the_terminal(terminal: Terminal) -> None:
    def wide() -> list[StyledLine]:
        return [(("x" * 200, ""),)] * 20

    screen = Screen.of(terminal.out)
    screen.show(wide)
    seen = terminal.until(lambda seen: len(seen) == 9)
    assert seen == ["", *["x" * 58 + "…"] * 8]
    screen.leave(wide)


def test_a_terminal_without_our_characters_is_sent_others(terminal: Terminal) -> None:
    terminal.out.reconfigure(encoding="ascii")
    screen = Screen.of(terminal.out)
    screen.show(lambda: [(("██░░ · é", ""),)])
    terminal.until(lambda seen: seen == ["", "##.. - ?"])
    screen.close()


def test_lines_that_have_several_are_cut_to_the_terminal_and_scroll_nothing_away(terminal: Terminal) -> None:
    def high() -> list[StyledLine]:
        return [WORK, (("\n".join("abcdefghijklmnopqrst"), ""),), WORK]

    print("before", file=terminal.out)
    screen = Screen.of(terminal.out)
    screen.show(high)
    seen = terminal.until(lambda seen: len(seen) > 2)
    assert seen == ["before", "", "work goes on", *"abcdefg"]
    screen.leave(high, "done")
    assert terminal.seen() == ["before", "done"]
    assert not terminal.screen.history.top


def test_it_stands_back_while_somebody_edits_a_line(terminal: Terminal) -> None:
    looked = threading.Semaphore(0)

    def look() -> list[StyledLine]:
        looked.release()
        return [WORK]

    terminal.raw()
    screen = Screen.of(terminal.out)
    screen.show(look)
    for _ in range(3):
        assert looked.acquire(timeout=kit.SOON)
    assert terminal.seen() == []
    screen.leave(look)


def test_a_child_that_is_forked_writes_as_if_nothing_were_there(terminal: Terminal) -> None:
    screen = Screen.of(terminal.out)
    screen.show(work)
    terminal.until(lambda seen: seen == ["", "work goes on"])
    with screen._lock:  # as a thread may hold it, which the child does not have
        screen.erase()
        child = _fork(lambda: print("from a child", file=terminal.out))
    assert os.waitpid(child, 0)[1] == 0
    assert terminal.seen()[0] == "from a child"
    screen.leave(work)


def _fork(then: Callable[[], None]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads is what this is about
        child = os.fork()
    if not child:
        thread = threading.Thread(target=then, daemon=True)  # not the one that holds the lock
        thread.start()
        thread.join(kit.SOON)
        os._exit(thread.is_alive())
    return child


def test_a_terminal_that_is_gone_stops_nobody() -> None:
    with Terminal() as terminal:
        screen = Screen.of(terminal.out)
        screen.show(work)
        terminal.until(lambda seen: seen == ["", "work goes on"])
    screen.leave(work, "nobody sees it")


def test_return_that_somebody_presses_leaves_nothing_of_the_lines(terminal: Terminal) -> None:
    screen = Screen.of(terminal.out)
    screen.show(work)
    terminal.until(lambda seen: seen == ["", "work goes on"])
    os.write(terminal.out.fileno(), b"\r\n")  # as the terminal echoes it
    terminal.out.write("on\n")
    assert terminal.until(lambda seen: len(seen) == 4) == ["", "on", "", "work goes on"]
    screen.leave(work, "done")
    assert terminal.seen() == ["", "on", "done"]
