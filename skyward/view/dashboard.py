"""The live page of a run, for this user's browser only: on 127.0.0.1, behind a link that works once.

The token of the link is exchanged for a cookie that no script can read and no other site can send. Events are added in
the record's thread, and browsers are sent changes twice a second; a browser that cannot keep up is sent everything.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

from skyward import extras
from skyward.events import DashboardOpened, Event
from skyward.telemetry.event_log import EventLog, now
from skyward.view.page import live, policy
from skyward.view.timeline import Timeline

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as missing:
    raise extras.missing(missing.name or "starlette", "dashboard") from None

log = logging.getLogger("skyward")

requests = logging.getLogger("skyward.dashboard")
requests.setLevel(logging.ERROR)  # no line for each bad request: anybody on this machine can send many

LOOPBACK = "127.0.0.1"

UPDATE_INTERVAL_S = 0.5
"""Seconds between two updates."""

MAX_QUEUED_UPDATES = 8
"""Updates queued for a browser, beyond which it is sent everything again."""

MAX_CONNECTIONS = 32
"""Maximum number of open connections: each is a descriptor of the driver, and anybody on this machine can connect."""

BACKLOG = 32
"""Connections that may wait to be accepted; all are accepted at once."""

IDLE_TIMEOUT_S = 5.0
"""Seconds after which a connection without a request is closed; uvicorn waits for the first one forever."""

HEADER_BYTES = 16 << 10
"""Maximum bytes of the headers of a request, and so of the memory for each connection."""

OVER_MESSAGE = "event: over\ndata: \n\n"

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": policy("connect-src 'self'; frame-ancestors 'none'"),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

# not a redirect: a strict cookie is not sent along when another site's link led here
HANDED_OVER = (
    '<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>Skyward</title><a href="/">The run</a>'
)


class _Bounded(H11Protocol):
    """A connection that is closed when it is idle, or when there are too many."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.logger = requests

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        cycle: Any = self.cycle  # None until there is one, although uvicorn does not declare it so
        return cycle is None or bool(cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self.began = self.loop.time()
        self._looking = self.loop.call_later(IDLE_TIMEOUT_S, self._look)
        if len(self.connections) > MAX_CONNECTIONS:
            others = [each for each in self.connections if isinstance(each, _Bounded) and each.is_idle]
            min(others, key=lambda each: each.began).drop()  # this one is idle as well

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._looking.cancel()

    def drop(self) -> None:
        """Close it at once."""
        self.connections.discard(self)
        self.transport.abort()

    def _look(self) -> None:
        if self.is_idle:
            self.drop()
        else:
            self._looking = self.loop.call_later(IDLE_TIMEOUT_S, self._look)


class Dashboard:
    """The live page of a run. It listens to events from now on, and is served from `open` to `close`.

    Parameters
    ----------
    record
        The run.
    """

    def __init__(self, record: EventLog) -> None:
        self._record = record
        self._timeline, self._lock = Timeline(), threading.Lock()
        self._is_new = self._over = False
        self._queues: set[asyncio.Queue[str]] = set()
        self._closing: asyncio.Event | None = None
        self._token, self._session = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._socket = socket.create_server((LOOPBACK, 0))
        port = self._socket.getsockname()[1]
        self._cookie = f"skyward-{port}"
        self.url = f"http://{LOOPBACK}:{port}/?token={self._token}"
        config = uvicorn.Config(
            self._app(),
            http=_Bounded,
            backlog=BACKLOG,
            timeout_keep_alive=int(IDLE_TIMEOUT_S),
            h11_max_incomplete_event_size=HEADER_BYTES,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,  # it would have the token
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name=f"skyward-dashboard-{record.run}", daemon=True)
        record.listen(self._hear)

    def open(self) -> None:
        """Serve the page, and log its link."""
        self._thread.start()
        log.info("this run can be watched at %s (the link works once)", self.url)
        self._record.put(DashboardOpened(now(), self.url))

    def close(self) -> None:
        """Send browsers the end of the run, and stop the server."""
        with self._lock:
            self._over = True
            closing = self._closing
        if closing is None:
            self._server.should_exit = True
        else:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                self._loop.call_soon_threadsafe(closing.set)
        if self._thread.ident is not None:
            self._thread.join(10)
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    # ------------------------------------------------------------ in the record's thread

    def _hear(self, events: Sequence[Event]) -> None:
        with self._lock:
            self._timeline.add(events)
            self._is_new = True

    # ------------------------------------------------------------ on the server's loop

    def _app(self) -> Starlette:
        return Starlette(
            routes=[Route("/", self._page), Route("/events", self._events)],
            # a site whose name resolves to this machine sends its own name as the host
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"], www_redirect=False)],
        )

    def _is_known(self, request: Request) -> bool:
        return secrets.compare_digest(request.cookies.get(self._cookie, "").encode(), self._session.encode())

    async def _page(self, request: Request) -> Response:
        if self._is_known(request):
            return HTMLResponse(live(), headers=HEADERS)
        token = request.query_params.get("token", "")
        if (
            request.method != "GET"
            or not self._token
            or not secrets.compare_digest(token.encode(), self._token.encode())
        ):
            return PlainTextResponse("This link has been used, or is not the one of this run.\n", 403, HEADERS)
        self._token = ""
        response = HTMLResponse(HANDED_OVER, headers=HEADERS)
        response.set_cookie(self._cookie, self._session, httponly=True, samesite="strict")
        return response

    async def _events(self, request: Request) -> Response:
        if not self._is_known(request):
            return PlainTextResponse("Open the page first.\n", 403, HEADERS)
        return StreamingResponse(self._told(), media_type="text/event-stream", headers=HEADERS)

    async def _told(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue(MAX_QUEUED_UPDATES)
        self._queues.add(queue)
        with self._lock:
            if self._closing is None and not self._over:
                self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
                self._telling = asyncio.create_task(self._tell())
            if self._over:
                queue.put_nowait(OVER_MESSAGE)
            whole = self._timeline.snapshot()
        try:
            text = _said(whole)
            while text != OVER_MESSAGE:
                yield text
                text = await queue.get()
            yield OVER_MESSAGE
        finally:
            self._queues.discard(queue)

    async def _tell(self) -> None:
        """Send changes until the run is over; then stop the server."""
        assert self._closing is not None
        ending = False
        while not ending:
            try:
                ending = await asyncio.wait_for(self._closing.wait(), UPDATE_INTERVAL_S)
            except TimeoutError:
                ending = False
            with self._lock:
                news = self._timeline.news() if self._is_new else None
                self._is_new = False
            if news is not None:
                self._pass_on(_said(news))
        self._pass_on(OVER_MESSAGE)
        self._server.should_exit = True

    def _pass_on(self, text: str) -> None:
        for queue in self._queues:
            if queue.qsize() >= MAX_QUEUED_UPDATES - 1:
                while not queue.empty():
                    queue.get_nowait()
                with self._lock:
                    queue.put_nowait(_said(self._timeline.snapshot()))
                if text != OVER_MESSAGE:
                    continue
            queue.put_nowait(text)


def _said(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"
