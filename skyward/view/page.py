"""The page of a run: a single file that needs no network, drawn from the run's events by `drawing/page.js`.

A page may run its own script and use its own style, both allowed by their hashes, and nothing else.
"""

import base64
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from skyward.events import Event
from skyward.telemetry.report import Report
from skyward.view.timeline import Timeline


def page(events: Iterable[Event], report: Report | None = None) -> str:
    """Return the page of a run so far.

    Parameters
    ----------
    events
        All of the run so far, the oldest first.
    report
        The report to show; by default, the one at the end of the events.
    """
    timeline = Timeline()
    timeline.add(events)
    return filled(timeline.snapshot(report))


def save(path: str | os.PathLike[str], events: Iterable[Event], report: Report | None = None) -> None:
    """Write the page of a run to a file."""
    Path(path).write_text(page(events, report), encoding="utf-8")


def live() -> str:
    """Return the live page, which is sent its data by the server."""
    return filled(None)


def filled(data: dict[str, Any] | None) -> str:
    """Return the page with its data; None for the live page."""
    html, style, script = _parts()
    told = "null" if data is None else json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    values = {
        "POLICY": policy("connect-src 'self'" if data is None else ""),
        "STYLE": style,
        "LIVE": "yes" if data is None else "no",
        "DATA": told.replace("<", "\\u003c"),
        "SCRIPT": script,
    }
    return re.sub("@([A-Z]+)@", lambda found: values[found[1]], html)


def policy(more: str = "") -> str:
    """Return the Content-Security-Policy of the page, with `more` allowed."""
    _, style, script = _parts()
    allowed = (
        "default-src 'none'",
        f"style-src-elem {_named(style)}",
        "style-src-attr 'unsafe-inline'",
        f"script-src {_named(script)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        more,
    )
    return "; ".join(filter(None, allowed))


@functools.cache
def _parts() -> tuple[str, str, str]:
    folder = resources.files("skyward.view") / "drawing"
    html, style, script = ((folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    return html, style, script


def _named(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
