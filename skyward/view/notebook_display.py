"""A few lines in the output of a notebook cell that are redrawn. It needs no widgets."""

import html
import threading
import uuid
from importlib import import_module
from typing import Any

from skyward.view.status_text import Painter, plain

NOTEBOOK_REFRESH_INTERVAL_S = 0.5
"""Seconds between two updates."""

STYLE = "margin:0;line-height:1.3;white-space:pre;overflow-x:auto;font-size:90%"


class NotebookDisplay:
    """A place in the output of the running cell."""

    def __init__(self) -> None:
        self._id = uuid.uuid4().hex
        self._ending = threading.Event()
        self._shown = ""
        self._thread: threading.Thread | None = None
        self._notebook: Any = import_module("IPython.display")
        self._notebook.display(_bundle(""), raw=True, display_id=self._id)

    def show(self, painter: Painter) -> None:
        """Show what `painter` returns, again and again."""
        self._thread = threading.Thread(target=self._run, args=(painter,), name="skyward-cell", daemon=True)
        self._thread.start()

    def leave(self, painter: Painter, last: str = "") -> None:
        """Stop showing it, and leave a last line."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
        self._put(last)

    def _run(self, painter: Painter) -> None:
        while not self._ending.wait(NOTEBOOK_REFRESH_INTERVAL_S):
            self._put("\n".join(plain(line) for line in painter()))

    def _put(self, text: str) -> None:
        if text != self._shown:
            self._shown = text
            self._notebook.update_display(_bundle(text), raw=True, display_id=self._id)


def _bundle(text: str) -> dict[str, str]:
    return {"text/plain": text, "text/html": f'<pre style="{STYLE}">{html.escape(text)}</pre>'}
