"""The lab: a network of its own, hosts in it, the keys to them, and a configuration of ssh that knows them all."""

import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import skyward as sky
from skyward.providers.ssh.target import Target
from tests.lab import layer
from tests.lab.host import PATH, Host, Spec, Unavailable, netem, sh

NEAR = "10.77.1.1"
"""This process in the network where a cloud's machines have their public addresses."""

PACKAGES = {
    "ip": "iproute2",
    "nft": "nftables",
    "tc": "iproute2",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "sudo": "sudo",
    "useradd": "passwd",
    "python3": "python3",
}


def why_not() -> str | None:
    """The reason why the lab cannot run here, if there is one."""
    if os.uname().sysname != "Linux":
        return "it needs the namespaces of Linux"
    if os.geteuid() != 0:
        return "it needs root, for namespaces of networks and mounts: sudo make lab"
    if missing := [tool for tool in PACKAGES if shutil.which(tool, path=PATH) is None]:
        packages = sorted({PACKAGES[tool] for tool in missing})
        return f"{', '.join(missing)} missing: apt-get install --no-install-recommends {' '.join(packages)}"
    tried = subprocess.run(["unshare", "-mnpui", "-f", "true"], capture_output=True, text=True, check=False)
    return f"namespaces are refused here: {tried.stderr.strip()}" if tried.returncode else None


def enter() -> None:
    """Move this process to a network without any way out. Threads that it already has stay behind."""
    os.unshare(os.CLONE_NEWNET | os.CLONE_NEWNS)
    sh("mount", "--make-rprivate", "/")
    sh("ip", "link", "set", "lo", "up")
    for bridge in ("labbr", "labin"):
        sh("ip", "link", "add", bridge, "type", "bridge", "forward_delay", "0")
        sh("ip", "link", "set", bridge, "up")
    for address in ("10.77.0.1/24", f"{NEAR}/24", "169.254.169.254/32"):
        sh("ip", "addr", "add", address, "dev", "labbr")


def far(host: Host) -> str:
    """The public address of a host that has one."""
    return f"10.77.1.{host.spec.number}"


class Key:
    """A key pair: the private half as OpenSSH writes it, the public half as a line."""

    def __init__(self) -> None:
        key = Ed25519PrivateKey.generate()
        form, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        self.private = key.private_bytes(serialization.Encoding.PEM, form, plain)
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        self.public = public.decode()


class Lab:
    """Hosts, after `enter`. Its methods may be called from any thread.

    Attributes
    ----------
    folder
        Where keys and configuration are.
    config
        A configuration of ssh in which every host has its name as alias.
    known_hosts
        The host keys, each made before its host.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config, self.known_hosts = folder / "config", folder / "known_hosts"
        self._layers = folder / "layers"
        self._hosts: dict[int, Host] = {}
        self._taken: set[int] = set()
        self._keys: dict[str, Path] = {}
        self._lock = threading.RLock()
        self._using = threading.Lock()
        # a host dies with the thread that forked it, so one that lives as long as the lab forks them all
        self._forking = ThreadPoolExecutor(1, "forking")
        self._write()

    def start(
        self,
        name: str = "",
        *,
        accounts: Sequence[str] = ("ubuntu",),
        port: int = 22,
        slow: bool = False,
        behind: Host | None = None,
        python: bool = False,
        used: bool = False,
        memory: int | None = None,
        cpus: float | None = None,
        disk: str = "512m",
        userdata: bytes = b"",
        sshd: str = "",
        public: bool = False,
        seed: Mapping[str, bytes] | None = None,
    ) -> Host:
        """Start a host, and return when its sshd listens.

        Parameters
        ----------
        accounts
            The first may use sudo; each has a key of its own: `key(account)`.
        slow
            Whether `Host.slow` is wanted.
        behind
            The host through which alone it can be reached.
        python
            Whether it has the Python of this process, without pip, as its own.
        used
            Whether it was a node before, for the account `ubuntu`: it finds in its cache what a node is made of.
        memory, cpus
            Limits, in bytes and processors.
        disk
            The size of its disk.
        userdata
            A script that runs as root at every boot.
        sshd
            Lines for the configuration of sshd, before the lab's own; one about `Subsystem` replaces that of SFTP.
        public
            Whether it has a public address, too: `far(host)`.
        seed
            More files of its first boot, or others; see `boot.sh`.
        """
        if slow and not netem() and not os.access("/dev/net/tun", os.W_OK):
            raise Unavailable("this kernel has no netem, and /dev/net/tun cannot be written")
        key = Key()
        home = str(self.home()) if used else ""
        with self._lock:
            number = next(each for each in range(11, 250) if each not in self._taken)
            self._taken.add(number)
            lower = f"{self.python()}:/" if python or used else "/"
            seeded = {
                "ssh_host_ed25519_key": key.private,
                "ssh_host_ed25519_key.pub": key.public.encode(),
                "port": str(port).encode(),
                "sudoers": f"{accounts[0]}\n".encode(),
                "userdata": userdata,
                "sshd_extra": sshd.encode(),
                **{f"accounts/{account}": self._public(account).encode() for account in accounts},
                **(seed or {}),
            }
            name = name or f"node-{number}"
            spec = Spec(
                name, number, tuple(accounts), port, lower, home, disk, slow, behind, memory, cpus, public, seeded
            )
            if behind is not None:
                self._admit(behind)
        host = Host(spec, self.folder, key.public, self._fork)
        with self._lock:
            self._hosts[number] = host
            self._write()
        return host

    def start_many(self, count: int, **more: object) -> list[Host]:
        """Start that many hosts at once."""
        with ThreadPoolExecutor(count) as starting:
            return list(starting.map(lambda _: self.start(**more), range(count)))  # type: ignore[arg-type]

    def end(self, host: Host) -> None:
        """End a host, and forget it."""
        host.kill()
        with self._lock:
            if self._hosts.pop(host.spec.number, None):
                self._taken.discard(host.spec.number)
                self._write()

    def key(self, account: str) -> Path:
        """The private key by which an account logs in to every host that has it."""
        with self._lock:
            if account not in self._keys:
                made, self._keys[account] = Key(), self.folder / f"key-{account}"
                self._keys[account].touch(0o600)
                self._keys[account].write_bytes(made.private)
                self._keys[account].with_suffix(".pub").write_text(f"{made.public}\n")
            return self._keys[account]

    def destination(self, host: Host, account: str | None = None) -> Target:
        """How to reach a host: by its alias in the lab's configuration."""
        key = (str(self.key(account)),) if account else ()
        return Target(host.name, user=account, keys=key, config=(str(self.config),))

    def close(self) -> None:
        """End every host."""
        for host in list(self._hosts.values()):
            self.end(host)
        self._forking.shutdown()
        if self._layers.is_mount():
            sh("umount", str(self._layers))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _public(self, account: str) -> str:
        return self.key(account).with_suffix(".pub").read_text()

    def python(self) -> Path:
        """Return the layer with Python, in a file system of its own: a layer cannot lie in another."""
        if not self._layers.is_mount():
            self._layers.mkdir()
            sh("mount", "-t", "tmpfs", "-o", "size=300m", "layers", str(self._layers))
        return layer.python(self._layers / "python")

    def home(self) -> Path:
        """Return the home of an account that a node has run for, with all that was put into its cache."""
        with self._using:
            if not (home := self._layers / "home").exists():
                host = self.start(python=True)
                provider = sky.SSH(hosts=[host.name], config=self.config)
                with sky.Compute(provider=provider, options=sky.Options(console="off", record=False)):
                    pass
                sh("cp", "-a", f"/proc/{host.pid}/root/home/ubuntu", str(home))
                shutil.rmtree(home / ".ssh")
                self.end(host)
            return home

    def _fork(self, words: list[str], environment: dict[str, str] | None) -> subprocess.Popen[bytes]:
        """Start a command that dies with this process."""

        def fork() -> subprocess.Popen[bytes]:
            with (self.folder / "forked.log").open("ab") as log:
                return subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", *words],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )

        return self._forking.submit(fork).result()

    def _admit(self, jump: Host) -> None:
        """Give a host a second address, in the network behind it."""
        line = f"lab{jump.spec.number}in"
        with self._lock:
            if Path(f"/sys/class/net/{line}").exists():
                return
            sh("ip", "link", "add", line, "type", "veth", "peer", "name", "eth1", "netns", str(jump.pid))
            sh("ip", "link", "set", line, "master", "labin", "up")
            jump.run(f"ip addr add 10.77.2.{jump.spec.number}/24 dev eth1 && ip link set eth1 up")

    def _write(self) -> None:
        """Write configuration and host keys anew."""
        lines, known = [], []
        for host in self._hosts.values():
            spec = host.spec
            lines += [f"Host {spec.name}", f"  HostName {host.address}", f"  Port {spec.port}"]
            lines += [f"  User {host.account}", f"  IdentityFile {self.key(host.account)}"]
            lines += [f"  ProxyJump {spec.behind.name}"] if spec.behind else []
            known.append(f"{host.place} {host.key}")
        common = [f"  UserKnownHostsFile {self.known_hosts}", "  GlobalKnownHostsFile /dev/null"]
        self.config.write_text("\n".join([*lines, "Host *", *common, "  IdentitiesOnly yes", "  BatchMode yes", ""]))
        self.known_hosts.write_text("".join(f"{line}\n" for line in known))
