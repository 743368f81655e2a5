"""The metadata service of the lab's EC2, at its usual address, for hosts only, and with a token only."""

import http.server
import secrets
import threading
from collections.abc import Callable

ADDRESS = "169.254.169.254"

type Lookup = Callable[[str, str], str | None]
"""What stands under a path, for the host of an address."""


class Metadata:
    """The service; `lookup` knows what is said to whom."""

    def __init__(self, lookup: Lookup) -> None:
        token = secrets.token_hex(8)

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

            def do_PUT(self) -> None:
                """Give a token."""
                asked = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
                self._say(200, token) if asked else self._say(400)

            def do_GET(self) -> None:
                """Answer whoever has one."""
                if self.headers.get("X-aws-ec2-metadata-token") != token:
                    return self._say(401)
                found = lookup(self.client_address[0], self.path.removeprefix("/latest/"))
                return self._say(404) if found is None else self._say(200, found)

            def _say(self, status: int, text: str = "") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

        self._server = http.server.ThreadingHTTPServer((ADDRESS, 80), Handler)
        threading.Thread(target=self._server.serve_forever, name="metadata", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()
