"""A start that fails gives its reason in one line and nothing after it, claims no leak, and leaves nothing behind."""

import contextlib
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import asyncssh
import psutil
import pytest

from tests import kit, sshd
from tests.sshd import Sshd

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
import skyward as sky
class Broken(sky.plugins.Plugin):
    def __init__(self, hook):
        setattr(self, hook, self.fail)
    def fail(self, *_):
        raise ValueError("no plugin today")
def without(module):
    sys.modules[module] = None
once = sky.Options(launch_attempts=1)
def ssh(**more):
    import skyward.providers.ssh.ssh as module
    module.OTHER_ATTEMPTS_S = 60.0
    return sky.SSH(config="/dev/null", **more)
with sky.Compute({}):
    raise SystemExit("it has started")
"""

PYTHON = [sys.executable, "-W", "always::ResourceWarning", "-c"]

FORKED = """
import json, os, sys, threading
import aioboto3, asyncssh, skyward
skyward.Compute
assert threading.active_count() == 1
for line in sys.stdin:
    given = json.loads(line)
    if not (pid := os.fork()):
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    raise SystemExit
os.dup2(os.open(given["stderr"], os.O_WRONLY | os.O_CREAT), 2)
nothing = os.open(os.devnull, os.O_RDWR)
os.dup2(nothing, 0)
os.dup2(nothing, 1)
os.environ.clear()
os.environ.update(given["environment"])
os.chdir(given["environment"]["HOME"])
sys.path[1:1] = given["environment"]["PYTHONPATH"].split(os.pathsep)
exec(given["program"], {"__name__": "__main__"})
"""
"""Runs each program that it is given in a fork of itself: what a start imports takes longer than the start."""

COMPLAINTS = (
    "Leaked",
    "could not be terminated",
    "could not terminate",
    "cannot terminate",
    "never retrieved",
    "never awaited",
    "was destroyed",
    "xception in callback",
    "xception ignored",
    "ResourceWarning",
    "During handling",
    "The above exception",
)
"""What no start may say beside its reason."""

LOCAL = {
    "a module that is not there": (
        "image=sky.Image(preload=['no_such_module'])",
        "InvalidArgument: preload=['no_such_module']: there is no module 'no_such_module'; give the name",
    ),
    "a part of a module that is not there": (
        "image=sky.Image(preload=['json.no_such'])",
        "BootFailed: node 0 failed before it was ready: cannot import 'json.no_such' (preload): ModuleNotFoundError",
    ),
    "a module that raises": ("image=sky.Image(preload=['raises'])", "cannot import 'raises' (preload): LookupError: x"),
    "a node that is killed": (
        "image=sky.Image(preload=['killed'])",
        "the import of 'killed' (preload) ended the process: killed by signal 9 (SIGKILL)",
    ),
    "a plugin here": ("plugins=[Broken('driver')]", "ValueError: no plugin today"),
    "a plugin that changes the image": ("plugins=[Broken('image')]", "ValueError: no plugin today"),
    "too little time": (
        "image=sky.Image(preload=['stuck']), options=sky.Options(launch_attempts=1, start_timeout=1)",
        "BootFailed: node 0 was not ready within 1 s (Options(start_timeout=)): it was booting",
    ),
    "a folder that is not there": (
        "provider=sky.Local(folder='/no/such/folder')",
        "InvalidArgument: folder='/no/such/folder': there is no such folder",
    ),
    "a file of the image that is not there": (
        "image=sky.Image(files={'data.csv': 'missing.csv'})",
        "InvalidArgument: files={'data.csv': 'missing.csv'}: there is no such file; give the path of a file",
    ),
    "a package that is not installed": (
        "image=sky.Image(packages=['no-such-package>=2'])",
        f"no-such-package>=2; install what is missing: {sys.executable} -m pip install 'no-such-package>=2'",
    ),
}

SSH = {
    "a file of the image that is not there for a machine": (
        "provider=ssh(hosts=['127.0.0.1:1']), image=sky.Image(files={'data.csv': 'missing.csv'})",
        "InvalidArgument: files={'data.csv': 'missing.csv'}: there is no such file",
    ),
    "a name that nobody knows": (
        "provider=ssh(hosts=['no..such'])",
        "Refused: no..such: the host name 'no..such' is unknown",
    ),
    "more nodes than machines": (
        "provider=ssh(hosts=['a']), nodes=3",
        "InvalidArgument: nodes=3: the provider has 1 machine",
    ),
    "a port that refuses": (
        "provider=ssh(hosts=['127.0.0.1:1'])",
        "Unreachable: 127.0.0.1:1: cannot connect to 127.0.0.1:1: connection refused. Is sshd running there?",
    ),
    "several ports that refuse": (
        "provider=ssh(hosts=['127.0.0.1:1', '127.0.0.1:2']), nodes=2",
        "127.0.0.1:2: cannot connect to 127.0.0.1:2: connection refused. Is sshd running there?",
    ),
    "a name that nobody knows beside a port that refuses": (
        "provider=ssh(hosts=['no..such', '127.0.0.1:1']), nodes=2",
        "no..such: the host name 'no..such' is unknown. Is it spelled right?",
    ),
    "a port that refuses beside a name that nobody knows": (
        "provider=ssh(hosts=['no..such', '127.0.0.1:1']), nodes=2",
        "127.0.0.1:1: cannot connect to 127.0.0.1:1: connection refused. Is sshd running there?",
    ),
    "a key that is not there": (
        "provider=ssh(hosts=['127.0.0.1:1'], key='/no/key')",
        "InvalidArgument: key='/no/key': there is no such file",
    ),
    "a configuration that is not there": (
        "provider=sky.SSH(hosts=['127.0.0.1:1'], config='/no/config')",
        "InvalidArgument: config='/no/config': there is no such file",
    ),
    "no extra": ("provider=(without('asyncssh'), ssh(hosts=['a']))[1]", "MissingExtra: asyncssh is not installed: "),
}

AWS = {
    "a file of the image that is not there for the cloud": (
        "provider=sky.AWS(region='eu-west-1'), image=sky.Image(files={'data.csv': 'missing.csv'})",
        "InvalidArgument: files={'data.csv': 'missing.csv'}: there is no such file",
    ),
    "no region": ("provider=sky.AWS()", "InvalidArgument: region=None: no region is set"),
    "no profile": ("provider=sky.AWS(region='eu-central-1', profile='none')", "InvalidArgument: profile='none'"),
    "no credentials": ("provider=sky.AWS(region='eu-central-1')", "Denied: there are no AWS credentials"),
    "no permission": (
        "provider=sky.AWS(region='eu-west-1', allow='203.0.113.7')",
        "Denied: your credentials do not allow ec2:",
    ),
    "no AWS extra": ("provider=(without('aioboto3'), sky.AWS())[1]", "MissingExtra: aioboto3 is not installed: "),
}

SERVED = {
    "another key": (
        "provider=sky.SSH(hosts=['127.0.0.1:{port}'], user='{user}', key='{folder}/other', config='{folder}/config')",
        "NotAllowed: {user}@127.0.0.1:{port}: login as {user} failed: none of the available keys was accepted",
    ),
    "another user": (
        "provider=sky.SSH(hosts=['127.0.0.1:{port}'], user='mallory', config='{folder}/config')",
        "NotAllowed: mallory@127.0.0.1:{port}: login as mallory failed: none of the available keys was accepted",
    ),
    "a key that needs a passphrase": (
        "provider=sky.SSH(hosts=['127.0.0.1:{port}'], key='{folder}/locked', config='{folder}/config')",
        "NotAllowed: 127.0.0.1:{port}: login as {user} failed: {folder}/locked needs a passphrase: give it to the",
    ),
    "a host key that is not known": (
        "provider=ssh(hosts=['127.0.0.1:{port}'], user='{user}', key='{folder}/key')",
        "Distrusted: {user}@127.0.0.1:{port}: its host key is not known",
    ),
    "a command that fails there": (
        "provider=box, image=sky.Image(shell=['exit 3'])",
        "BootFailed: node 0 could not be set up: step 'exit 3' failed",
    ),
    "a Python that is not there": (
        "provider=box, image=sky.Image(python='no-python')",
        "BootFailed: node 0 could not be set up: step 'python' failed",
    ),
    "a module that is not there": (
        "provider=box, image=sky.Image(preload=['no_such_module'], shell=['true'])",
        "BootFailed: node 0 lacks what your program has:",
    ),
    "a node that is killed there": (
        "provider=box, image=sky.Image(preload=['killed']), options=once",
        "the import of 'killed' (preload) ended the process: killed by signal 9 (SIGKILL)",
    ),
}
"""Those that need an sshd."""

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


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Another machine, and keys that nobody may log in with."""
    if sshd.MISSING is not None:
        pytest.skip(sshd.MISSING)
    folder = tmp_path_factory.mktemp("sshd")
    other = asyncssh.generate_private_key("ssh-ed25519")
    locked = other.export_private_key("pkcs8-pem", passphrase="x")
    for name, data in (("other", other.export_private_key()), ("locked", locked)):
        (folder / name).touch(0o600)
        (folder / name).write_bytes(data)
    with sshd.machine(folder) as started:
        yield started


class Forks:
    """A Python that has imported what each start needs, and runs programs in forks of itself, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._stderr = folder / "stderr"
        self.process = subprocess.Popen(
            [*PYTHON, FORKED],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, environment: Mapping[str, str]) -> tuple[int, str]:
        """Return the exit code of a program, and what it said on stderr."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stderr.unlink(missing_ok=True)
        given = {"program": program, "environment": dict(environment), "stderr": str(self._stderr)}
        print(json.dumps(given), file=self.process.stdin, flush=True)
        code = self.process.stdout.readline()
        return int(code), self._stderr.read_text()


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    forks = Forks(tmp_path_factory.mktemp("forks"))
    with forks.process:
        yield forks
        forks.process.terminate()


class Start:
    """A program that opens a pool, in a home and a folder for temporary files of its own."""

    def __init__(self, home: Path, **more: str) -> None:
        self.home, self.scratch = home, home / "scratch"
        self.scratch.mkdir()
        modules = home / "modules"
        modules.mkdir()
        (modules / "raises.py").write_text("raise LookupError('x')\n")
        (modules / "killed.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
        (modules / "stuck.py").write_text(
            "import os, socket, time\n"
            "if port := os.environ.get('BELL'):\n"
            "    socket.create_connection(('127.0.0.1', int(port)))\n"
            "time.sleep(600)\n"
        )
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, modules))),
            "HOME": str(home),
            "TMPDIR": str(self.scratch),
            "AWS_EC2_METADATA_DISABLED": "true",
        } | more

    def begin(self, program: str) -> "subprocess.Popen[str]":
        out, env = subprocess.PIPE, self.environment
        return subprocess.Popen([*PYTHON, program], env=env, cwd=self.home, stdout=out, stderr=out, text=True)

    def fail(self, forks: Forks, arguments: str, reason: str) -> None:
        """Run it, and see that it fails for this reason alone."""
        code, stderr = forks.run(PROGRAM.replace("{}", arguments), self.environment)
        assert code == 1, stderr
        self.check(stderr, reason)

    def check(self, stderr: str, reason: str) -> None:
        """See that this was told once, as the last thing but for what a node said, and that nothing is left."""
        lines = stderr.splitlines()
        places = [number for number, line in enumerate(lines) if reason in line]
        assert len(places) == 1, stderr
        first = lines.index("Traceback (most recent call last):")
        assert not [line for line in lines[:first] if not line.startswith("skyward: ")], stderr  # but the progress
        assert not [line for line in lines[places[0] :] if "/skyward/" in line or "/asyncio/" in line], stderr
        assert not [said for said in COMPLAINTS if said in stderr], stderr
        assert _still_running(self.home) == []
        assert [path for path in self.home.rglob("*") if path.is_file() and path.parent.name not in KEPT] == []
        assert list(self.scratch.iterdir()) == []


KEPT = ("runs", "modules", "__pycache__")
"""Folders of files that may be there: records of runs, and modules of the test."""


def _still_running(home: Path) -> list[list[str]]:
    """The command lines of the processes that have this home; those that are about to end are given a while."""
    found = []
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if each.environ().get("HOME") == str(home):
                found.append(each)
    _, alive = psutil.wait_procs(found, timeout=kit.SOON)
    return [each.cmdline() for each in alive]


@pytest.mark.parametrize(("arguments", "reason"), (LOCAL | SSH).values(), ids=LOCAL | SSH)
def test_a_start_that_fails_gives_its_reason_and_leaves_nothing(
    arguments: str, reason: str, tmp_path: Path, forks: Forks
) -> None:
    Start(tmp_path).fail(forks, arguments, reason)


@pytest.mark.parametrize(("arguments", "reason"), AWS.values(), ids=AWS)
def test_a_start_that_fails_in_the_cloud_leaves_nothing_either(
    arguments: str, reason: str, tmp_path: Path, forks: Forks, refusing: str
) -> None:
    denied = {"AWS_ENDPOINT_URL": refusing, "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    Start(tmp_path, **(denied if "eu-west-1" in arguments else {})).fail(forks, arguments, reason)


@pytest.mark.parametrize(("arguments", "reason"), SERVED.values(), ids=SERVED)
def test_a_start_that_fails_on_a_machine_leaves_nothing_there(
    arguments: str, reason: str, tmp_path: Path, forks: Forks, served: Sshd
) -> None:
    def filled(text: str) -> str:
        for name, value in (("port", served.port), ("user", getpass.getuser()), ("folder", served.folder)):
            text = text.replace(f"{{{name}}}", str(value))
        return text.replace("provider=box", f"provider=sky.SSH(hosts=['box'], config='{served.folder}/config')")

    Start(tmp_path).fail(forks, filled(arguments), filled(reason))

    kit.until(lambda: not served.commands())
    assert list((served.remote_home() / ".cache" / "skyward" / "run").glob("*/*")) == []


@pytest.mark.parametrize("place", ["a node that imports", "a machine that is silent", "a cloud that is silent"])
def test_ctrl_c_during_a_start_ends_it_and_leaves_nothing(place: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(kit.SOON)
        port = door.getsockname()[1]
        start = Start(
            tmp_path,
            BELL=str(port),
            AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
            AWS_ACCESS_KEY_ID="none",
            AWS_SECRET_ACCESS_KEY="none",
        )
        arguments = {
            "a node that imports": "image=sky.Image(preload=['stuck'])",
            "a machine that is silent": f"provider=ssh(hosts=['127.0.0.1:{port}'])",
            "a cloud that is silent": "provider=sky.AWS(region='eu-west-1', allow='203.0.113.7')",
        }[place]
        with start.begin(PROGRAM.replace("{}", arguments)) as process, door.accept()[0]:
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=150)

    assert process.returncode == -signal.SIGINT, stderr
    start.check(stderr, "KeyboardInterrupt")
