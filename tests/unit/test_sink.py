"""What is written to the standard streams is followed, and lines can be written that meet no other."""

import builtins
import io
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

import pytest
from rich.console import Console
from rich.file_proxy import FileProxy
from tqdm import tqdm

from skyward.view.sink import Sink, standard, whole_lines
from tests import kit
from tests.terminal import Terminal


@contextmanager
def followed() -> Iterator[tuple[Terminal, Sink]]:
    """A terminal that both standard streams write to. No fixture: pytest sets the streams once more before a test."""
    with pytest.MonkeyPatch.context() as patch, Terminal() as terminal:
        patch.setenv("TERM", "xterm-256color")
        for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
            patch.setattr(sys, name, terminal.out)
        sink = Sink.of(terminal.out)
        yield terminal, sink
        sink.release()


class Tee:
    """What somebody puts in the place of a stream."""

    def __init__(self, *streams: TextIO) -> None:
        self.streams, self.texts = streams, list[str]()

    def write(self, text: str) -> int:
        self.texts.append(text)
        for each in self.streams:
            each.write(text)
        return len(text)


def say(text: str) -> None:
    sys.stdout.write(text)


def tell(text: str, *, to: io.TextIOBase | None = None) -> None:
    with whole_lines():
        (to or sys.stdout).write(text)


def test_streams_are_followed_for_as_long_as_somebody_uses_them() -> None:
    with followed() as (terminal, sink):
        assert Sink.of(terminal.out) is sink
        asks = builtins.input
        sink.release()
        assert "write" in vars(terminal.out)
        sink.release()
        assert "write" not in vars(terminal.out)
        assert builtins.input is not asks
        assert Sink.of(terminal.out) is not sink


def test_whole_lines_stand_above_an_open_one() -> None:
    with followed() as (terminal, _):
        say("before\n")
        say("10%")
        tell("one\ntwo\n")
        tell("three\n")
        say(", 20%\n")
        tell("four\n")
        assert terminal.seen() == ["before", "one", "two", "three", "10%, 20%", "four"]


def test_a_line_that_comes_in_pieces_is_written_at_its_end() -> None:
    with followed() as (terminal, _):
        say("10%")
        with whole_lines():
            say("a")
            sys.stdout.flush()
            assert terminal.seen() == ["10%"]
            say("b\nc")
            assert terminal.seen() == ["ab", "10%"]
        sys.stdout.flush()
        assert terminal.seen() == ["ab", "10%c"]


def test_who_knows_how_to_write_above_bars_is_let() -> None:
    with followed() as (terminal, _):
        with tqdm(total=2, ncols=30, file=terminal.out, ascii=".#") as bar:
            with whole_lines():
                tqdm.write("by tqdm", file=terminal.out)
            tell("by us\n")
            assert [line[:7] for line in terminal.seen()] == ["by tqdm", "by us", "  0%|.."]
            bar.update(2)
        assert [line[:7] for line in terminal.seen()] == ["by tqdm", "by us", "100%|#|"]


def test_nobody_writes_while_tqdm_goes_to_another_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    class Lock(AbstractContextManager[None]):
        def __enter__(self) -> None:
            seen.append(terminal.seen())

        def __exit__(self, *error: object) -> None:
            seen.append(terminal.seen())

    with followed() as (terminal, _):
        bar = partial(tqdm, total=2, ncols=30, file=terminal.out)
        with bar(), bar():
            with monkeypatch.context() as patch:
                patch.setattr(tqdm, "_lock", Lock())
                tell("told\n")
            first, second = terminal.seen()[1:]
    assert seen == [[first, second], ["told", first, second]]


class Told(threading.Thread):
    """Is told a line, in a thread of its own, and says when that is done or waits for tqdm."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__(daemon=True)
        self.settled, self._lock = threading.Event(), threading.RLock()
        patch.setattr(tqdm, "_lock", self)

    def run(self) -> None:
        tell("told\n")
        self.settled.set()

    def acquire(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.settled.set()
            self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


def test_a_line_is_not_lost_while_the_last_bar_but_one_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    with followed() as (terminal, _):
        told = Told(monkeypatch)

        class Slow:
            """Writes to the terminal; while the inner bar is erased, which is below the outer one, a line is told."""

            closing = False

            def write(self, text: str) -> int:
                written = terminal.out.write(text)
                if self.closing and text.startswith("\r") and not text.strip():
                    told.start()
                    assert told.settled.wait(kit.SOON)
                return written

            def flush(self) -> None:
                terminal.out.flush()

        file = Slow()
        with tqdm(total=2, ncols=30, file=file, mininterval=0) as outer:
            inner = tqdm(total=2, ncols=30, file=file, leave=False)
            file.closing = True
            inner.close()
            file.closing = False
            told.join(kit.SOON)
            outer.update()
            assert [line[:4] for line in terminal.seen()] == ["told", " 50%"]


def test_only_the_thread_that_asked_for_it_writes_whole_lines() -> None:
    with followed() as (terminal, _):
        say("10%")
        with whole_lines():
            thread = threading.Thread(target=lambda: say(" of another thread"))
            thread.start()
            thread.join(kit.SOON)
            sys.stdout.write("told\n")
        assert terminal.seen() == ["told", "10% of another thread"]


def test_a_line_that_somebody_types_stays_whole() -> None:
    with followed() as (terminal, _):
        say("before\n")
        terminal.raw()
        terminal.type("some command")
        tell("told\n")
        assert terminal.seen() == ["before", "told", "some command"]


def test_a_question_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with followed() as (terminal, sink):

        def asks(prompt: object = "", /) -> str:
            terminal.type(str(prompt))  # as C does, which is not heard
            tell("told\n")
            assert terminal.seen() == ["told", "well?"]
            return "yes"

        monkeypatch.setattr(sink, "_asks", asks)
        assert input("well? ") == "yes"


def test_what_is_put_around_a_stream_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with followed() as (terminal, _):
        monkeypatch.setattr(sys, "stdout", FileProxy(Console(file=terminal.out), terminal.out))
        assert standard() == [terminal.out]
        monkeypatch.setattr(sys, "stdout", kept := Tee())
        monkeypatch.setattr(sys, "stderr", None)
        assert standard() == []
        tell("told\n")
        assert kept.texts == ["told\n"]


def test_what_stands_in_the_place_of_a_stream_may_lead_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with followed() as (terminal, sink):
        monkeypatch.setattr(sys, "stdout", Tee(terminal.out))
        monkeypatch.setattr(sys, "stderr", None)
        say("10%")
        with whole_lines(sink):
            say("one\n")
        monkeypatch.setattr(sys, "__stdout__", terminal.out)
        tell("two\n")
        assert terminal.seen() == ["one", "two", "10%"]


@pytest.mark.parametrize(("before", "after"), [("open", "open\n"), ("ended\n", "ended\n"), ("", "")])
def test_a_line_that_was_open_before_is_ended_in_a_text_and_in_a_file(
    before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "out").open("w") as file:
        for stream in (file, io.StringIO()):
            stream.write(before)
            monkeypatch.setattr(sys, "stdout", stream)
            sink = Sink.of(stream)
            tell("told\n")
            say("10%")
            tell("told\n")
            sink.release()
            stream.flush()
            text = stream.getvalue() if isinstance(stream, io.StringIO) else (tmp_path / "out").read_text()
            assert text == f"{after}told\n10%\ntold\n"


def test_in_a_file_an_open_line_is_ended_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out"
    with path.open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        sink = Sink.of(file)
        say("before\n")
        tell("one\n")
        say("\r 10%")
        tell("two\n")
        tell("three\n")
        say("\r 20%\n")
        sink.release()
    assert path.read_text() == "before\none\n\n 10%\ntwo\nthree\n\n 20%\n"  # a lone \r reads as a newline


def test_no_long_text_is_kept(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        sink = Sink.of(file)
        text = "x" * 100_000
        before = sys.getrefcount(text)
        file.write(text)
        assert sys.getrefcount(text) == before
        assert sink.rows.open
        sink.release()


def test_streams_that_write_to_one_file_share_an_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        (tmp_path / "out").open("w") as file,
        (tmp_path / "out").open("a") as same,
        (tmp_path / "b").open("w") as other,
    ):
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setattr(sys, "stderr", same)
        sinks = [Sink.of(each) for each in (file, same, other)]
        assert sinks[0] is sinks[1] is not sinks[2]
        for each in sinks:
            each.release()
        assert not any("write" in vars(each) for each in (file, same, other))
