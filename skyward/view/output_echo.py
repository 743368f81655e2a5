"""Shows what tasks print and log, filtered by `output_filter`, on this program's streams and through its loggers."""

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TextIO

from skyward.events import Event, Logged, RunEnded
from skyward.view.escape import escape
from skyward.view.output_filter import Echo, OutputFilter, Show, Stream, prefix
from skyward.view.sink import Sink, standard, whole_lines


class OutputEcho:
    """A listener of an event log; `where` says where the complete output is, `raw` whether nothing is escaped."""

    def __init__(self, where: str, *, raw: bool = False) -> None:
        self._prints = OutputFilter(where, raw=raw)
        self._first = [Sink.of(stream) for stream in standard()]
        self._current: list[tuple[TextIO, Sink]] = []

    def __call__(self, events: Sequence[Event]) -> None:
        """Show the output in these events."""
        self._follow()
        for stream, effects in groupby(self._prints.heard(events), _stream):
            with whole_lines(*self._first):
                if stream is None:
                    for record in effects:
                        assert isinstance(record, Logged)
                        _log(record)
                else:
                    _write(stream, "".join(_texts(effects)))
        if any(isinstance(event, RunEnded) for event in events):
            self.close()

    def close(self) -> None:
        """Stop following the streams."""
        for sink in (*self._first, *(sink for _, sink in self._current)):
            sink.release()
        self._first, self._current = [], []

    def _follow(self) -> None:
        """Follow the current standard streams, which `contextlib.redirect_stdout` may have replaced."""
        streams = standard()
        if streams != [stream for stream, _ in self._current]:
            before, self._current = self._current, [(stream, Sink.of(stream)) for stream in streams]
            for _, sink in before:
                sink.release()


def harmless(record: logging.LogRecord) -> bool:
    """Escape text of others in our own log, such as a machine's error: a filter that lets everything through."""
    text = record.getMessage()
    if (shown := escape(text)) != text:
        record.msg, record.args = shown, ()
    if record.exc_info and not record.exc_text:
        record.exc_text = escape(logging.Formatter().formatException(record.exc_info))
    return True


def tame(logger: logging.Logger) -> None:
    """Make our own logger write whole lines, and escape text of others."""
    logger.addFilter(harmless)
    if "callHandlers" not in vars(logger):
        hand_on = logger.callHandlers

        def in_whole_lines(record: logging.LogRecord) -> None:
            with whole_lines():
                hand_on(record)

        logger.callHandlers = in_whole_lines  # type: ignore[method-assign]


def _stream(effect: Echo) -> Stream | None:
    return effect.stream if isinstance(effect, Show) else None


def _texts(effects: Iterator[Echo]) -> Iterator[str]:
    for effect in effects:
        assert isinstance(effect, Show)
        yield f"{effect.text}\n"


def _write(name: Stream, text: str) -> None:
    """Write in one piece to the current stream, which may be closed, or a pipe to `head`.

    The proxy of a live display of rich is bypassed: it would redraw the display, even one that has ended meanwhile.
    """
    stream = sys.stdout if name == "stdout" else sys.stderr
    stream = getattr(stream, "rich_proxied_file", stream)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        try:
            stream.write(text)
        except UnicodeEncodeError:
            stream.write(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding))
        stream.flush()


def _log(event: Logged) -> None:
    """Pass a record to the logger of its name, if enabled, with node and slot as a prefix."""
    logger = logging.getLogger(event.logger)
    if not logger.isEnabledFor(event.level):
        return
    text = prefix(event.node, event.slot) + event.text
    record = logger.makeRecord(
        event.logger,
        event.level,
        event.path,
        event.line,
        text,
        (),
        None,
        event.function,
        {"skyward_node": event.node, "skyward_slot": event.slot},
    )
    record.exc_text = event.trace or None
    logger.handle(record)
