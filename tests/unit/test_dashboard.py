"""The live page: for one browser of this machine, and as long as the run."""

import asyncio
import contextlib
import http.client
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from skyward.config.spec import Options
from skyward.errors import MissingExtra
from skyward.events import BatchesEnded, DashboardOpened, RunEnded
from skyward.telemetry.event_log import EventLog
from skyward.view import dashboard
from skyward.view.dashboard import Dashboard
from tests import kit
from tests.unit.test_timeline import STARTED


@pytest.fixture
def record() -> Iterator[EventLog]:
    made = EventLog("run-1", None)
    yield made
    made.close()


@pytest.fixture
def served(record: EventLog) -> Iterator[Dashboard]:
    made = Dashboard(record)
    record.put(STARTED)
    made.open()
    yield made
    record.close()
    made.close()


def get(
    served: Dashboard, path: str, *, method: str = "GET", cookie: str = "", host: str = ""
) -> http.client.HTTPResponse:
    """Ask the server, as a browser would; the answer ends with its connection."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(served.url).port or 0, timeout=kit.SOON)
    headers = {"Connection": "close"} | ({"Cookie": cookie} if cookie else {}) | ({"Host": host} if host else {})
    try:
        connection.request(method, path, headers=headers)
        return connection.getresponse()
    finally:
        connection.close()  # of which the answer keeps a part until it is read


def link(served: Dashboard) -> str:
    return "/?" + urlsplit(served.url).query


def let_in(served: Dashboard) -> str:
    """Use the link; return the cookie."""
    answer = get(served, link(served))
    assert answer.status == 200
    return (answer.getheader("Set-Cookie") or "").partition(";")[0]


def told(answer: http.client.HTTPResponse) -> dict[str, Any]:
    """The next thing that the page is told."""
    while (line := answer.readline()) and not line.startswith(b"data: {"):
        pass
    news: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
    return news


def test_the_link_is_exchanged_for_a_cookie_and_works_once(served: Dashboard) -> None:
    answer = get(served, link(served))
    cookie = answer.getheader("Set-Cookie") or ""
    assert answer.status == 200
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert get(served, "/", cookie=cookie.partition(";")[0]).status == 200
    assert get(served, link(served), cookie=cookie.partition(";")[0]).status == 200
    assert get(served, link(served)).status == 403


def test_a_look_at_the_link_does_not_use_it_up(served: Dashboard) -> None:
    assert get(served, link(served), method="HEAD").status == 403
    assert let_in(served)


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=guess", "/?token=%ff", "/events"])
def test_nobody_else_sees_anything(served: Dashboard, path: str) -> None:
    for cookie in ("", "skyward-1=x"):
        answer = get(served, path, cookie=cookie)
        assert answer.status == 403
        assert b"run-1" not in answer.read()


def test_another_name_that_leads_here_is_refused(served: Dashboard) -> None:
    cookie = let_in(served)
    assert get(served, "/", cookie=cookie, host="rebound.example").status == 400
    assert get(served, "/", cookie=cookie, host="localhost").status == 200


def test_the_page_may_do_nothing_but_listen(served: Dashboard) -> None:
    answer = get(served, "/", cookie=let_in(served))
    rules = answer.getheader("Content-Security-Policy") or ""
    assert "default-src 'none'" in rules
    assert "connect-src 'self'" in rules
    assert "frame-ancestors 'none'" in rules
    assert answer.getheader("Access-Control-Allow-Origin") is None
    assert answer.getheader("Cache-Control") == "no-store"


def test_who_looks_on_is_told_what_was_and_what_is_new_until_the_end(served: Dashboard, record: EventLog) -> None:
    answer = get(served, "/events", cookie=let_in(served))
    news = told(answer)
    assert news["fresh"]
    while news["run"] is None:
        news = told(answer)
    assert news["run"]["run"] == "run-1"
    record.put(BatchesEnded(101.0, 0, (1,), (0,), (0.5,), ("returned",), (3,), 1))
    while not (news := told(answer))["cells"]:
        pass
    assert not news["fresh"]
    assert news["done"] == 3
    record.put(RunEnded(102.0, "", (), {}))
    record.close()
    served.close()
    while not (news := told(answer))["ended"]:
        pass
    assert b"event: over" in answer.read()


def test_who_cannot_keep_up_is_told_everything_anew(served: Dashboard) -> None:
    async def look_on() -> list[str]:
        stream = served._told()
        first = await anext(stream)
        for number in range(3 * dashboard.MAX_QUEUED_UPDATES):
            served._pass_on(f"data: {number}\n\n")
        served._pass_on(dashboard.OVER_MESSAGE)
        rest = [text async for text in stream]
        served._telling.cancel()
        served._closing = None
        return [first, *rest]

    texts = asyncio.run(look_on())
    assert len(texts) <= dashboard.MAX_QUEUED_UPDATES + 1
    assert '"fresh":true' in texts[1]
    assert texts[-1] == dashboard.OVER_MESSAGE


def test_the_link_is_told_and_logged(record: EventLog, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "skyward"):
        made = Dashboard(record)
        made.open()
    (event,) = record.events()
    assert isinstance(event, DashboardOpened)
    assert event.url == made.url
    assert made.url in caplog.text
    made.close()


def test_nothing_of_it_is_left(record: EventLog) -> None:
    made = Dashboard(record)
    made.open()
    get(made, "/")
    made.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("skyward-dashboard")]
    with pytest.raises(ConnectionRefusedError):
        get(made, "/")


def test_without_its_extra_the_options_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtra, match=r"uvicorn is not installed: .* pip install .*\[dashboard\]"):
        Options(dashboard=True)
    assert not Options().dashboard


def test_one_that_was_never_opened_closes_as_well(record: EventLog, tmp_path: Path) -> None:
    Dashboard(record).close()


# ---------------------------------------------------------------- others on this machine


MANY = 200


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def idle(served: Dashboard) -> Iterator[Callable[[bytes], socket.socket]]:
    """Connect, say something, and wait for nothing."""
    with ExitStack() as stack:

        def connect(said: bytes) -> socket.socket:
            made = stack.enter_context(
                socket.create_connection(("127.0.0.1", urlsplit(served.url).port or 0), kit.SOON)
            )
            with contextlib.suppress(ConnectionError):  # it may have been closed at once
                made.sendall(said)
            return made

        yield connect


def is_closed(connection: socket.socket) -> bool:
    """Wait until the server has closed it."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return True


def test_idle_connections_are_few_and_cost_the_driver_few_descriptors(
    served: Dashboard, idle: Callable[[bytes], socket.socket]
) -> None:
    cookie = let_in(served)
    before, ours = descriptors(), []
    for number in range(MANY):
        ours.append(idle((b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")[number % 3]))
        if number % 50 == 0:
            assert get(served, "/", cookie=cookie).status == 200  # whom the link has let in is let in still
    assert all(is_closed(connection) for connection in ours[: MANY - dashboard.MAX_CONNECTIONS - dashboard.BACKLOG])
    kit.until(lambda: descriptors() - before - MANY <= dashboard.MAX_CONNECTIONS + dashboard.BACKLOG)
    assert get(served, "/", cookie=cookie).status == 200


@pytest.mark.parametrize("said", [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"])
def test_an_idle_connection_is_closed_after_a_while(
    served: Dashboard, idle: Callable[[bytes], socket.socket], said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "IDLE_TIMEOUT_S", 0.2)
    assert is_closed(idle(said))


def test_who_looks_on_is_not_idle(
    served: Dashboard,
    idle: Callable[[bytes], socket.socket],
    record: EventLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dashboard, "IDLE_TIMEOUT_S", 0.2)
    answer = get(served, "/events", cookie=let_in(served))
    while not told(answer)["fresh"]:
        pass
    for _ in range(2 * dashboard.MAX_CONNECTIONS):
        others = [idle(b"")]
    assert is_closed(others[-1])
    record.put(BatchesEnded(101.0, 0, (1,), (0,), (0.5,), ("returned",), (3,), 1))
    while not told(answer)["cells"]:
        pass


def test_what_others_send_is_not_logged(
    served: Dashboard, idle: Callable[[bytes], socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(20):
            assert is_closed(idle(b"this is no request\r\n\r\n"))
        assert is_closed(idle(b"GET / HTTP/1.1\r\nX: " + b"x" * 2 * dashboard.HEADER_BYTES))
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
