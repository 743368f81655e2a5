"""What a cloud says to a machine that it is about to take away."""

import asyncio
import http.server
import threading
from collections.abc import Iterator

import pytest

from skyward.remote.node import interruption

ACTION = '{"action": "terminate", "time": "2026-01-01T00:02:00Z"}'


class Service(http.server.ThreadingHTTPServer):
    """A metadata service that answers with `codes` in turn, the last of them for ever."""

    codes: list[int]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Service

    def do_PUT(self) -> None:
        self._say(200, "a-token" if self.headers["X-aws-ec2-metadata-token-ttl-seconds"] else "")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "a-token" or not self.path.endswith("/spot/instance-action"):
            return self._say(401, "")
        code = self.server.codes.pop(0) if len(self.server.codes) > 1 else self.server.codes[0]
        return self._say(code, ACTION if code == 200 else "")

    def _say(self, code: int, text: str) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    with Service(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(interruption, "EC2", f"http://127.0.0.1:{server.server_port}/latest")
        monkeypatch.setattr(interruption, "NOTICE_POLL_INTERVAL_S", 0.01)
        yield server
        server.shutdown()


def test_nothing_is_said_as_long_as_the_machine_stays(service: Service) -> None:
    service.codes = [404]
    assert interruption.of_ec2() == ""


def test_what_is_about_to_happen_is_said(service: Service) -> None:
    service.codes = [200]
    assert interruption.of_ec2() == ACTION


def test_a_service_that_fails_is_no_notice_and_is_asked_again(service: Service) -> None:
    service.codes = [503, 404, 500, 200]
    with pytest.raises(OSError, match="503"):
        interruption.of_ec2()
    told: list[str] = []
    asyncio.run(asyncio.wait_for(interruption.watch("ec2", told.append), 10))
    assert told == [ACTION]
