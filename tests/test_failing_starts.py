"""A start that fails says why, claims no leak where nothing was made, and leaves nothing: no process, no file."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

PROGRAM = """
import skyward as sky
class Broken(sky.plugins.Plugin):
    def driver(self, pool):
        raise ValueError("no driver today")
with sky.Compute({}):
    raise SystemExit("it has started")
"""

REFUSED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not authorized.</Message></Error></Errors>
<RequestID>1</RequestID></Response>"""


class _Refusing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(403)
        self.send_header("Content-Length", str(len(REFUSED)))
        self.end_headers()
        self.wfile.write(REFUSED)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """The address of an EC2 that refuses every call."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("provider=sky.AWS()", "InvalidArgument: region=None: no region is set"),
        ("provider=sky.AWS(region='eu-central-1', profile='none')", "InvalidArgument: profile='none'"),
        ("provider=sky.AWS(region='eu-central-1')", "Denied: there are no AWS credentials"),
        ("provider=sky.AWS(region='eu-west-1', allow='203.0.113.7')", "Denied: the credentials may not do ec2:"),
        ("provider=sky.SSH(hosts=['127.0.0.1:1'], config='/dev/null')", "Unreachable: 127.0.0.1:1: "),
        ("image=sky.Image(preload=['no_such_module'])", "No module named 'no_such_module'"),
        ("plugins=[Broken()]", "ValueError: no driver today"),
    ],
)
def test_a_start_that_fails_says_why_and_leaves_nothing(
    arguments: str, error: str, tmp_path: Path, refusing: str
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "TMPDIR": str(scratch),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    if "eu-west-1" in arguments:
        environment |= {"AWS_ENDPOINT_URL": refusing, "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arguments)],
        env=environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ran.returncode == 1
    assert error in ran.stderr
    assert not [
        said for said in ("Leaked", "could not be ended", "never retrieved", "cannot end") if said in ran.stderr
    ]
    assert _still_running(tmp_path) == []
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "runs"] == []
    assert list(scratch.iterdir()) == []


def _still_running(home: Path) -> list[list[str]]:
    """The command lines of the processes that have this home; those that are about to end are given a while."""
    found = []
    for each in psutil.process_iter():
        try:
            if each.environ().get("HOME") == str(home):
                found.append(each)
        except psutil.Error:
            continue
    _, alive = psutil.wait_procs(found, timeout=20)
    return [each.cmdline() for each in alive]
