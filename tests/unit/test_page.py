"""The page of a run: one text that needs nothing else, whatever the run was called."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from skyward.events import BatchesEnded, BatchRetried, Event, NodeChanged, RunEnded, RunStarted
from skyward.view.page import live, page, policy, save
from tests.unit.test_timeline import REPORT, STARTED

NASTY = "</script><script>alert(1)</script><!-- @DATA@"
RUN: Sequence[Event] = (
    RunStarted(100.0, NASTY, NASTY, 1, 1, 1, "process", NASTY, "0.1.0", "3.12.1"),
    NodeChanged(100.5, 0, 0, "ready", "", NASTY, NASTY, 1),
    BatchesEnded(102.0, 0, (1,), (0,), (1.0,), ("returned",), (1,), 1),
    BatchRetried(102.5, 1, NASTY),
    RunEnded(103.0, NASTY, (NASTY,), replace(REPORT, retries={NASTY: 1}).as_dict()),
)


def data(html: str) -> object:
    """What the page draws."""
    found = re.search('<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_it_holds_what_it_draws() -> None:
    told = data(page(RUN))
    assert isinstance(told, dict)
    assert told["run"]["program"] == NASTY
    assert told["cells"] == [[0, 0, 0, [10_000, 10_000, 0, 1, 1, 1, 0, -1]]]


def test_what_comes_from_outside_never_becomes_markup() -> None:
    html = page(RUN)
    assert "alert(1)</script>" not in html
    assert html.count("<script") == html.count("</script>") == 2


def test_it_asks_nobody_for_anything() -> None:
    for html in (page(RUN), live()):
        assert not re.search(r"""(?:src|href)=["'](?!data:,)""", html)
        assert not re.search(r"https?://|@import|url\(", html)


@pytest.mark.parametrize("html", [page(RUN), live()])
def test_it_may_run_its_own_script_and_no_other(html: str) -> None:
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert script is not None
    assert style is not None
    for kind, text in (("script-src", script[1]), ("style-src-elem", style[1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def test_only_the_live_one_may_listen_and_only_where_it_comes_from() -> None:
    assert "connect-src" not in page(RUN)
    assert "connect-src 'self'" in live()
    assert policy("connect-src 'self'").endswith("; connect-src 'self'")


def test_a_given_report_is_shown() -> None:
    told = data(page([STARTED], REPORT))
    assert isinstance(told, dict)
    assert told["numbers"][0] == ["Tasks", "8"]


def test_a_run_without_events_has_a_page() -> None:
    assert data(page([])) is not None


def test_it_is_saved_as_a_file(tmp_path: Path) -> None:
    save(tmp_path / "run.html", RUN)
    assert (tmp_path / "run.html").read_text(encoding="utf-8") == page(RUN)
