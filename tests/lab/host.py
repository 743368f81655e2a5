"""One host of the lab, and what can happen to it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.lab import limits

BOOTED = 60.0
"""Seconds in which a host is up, or never will be."""

HERE = Path(__file__).parent
MASK = ("root", "home", "opt", "tmp", "var/tmp", "run", "mnt", "srv", "media", "var/log", "var/lib/cloud")
SYSTEM = {"bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys", "usr", "var"}
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
NAMESPACES += ["--propagation", "private"]

LISTENS = "0A"  # in /proc/net/tcp


type Fork = Callable[[list[str], dict[str, str] | None], subprocess.Popen[bytes]]
"""Starts a command, in that environment, that dies with the lab."""


class Unavailable(Exception):
    """The lab, or a part of it, cannot run here; the text says why, and what would help."""


def sh(*words: str, stdin: str = "", timeout: float = BOOTED) -> str:
    """What a command prints; it must not fail."""
    ran = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit code {ran.returncode}: {ran.stderr.strip()} {ran.stdout.strip()}")
    return ran.stdout


def until(true: Callable[[], object], what: str, seconds: float = BOOTED) -> None:
    """Look until it is true; there is no event for what goes on in another host."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.005)


@dataclass(frozen=True, slots=True)
class Spec:
    """What a host is like. Of `accounts` the first is the one to log in with, and may use sudo."""

    name: str
    number: int
    accounts: tuple[str, ...]
    port: int
    lower: str
    home: str
    disk: str
    slow: bool
    behind: "Host | None"
    memory: int | None
    cpus: float | None
    public: bool
    seed: dict[str, bytes] = field(repr=False)


class Host:
    """A host. A fault lasts until it is mended, or for as many seconds as it is given.

    Attributes
    ----------
    spec
        What it is like.
    address
        Where it is, in the lab's network or behind its jump host.
    key
        Its host key's public half, as a line.
    """

    def __init__(self, spec: Spec, folder: Path, key: str, fork: Fork) -> None:
        self.spec, self.key, self._fork = spec, key, fork
        self.folder = folder / str(spec.number)
        self.address = f"10.77.{2 if spec.behind else 0}.{spec.number}"
        self.line = f"lab{spec.number}"  # the near end of its cable
        self._cable: subprocess.Popen[bytes] | None = None
        self._groups: list[Path] = []
        self._timers: list[threading.Timer] = []
        self.boot()

    @property
    def name(self) -> str:
        """Its name, which is also its alias in the lab's configuration of ssh."""
        return self.spec.name

    @property
    def account(self) -> str:
        """Whom to log in as."""
        return self.spec.accounts[0]

    @property
    def place(self) -> str:
        """Its address as a known_hosts file has it."""
        return self.address if self.spec.port == 22 else f"[{self.address}]:{self.spec.port}"

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._outer.poll() is None

    # ---------------------------------------------------------------- start and end

    def boot(self) -> None:
        """Start it, and return when sshd listens."""
        self._outer = self._fork([*NAMESPACES, "/bin/sh", str(HERE / "init.sh")], self._prepare())
        try:
            self._hear("ready")
            self.pid = next(limits.below(self._outer.pid))
            if self.spec.memory or self.spec.cpus:
                group = f"lab-{os.getpid()}-{self.name}"
                self._groups = limits.limit(group, self.pid, self.spec.memory, self.spec.cpus)
            self._wire()
            self._say("go")
            self._hear("up")  # until then whoever enters it sees the machine's files
            until(lambda: self.listens(self.spec.port) or not self.is_alive, f"sshd of {self.name} listens")
            if not self.is_alive:
                raise RuntimeError(f"{self.name} did not boot: {self.log}")
        except BaseException:
            self.kill()
            raise

    def _prepare(self) -> dict[str, str]:
        """Lay out what it finds at first; returns its environment, made from nothing: none of ours gets in."""
        seed = self.folder.with_suffix(".seed")
        for folder in (self.folder, seed):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for name, data in {**self.spec.seed, "boot.sh": (HERE / "boot.sh").read_bytes()}.items():
            (seed / name).parent.mkdir(exist_ok=True)
            (seed / name).write_bytes(data)
        own = [each.name for each in os.scandir("/") if each.is_dir() and not each.is_symlink()]
        return {
            "PATH": PATH,
            "LAB_NAME": self.name,
            "LAB_ADDRESS": self.address,
            "LAB_MAC": f"02:00:0a:4d:{2 if self.spec.behind else 0:02x}:{self.spec.number:02x}",
            "LAB_PUBLIC": f"10.77.1.{self.spec.number}" if self.spec.public else "",
            "LAB_BASE": str(self.folder),
            "LAB_LOWER": self.spec.lower,
            "LAB_MASK": " ".join(dict.fromkeys([*MASK, *(name for name in own if name not in SYSTEM)])),
            "LAB_HOME": self.spec.home,
            "LAB_DISK": self.spec.disk,
            "LAB_SEED": str(seed),
            "LAB_LOG": str(self.folder.with_suffix(".log")),
        }

    def _wire(self) -> None:
        bridge = "labin" if self.spec.behind else "labbr"
        if self.spec.slow and not netem():
            cable = str(Path(__file__).with_name("cable.py"))
            self._cable = self._fork([sys.executable, cable, str(self.pid), self.line], None)
            if _pipe(self._cable.stdout).readline() != b"ready\n":
                raise RuntimeError(f"{self.name} has no cable")
        else:
            sh("ip", "link", "add", self.line, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        sh("ip", "link", "set", self.line, "master", bridge, "up")

    def _hear(self, word: str) -> None:
        if _pipe(self._outer.stdout).readline().decode().strip() != word:
            raise RuntimeError(f"{self.name} is not {word}: {self.log}")

    def _say(self, word: str) -> None:
        stdin = _pipe(self._outer.stdin)
        stdin.write(word.encode() + b"\n")
        stdin.close()

    @property
    def log(self) -> str:
        """The last of what it printed while booting."""
        return self.folder.with_suffix(".log").read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        """End it as a power cut would: the other side hears nothing."""
        for timer in self._timers:
            timer.cancel()
        if self.is_alive and hasattr(self, "pid"):
            with contextlib.suppress(RuntimeError):  # it may have no cable yet
                self.cut()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        elif self.is_alive:
            self._outer.kill()
        if self._cable is not None:
            self._cable.kill()
        for process in (self._outer, self._cable):
            if process is not None:
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    _pipe(pipe).close()
        subprocess.run(["ip", "link", "del", self.line], capture_output=True, check=False)
        limits.remove(self._groups)

    def wait(self) -> None:
        """Wait until it has ended, by itself or not."""
        self._outer.wait()

    def reboot(self) -> None:
        """End it, and start it anew at the same address with the same host key. Memory and disk are lost."""
        self.kill()
        self._cable, self._groups = None, []
        self.boot()

    # ---------------------------------------------------------------- behind the scenes

    def run(self, script: str, timeout: float = 60.0) -> str:
        """What a script prints, run as root and not by SSH: to look behind the scenes. It must not fail."""
        return sh("nsenter", "-t", str(self.pid), "-a", "/bin/sh", "-c", script, timeout=timeout)

    def listens(self, port: int) -> bool:
        """Whether something listens there, asked of the kernel: a connection that is too early costs a second."""
        try:
            rows = Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        except OSError:
            return False
        return any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == LISTENS for row in rows)

    def processes(self) -> dict[int, str]:
        """Everything that runs on it but its PID 1, by pid out here: its command."""
        found = {}
        for pid in limits.below(self.pid):
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        return found

    # ---------------------------------------------------------------- faults

    def cut(self, seconds: float | None = None) -> None:
        """Pull the cable: packets vanish, and nobody is told."""
        sh("ip", "link", "set", self.line, "down")
        self._later(seconds, self.mend)

    def mend(self) -> None:
        """Put the cable back."""
        sh("ip", "link", "set", self.line, "up")

    def slow(self, delay: float = 0.0, loss: float = 0.0, rate: float = 0.0) -> None:
        """Make its link slow: `delay` in seconds and `loss` from 0 to 1 each way, `rate` in bytes per second."""
        if not self.spec.slow:
            raise RuntimeError("start it with slow=True")
        if self._cable is not None:
            said = json.dumps({"delay": delay, "loss": loss, "rate": rate}).encode()
            stdin = _pipe(self._cable.stdin)
            stdin.write(said + b"\n")
            stdin.flush()
            _pipe(self._cable.stdout).readline()
            return
        how = ["netem", "limit", "100000", "delay", f"{delay * 1000:g}ms", "loss", f"{loss * 100:g}%"]
        how += ["rate", f"{rate * 8:.0f}bit"] if rate else []
        sh("tc", "qdisc", "replace", "dev", self.line, "root", *how)
        sh("nsenter", "-t", str(self.pid), "-n", "tc", "qdisc", "replace", "dev", "eth0", "root", *how)

    def freeze(self, seconds: float | None = None) -> None:
        """Stop everything on it, and its network with it, as a machine that hangs."""
        self.cut()
        self._signal(signal.SIGSTOP)
        self._later(seconds, self.thaw)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)
        self.mend()

    def stop_sshd(self, seconds: float | None = None) -> None:
        """End sshd and every session of it; what they started goes on. Connections are refused until it starts."""
        self.run("touch /run/lab/no-sshd")
        for pid in [
            pid for pid, command in self.processes().items() if command.startswith(("sshd:", "/usr/sbin/sshd"))
        ]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.listens(self.spec.port), f"sshd of {self.name} is gone")
        self._later(seconds, self.start_sshd)

    def start_sshd(self) -> None:
        """Start sshd again."""
        self.run("rm -f /run/lab/no-sshd")
        until(lambda: self.listens(self.spec.port), f"sshd of {self.name} listens")

    def restart_sshd(self) -> None:
        """Restart sshd; every connection is lost."""
        self.stop_sshd()
        self.start_sshd()

    def wipe(self) -> None:
        """Lose every file that was written since it was installed; accounts, their keys, and processes stay."""
        self.run(
            "cd /; find /opt /tmp /var/tmp /srv /mnt /dev/shm -mindepth 1 -delete;"
            " find /home /root -mindepth 1 -depth ! -path '*/.ssh*' -type f -delete;"
            " find /home /root -mindepth 2 -depth ! -path '*/.ssh*' -type d -empty -delete"
        )

    def fill(self) -> None:
        """Leave no space on its disk."""
        remount = 'mount -o remount,size="$(df --output=used -B1 /tmp | tail -n 1)" /tmp'
        self.run(f"for try in $(seq 20); do {remount} 2>/dev/null && exit; done; {remount}")  # it may grow in between

    def unfill(self) -> None:
        """Give its disk its space again."""
        self.run(f"mount -o remount,size={self.spec.disk} /tmp")

    def change_key(self, private: bytes, public: str) -> None:
        """Have sshd show another host key, as a machine that was installed anew, or one in the middle."""
        self.key = public
        sh("nsenter", "-t", str(self.pid), "-a", "tee", "/etc/ssh/ssh_host_ed25519_key", stdin=private.decode())
        self.restart_sshd()

    def _signal(self, number: signal.Signals) -> None:
        pids = [self.pid, *limits.below(self.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _later(self, seconds: float | None, mend: Callable[[], None]) -> None:
        if seconds is not None:
            timer = threading.Timer(seconds, mend)
            self._timers.append(timer)
            timer.daemon = True
            timer.start()


def netem() -> bool:
    """Whether this kernel can delay and lose packets by itself."""
    try:
        sh("tc", "qdisc", "replace", "dev", "lo", "root", "netem", "delay", "0ms")
    except (OSError, RuntimeError):
        return False
    sh("tc", "qdisc", "del", "dev", "lo", "root")
    return True


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe
