"""Resolve a destination with the configuration of SSH, by `ssh -G`: no library resolves it as `ssh` does."""

import functools
import getpass
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skyward.errors import Unreachable
from skyward.providers.ssh import ssh_config
from skyward.providers.ssh.ssh_config import Settings
from skyward.providers.ssh.target import Target, hops

CONFIG = ("~/.ssh/config", "/etc/ssh/ssh_config")
"""Files that are read where there is no `ssh`."""

USUAL_KEYS = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_ed448", "id_dsa")
"""Keys that are tried where no `ssh` says which."""

USER_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
SYSTEM_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
"""Files of host keys unless the configuration names others."""

RESOLVE_TIMEOUT_S = 15.0
"""Seconds for `ssh -G`, which may run the commands of `Match exec` and look names up."""

CONNECT_TIMEOUT_S = 5.0
"""Seconds for a TCP connection, unless the configuration has a `ConnectTimeout`."""

UNSUPPORTED = {"bindinterface": "", "revokedhostkeys": "none", "proxyusefdpass": "no"}
"""Keywords that cannot be followed and may not be ignored, with the value that asks for nothing."""

ALGORITHMS = ("ciphers", "kexalgorithms", "macs", "hostkeyalgorithms", "casignaturealgorithms")

FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}

_UNSAFE = re.compile(r"^-|[\s'\"`$\\;&<>|(){}\x00-\x1f\x7f]")
"""What no name may have that gets into the commands of a configuration."""


@dataclass(frozen=True, slots=True)
class ResolvedTarget:
    """How to connect to a destination.

    Attributes
    ----------
    host, port, user
        Where to connect, and whom to log in as.
    alias
        The name by which its host key is known, if that is not its address.
    jump
        Machines to go through, as in `ssh -J`; empty for none.
    proxy
        The command whose standard streams are the connection; empty for none.
    files
        The files of known host keys, the user's before the system's.
    keys
        The private keys to try: paths of files that exist, or the keys themselves.
    missing
        Files that the configuration names as keys, and that are not there; not the usual ones.
    given
        Whether the keys are the destination's own, each of which must be readable.
    certificates
        Files of certificates for the keys.
    agent
        The socket of the agent, an empty string for the usual one, None for no agent.
    identities_only
        Whether of the agent's keys only those in `keys` are used.
    connect_timeout
        Seconds for the TCP connection.
    family, bind
        The family of addresses, and the local address to connect from, if there is one.
    algorithms
        The algorithms that the user has chosen, by keyword.
    settings
        All that the configuration says.
    """

    host: str
    port: int
    user: str
    alias: str | None
    jump: str
    proxy: Sequence[str]
    files: Sequence[str]
    keys: Sequence[str | bytes]
    missing: Sequence[str]
    given: bool
    certificates: Sequence[str]
    agent: str | None
    identities_only: bool
    connect_timeout: float
    family: int
    bind: str | None
    algorithms: Mapping[str, Sequence[str]]
    settings: Settings

    @classmethod
    def of(cls, to: Target) -> "ResolvedTarget":
        """Ask what the configuration says now.

        Raises
        ------
        ValueError
            The configuration cannot be read or followed; trying again does not help.
        Unreachable
            `ssh -G` did not answer in time.
        """
        for what, name in (("host", to.host), ("user", to.user or "")):
            if _UNSAFE.search(name):
                raise ValueError(f"{name!r} is not the name of a {what}")
        settings = _settings(to)

        def first(keyword: str, usual: str = "") -> str:
            value = settings.get(keyword, [usual])[0]
            return "" if value == "none" else value

        for keyword, nothing in UNSUPPORTED.items():
            if first(keyword, nothing) not in (nothing, ""):
                raise ValueError(
                    f"the configuration of ssh says {keyword}, which Skyward does not support; remove it there"
                )
        host, port = first("hostname") or to.host, int(first("port") or to.port or 22)
        user, alias = first("user") or to.user or _local_user(), to.alias or first("hostkeyalias") or None
        jump = first("proxyjump") if to.jump is None else to.jump
        local = socket.gethostname()
        names = {"h": host, "n": to.host, "p": str(port), "r": user, "k": alias or to.host, "j": jump, "%": "%"}
        tokens = {"d": home(), "u": _local_user(), "i": str(os.getuid()), "l": local, "L": local.split(".")[0]}
        tokens |= names

        def path(text: str) -> str:
            text = re.sub("^~(?=/|$)", "%d", text)
            return os.path.expanduser(ssh_config.expand(text, tokens, os.environ))

        def maybe(text: str) -> str:
            try:
                return path(text)
            except ValueError:  # `ssh -G` has replaced the tokens, and what is left only looks like one
                return text

        hosts = [first("userknownhostsfile", USER_HOSTS), first("globalknownhostsfile", SYSTEM_HOSTS)]
        named = settings.get("identityfile", [f"~/.ssh/{name}" for name in USUAL_KEYS])
        identities = [path(each) for each in named if each != "none"]
        return cls(
            host=host,
            port=port,
            user=user,
            alias=alias,
            jump=ssh_config.expand(jump, names, {}),
            proxy=_proxy(ssh_config.expand(first("proxycommand"), names, {})) if not jump else (),
            files=[maybe(each) for value in hosts if value for each in ssh_config.paths(value)],
            keys=to.keys or [each for each in identities if os.path.exists(each)],
            missing=() if to.keys else [each for each in identities if not (os.path.exists(each) or _is_usual(each))],
            given=bool(to.keys),
            certificates=[each for value in settings.get("certificatefile", ()) if os.path.exists(each := path(value))],
            agent=_agent(settings.get("identityagent", [""])[0], maybe) if to.agent else None,
            identities_only=first("identitiesonly") == "yes",
            connect_timeout=float(first("connecttimeout") or CONNECT_TIMEOUT_S),
            family=FAMILIES.get(first("addressfamily"), socket.AF_UNSPEC),
            bind=first("bindaddress") or None,
            algorithms=_algorithms(settings),
            settings=settings,
        )

    @property
    def direct(self) -> bool:
        """Whether the configuration leads to it by no other machine and no command."""
        return not self.jump and not self.proxy

    @property
    def name(self) -> str:
        """What a known_hosts file calls the machine."""
        return self.alias or (self.host if self.port == 22 else f"[{self.host}]:{self.port}")


def home() -> str:
    """Return the folder that `ssh` takes for the user's home: it does not look at `$HOME`."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return os.path.expanduser("~")  # as it is where there is none: then no file is found below it


def _is_usual(key: str) -> bool:
    """Whether `ssh` looks for this key without being told to."""
    return os.path.basename(os.path.dirname(key)) == ".ssh" and os.path.basename(key).startswith("id_")


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a name
        return str(os.getuid())


def program() -> str | None:
    """Return the path of `ssh`; None where there is none, or none that would run: it wants an entry for the user."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return None
    return shutil.which("ssh")


def _settings(to: Target) -> Settings:
    if to.config == ():
        return {}
    if to.config is not None and len(to.config) > 1:
        raise ValueError(f"there are {len(to.config)} configuration files; give one, which may include others")
    ssh = program()
    if ssh is None:
        files = [os.path.expanduser(each) for each in to.config or CONFIG]
        try:
            there = [each for each in files if to.config or os.path.exists(each)]
            texts = {each: Path(each).read_text(errors="replace") for each in there}
        except OSError as error:
            raise ValueError(f"{error.filename}: {error.strerror}") from error
        said = ssh_config.read(texts, to.host)
        return said | ({"port": [str(to.port)]} if to.port else {}) | ({"user": [to.user]} if to.user else {})
    words = ["-F", *to.config] if to.config else []
    words += ["-p", str(to.port)] if to.port else []
    words += ["-l", to.user] if to.user else []
    words += ["-o", f"ProxyJump={_jump(to.jump)}"] if to.jump is not None else []
    return ssh_config.parse(_ask(ssh, *words, "--", to.host))


def _ask(ssh: str, *words: str) -> str:
    """Return what `ssh -G` prints."""
    try:
        asked = subprocess.Popen(
            [ssh, "-G", "-T", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise Unreachable(f"{ssh} cannot be started: {error.strerror}") from error
    with asked:
        try:
            out, err = asked.communicate(timeout=RESOLVE_TIMEOUT_S)
        except BaseException as error:
            os.killpg(asked.pid, signal.SIGKILL)  # with what `Match exec` has started
            if isinstance(error, subprocess.TimeoutExpired):
                said = f"{words[-1]}: `ssh -G` did not answer within {RESOLVE_TIMEOUT_S:g} s; does a `Match exec` hang?"
                raise Unreachable(said) from error
            raise
    if asked.returncode:
        raise ValueError(f"`ssh -G` says: {err.strip() or f'exit code {asked.returncode}'}")
    return out


def _jump(jump: str) -> str:
    """Write jump hosts as `ssh` wants them: with brackets around each IPv6 address."""
    said = []
    for hop in hops(jump) if jump else ():
        host = f"[{hop.host}]" if ":" in hop.host else hop.host
        said.append(f"{f'{hop.user}@' if hop.user else ''}{host}{f':{hop.port}' if hop.port else ''}")
    return ",".join(said) or "none"


@functools.cache
def _usual(ssh: str) -> Settings:
    """Return what this `ssh` has without any configuration."""
    return ssh_config.parse(_ask(ssh, "-F", "none", "--", "localhost"))


def _algorithms(settings: Settings) -> Mapping[str, Sequence[str]]:
    ssh = program() if settings.keys() & set(ALGORITHMS) else None
    usual = _usual(ssh) if ssh else {}
    found = {each: ssh_config.changed(settings, usual, each) for each in ALGORITHMS}
    return {each: names for each, names in found.items() if names is not None}


def _proxy(command: str) -> Sequence[str]:
    """Have the user's shell run a command, as `ssh` does."""
    return [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"] if command else ()


def _agent(said: str, path: Callable[[str], str]) -> str | None:
    """Return the socket of the agent that the configuration names."""
    match said:
        case "" | "SSH_AUTH_SOCK":
            return ""
        case "none":
            return None
        case _ if said.startswith("$") and not said.startswith("${"):
            return os.environ.get(said[1:]) or None
        case _:
            return path(said)
