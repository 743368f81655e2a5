"""Resolve a destination with the user's SSH configuration, by `ssh -G`: no library supports all that `ssh` does."""

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
"""Files that are read if `ssh` is not installed."""

USUAL_KEYS = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_ed448", "id_dsa")
"""Keys that are tried if `ssh` is not installed and no file names others."""

USER_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
SYSTEM_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
"""Files of host keys, unless the configuration names others."""

RESOLVE_TIMEOUT_S = 15.0
"""Seconds for `ssh -G`, which may run commands (`Match exec`) and resolve names."""

TCP_CONNECT_TIMEOUT_S = 5.0
"""Seconds for a TCP connection, unless the configuration has a `ConnectTimeout`."""

UNSUPPORTED = {"bindinterface": "", "revokedhostkeys": "none", "proxyusefdpass": "no"}
"""Keywords that Skyward does not support and must not ignore, with the value that turns them off."""

ALGORITHMS = ("ciphers", "kexalgorithms", "macs", "hostkeyalgorithms", "casignaturealgorithms")

ADDRESS_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}

_UNSAFE = re.compile(r"^-|[\s'\"`$\\;&<>|(){}\x00-\x1f\x7f]")
"""Not allowed in names of hosts and users, as the configuration may insert them into shell commands."""


@dataclass(frozen=True, slots=True)
class ResolvedTarget:
    """How to connect to a destination.

    Attributes
    ----------
    host, port, user
        Where to connect, and the user to log in as.
    alias
        The name of the machine in `known_hosts`, if it is not the address.
    jump
        Jump hosts, as in `ssh -J`; empty for none.
    proxy
        The command whose standard streams are the connection; empty for none.
    files
        The `known_hosts` files, the user's before the system's.
    keys
        The private keys to try: paths of files that exist, or the keys themselves.
    missing
        Key files that the configuration names and that do not exist; default keys are not listed.
    given
        Whether the keys were passed by the user, so that each must be readable.
    certificates
        Files of certificates for the keys.
    agent
        The socket of the agent; an empty string for that of `SSH_AUTH_SOCK`, None for no agent.
    identities_only
        Whether the agent's keys are limited to those in `keys`.
    connect_timeout
        Seconds for the TCP connection.
    family, bind
        The address family, and the local address to connect from, if any.
    algorithms
        The algorithms that the user has chosen, by keyword.
    settings
        All settings of the configuration.
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
        """Resolve a destination with the configuration as it is now.

        Raises
        ------
        ValueError
            The configuration cannot be read, or uses what Skyward does not support.
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
            except ValueError:  # `ssh -G` has replaced all tokens; this only looks like one
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
            connect_timeout=float(first("connecttimeout") or TCP_CONNECT_TIMEOUT_S),
            family=ADDRESS_FAMILIES.get(first("addressfamily"), socket.AF_UNSPEC),
            bind=first("bindaddress") or None,
            algorithms=_algorithms(settings),
            settings=settings,
        )

    @property
    def direct(self) -> bool:
        """Whether it is reached without jump hosts and proxy commands."""
        return not self.jump and not self.proxy

    @property
    def name(self) -> str:
        """The name of the machine in `known_hosts` files."""
        return self.alias or (self.host if self.port == 22 else f"[{self.host}]:{self.port}")


def home() -> str:
    """Return the user's home as `ssh` determines it: from the user database, not from `$HOME`."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return os.path.expanduser("~")


def _is_usual(key: str) -> bool:
    """Whether `ssh` tries this key by default."""
    return os.path.basename(os.path.dirname(key)) == ".ssh" and os.path.basename(key).startswith("id_")


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in containers
        return str(os.getuid())


def program() -> str | None:
    """Return the path of `ssh`. None if it is missing, or if it would refuse to run for a user without a name."""
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
    words += ["-o", f"ProxyJump={','.join(map(str, hops(to.jump))) or 'none'}"] if to.jump is not None else []
    return ssh_config.parse(_ask(ssh, *words, "--", to.host))


def _ask(ssh: str, *words: str) -> str:
    """Return the output of `ssh -G`."""
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
            os.killpg(asked.pid, signal.SIGKILL)  # including commands of `Match exec`
            if isinstance(error, subprocess.TimeoutExpired):
                said = f"{words[-1]}: `ssh -G` did not answer within {RESOLVE_TIMEOUT_S:g} s; does a `Match exec` hang?"
                raise Unreachable(said) from error
            raise
    if asked.returncode:
        raise ValueError(f"`ssh -G` says: {err.strip() or f'exit code {asked.returncode}'}")
    return out


@functools.cache
def _usual(ssh: str) -> Settings:
    """Return the settings of this `ssh` without any configuration."""
    return ssh_config.parse(_ask(ssh, "-F", "none", "--", "localhost"))


def _algorithms(settings: Settings) -> Mapping[str, Sequence[str]]:
    ssh = program() if settings.keys() & set(ALGORITHMS) else None
    usual = _usual(ssh) if ssh else {}
    found = {each: ssh_config.changed(settings, usual, each) for each in ALGORITHMS}
    return {each: names for each, names in found.items() if names is not None}


def _proxy(command: str) -> Sequence[str]:
    """Return the command that runs a shell command like `ssh`: in the user's shell."""
    return [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"] if command else ()


def _agent(said: str, path: Callable[[str], str]) -> str | None:
    """Return the socket of the agent that an `IdentityAgent` setting names."""
    match said:
        case "" | "SSH_AUTH_SOCK":
            return ""
        case "none":
            return None
        case _ if said.startswith("$") and not said.startswith("${"):
            return os.environ.get(said[1:]) or None
        case _:
            return path(said)
