"""A real sshd on 127.0.0.1, for whoever runs the tests, without root or with it."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import psutil

from skyward.providers.ssh.target import Target
from tests import kit

PROGRAM = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
MISSING = None if PROGRAM and shutil.which("ssh") else "there is no OpenSSH here: apt-get install openssh-server"


@dataclass(frozen=True, slots=True)
class Sshd:
    """An sshd that runs.

    Attributes
    ----------
    folder
        Where its files are.
    port
        Where it listens on 127.0.0.1.
    key
        The file of the private key that may log in.
    host_key
        Its host key's public half, as `known_hosts` has it.
    pid
        Its process.
    """

    folder: Path
    port: int
    key: Path
    host_key: str
    pid: int

    def commands(self) -> list[psutil.Process]:
        """Return the commands that run in its sessions."""
        found = []
        for process in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() != "sshd" and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def cut(self) -> None:
        """Kill the processes of its connections; new ones are let in."""
        for process in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def config(self, text: str, *, known: str | None = None) -> Target:
        """Return the host `box` of a configuration; `known` is what known_hosts says of it."""
        self.folder.joinpath("known").write_text(
            f"[127.0.0.1]:{self.port} {self.host_key}\n" if known is None else known
        )
        common = [f"  UserKnownHostsFile {self.folder / 'known'}", "  GlobalKnownHostsFile none"]
        common += [f"  IdentityFile {self.key}", "  IdentitiesOnly yes"]
        (self.folder / "config").write_text("\n".join([text, "Host *", *common, ""]))
        return Target("box", user=getpass.getuser(), config=(str(self.folder / "config"),))

    def remote_home(self) -> Path:
        """Return the home of whoever logs in, if `machine` runs it."""
        return self.folder / "home"

    def destination(self) -> Target:
        """Return it, with all that it takes to log in."""
        trust = f"* {self.host_key}"
        keys = (str(self.key),)
        return Target("127.0.0.1", self.port, getpass.getuser(), keys=keys, agent=False, config=(), trust=trust)


@contextmanager
def running(folder: Path, *lines: str) -> Iterator[Sshd]:
    """Run an sshd, with more lines for its configuration."""
    assert PROGRAM is not None
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # it wants an empty folder
    host, user = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    for name, key in (("host", host), ("key", user)):
        (folder / name).touch(0o600)
        (folder / name).write_bytes(key.export_private_key())
    (folder / "authorized").write_bytes(user.export_public_key())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    usual = [f"ListenAddress 127.0.0.1:{port}", f"HostKey {folder}/host", f"AuthorizedKeysFile {folder}/authorized"]
    usual += ["PidFile none", "UsePAM no", "StrictModes no", "PasswordAuthentication no", "PermitRootLogin yes"]
    usual += ["KbdInteractiveAuthentication no", "Subsystem sftp internal-sftp", "LogLevel INFO"]
    (folder / "sshd_config").write_text("\n".join([*lines, *usual, ""]))
    command = [PROGRAM, "-D", "-e", "-f", str(folder / "sshd_config")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if "listening" in line:
                    break
            else:
                raise RuntimeError(f"sshd did not start: {''.join(said)}")
            threading.Thread(target=process.stderr.read, daemon=True).start()  # or it would wait for a reader
            public = " ".join(host.export_public_key().decode().split()[:2])
            yield Sshd(folder, port, folder / "key", public, process.pid)
        finally:
            process.terminate()
            process.wait(kit.SOON)


@contextmanager
def machine(folder: Path) -> Iterator[Sshd]:
    """Run an sshd that stands for another machine: it has a home of its own, and is `box` in `config` of the folder."""
    (folder / "home").mkdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with running(folder, f'SetEnv HOME={folder}/home "PATH={path}"') as started:
        started.config(f"Host box\n  HostName 127.0.0.1\n  Port {started.port}\n  User {getpass.getuser()}\n")
        yield started
