"""How an SSH connection comes about: as `ssh` would make it, but never trusting a host key that is not known.

What `ssh` reads is read: aliases, users, ports, keys, jump hosts, proxy commands and the agent, from `~/.ssh/config`
and the system's. Not taken from there: keepalives and compression, what concerns terminals, agents and other forwards,
and any wish to trust a host key that is not known.
"""

import asyncio
import contextlib
import getpass
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from skyward.errors import MissingExtra, Unreachable
from skyward.providers import destination
from skyward.providers.destination import Destination, Distrusted, NotAllowed, Refused
from skyward.providers.traffic import ALIVE, MISSED

try:
    import asyncssh
except ImportError as missing:
    raise MissingExtra.of("asyncssh", "ssh") from missing

CONFIG = (os.path.expanduser("~/.ssh/config"), "/etc/ssh/ssh_config")
"""What `ssh` reads unless it is told otherwise."""

CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""Put before asyncssh's own choice, which begins with chacha20.

By `python -m bench tunnel`, alone on two cores, medians of 7 in two runs: with 128 bits ours is 0.98-1.01 (up) and
0.90-0.94 (down) times as fast as `ssh -L` by its own choice, chacha20, and 0.73-0.76 and 0.88-0.96 times as `ssh -L` by
ours. 256 bits are as fast within the noise (0.96 and 0.94, 0.81 and 0.88), chacha20 is not (0.64 and 0.81, 0.52 and
0.82). What is missing up is asyncssh's work for each packet of 32 KiB, among it an empty one before it.
"""

CONNECT, LOGIN = 5.0, 15.0
"""Seconds for a connection, and for the login on it."""

USUAL = ("id_ed25519_sk", "id_ecdsa_sk", "id_ed448", "id_ed25519", "id_ecdsa", "id_rsa", "id_dsa")
"""The files of keys that are tried without being named."""

MANY = 1_000_000
"""Signs of life that may be missing where `Tunnel` looks itself: asyncssh counts each that is not answered in time."""

CIRCLE = 8
"""Jump hosts on the way to jump hosts, beyond which they lead in a circle."""


FINAL = (
    asyncssh.HostKeyNotVerifiable,
    asyncssh.KeyExchangeFailed,
    asyncssh.ProtocolNotSupported,
    ValueError,  # a key or a configuration that cannot be read
)
"""What will not be otherwise the next time."""


class _Client(asyncssh.SSHClient):
    """Trusts no key beyond those it was told of; keeps the one that came."""

    key: asyncssh.SSHKey | None = None
    mark = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.key = key
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.key, self.mark = key, "@cert-authority "
        return False


class _Dial:
    """How asyncssh gets its TCP connection: with a limit of its own, as the login may take longer."""

    def __init__(self, options: asyncssh.SSHClientConnectionOptions) -> None:
        self._more: dict[str, Any] = {"family": options.family, "local_addr": options.local_addr}

    async def create_connection(self, session: Any, host: str, port: int) -> Any:
        async with asyncio.timeout(CONNECT):
            return await asyncio.get_running_loop().create_connection(session, host, port, **self._more)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the configuration makes of a destination."""

    options: asyncssh.SSHClientConnectionOptions
    more: dict[str, Any]
    files: list[str]
    trust: asyncssh.SSHKnownHosts

    @classmethod
    def of(cls, to: Destination) -> "Plan":
        """Read the configuration, as it says now, and the host keys."""
        more: dict[str, Any] = {"host": to.host, "port": () if to.port is None else to.port}
        more |= {"username": () if to.user is None else to.user}
        more |= {"config": [each for each in CONFIG if os.access(each, os.R_OK)] if to.config is None else [*to.config]}
        more |= {"host_key_alias": to.alias} if to.alias is not None else {}
        options = asyncssh.SSHClientConnectionOptions(**more, client_keys=None, known_hosts=b"")
        get = options.config.get
        if to.keys:
            more |= {"client_keys": [*to.keys]}
        elif named := get("IdentityFile"):  # of which `ssh` passes over those that are not there
            paths = [Path(each).expanduser() for each in cast("list[str]", named)]
            more |= {"client_keys": [str(each) for each in paths if each.exists()], "ignore_encrypted": True}
        if not to.agent or (get("IdentitiesOnly") and more.get("client_keys") == []):
            more |= {"agent_path": None}
        home = str(Path.home())
        tokens = {"%": "%", "d": home, "h": options.host, "n": to.host, "p": str(options.port), "r": options.username}
        user, system = destination.known_hosts(
            cast("list[str] | None", get("UserKnownHostsFile")),
            cast("list[str] | None", get("GlobalKnownHostsFile")),
            tokens | {"k": options.host_key_alias or to.host, "u": getpass.getuser()},
        )
        files = [*user, *system]
        lines = [to.trust] if to.trust is not None else [_read(file) for file in files]
        return cls(options, more, files, _known("\n".join(lines)))

    @property
    def direct(self) -> bool:
        """Whether the configuration leads to it by no other machine and no command."""
        return not self.options.tunnel and not self.options.proxy_command

    @property
    def name(self) -> str:
        """What a known_hosts file calls the machine."""
        if self.options.host_key_alias:
            return self.options.host_key_alias
        return self.options.host if self.options.port == 22 else f"[{self.options.host}]:{self.options.port}"


async def login(
    to: Destination, via: asyncssh.SSHClientConnection | None = None, depth: int = 0
) -> asyncssh.SSHClientConnection:
    """Connect and log in, as `ssh` would."""
    client, plan = _Client(), None
    try:
        plan = await asyncio.to_thread(Plan.of, to)
        jump = plan.options.tunnel if to.jump is None else to.jump
        if via is None and isinstance(jump, str) and jump:
            via = await _through(jump, to, depth)
        tunnel: Any = via or (None if plan.options.proxy_command else _Dial(plan.options))
        connection = await asyncssh.connect(
            **plan.more,
            client_factory=lambda: client,
            tunnel=tunnel,
            known_hosts=plan.trust,
            encryption_algs=plan.options.config.get("Ciphers") or CIPHERS,
            compression_algs=None,
            connect_timeout=None,
            login_timeout=LOGIN,
            keepalive_interval=ALIVE,
            keepalive_count_max=MANY if isinstance(tunnel, _Dial) else MISSED,
            request_pty=False,
            agent_forwarding=False,
            x11_forwarding=False,
        )
    except BaseException as error:
        if via is not None:
            via.abort()
        if isinstance(error, asyncssh.HostKeyNotVerifiable) and plan is not None and client.key is not None:
            raise Distrusted(_distrusted(to, plan, client.key, client.mark)) from error
        if isinstance(error, asyncssh.PermissionDenied):
            user = plan.options.username if plan is not None else to.user
            raise NotAllowed(f"{to}: {user} may not log in with the keys there are: {error}") from error
        if isinstance(error, FINAL):
            raise Refused(f"{to}: {error}") from error
        if isinstance(error, TimeoutError):
            raise Unreachable(f"{to}: it does not answer") from error
        if isinstance(error, OSError | asyncssh.Error):
            raise Unreachable(f"{to}: {error}") from error
        raise
    connection.set_tunnel(via)  # which then ends with it
    return connection


async def surveyed(to: Destination) -> "Plan":
    """Read what the configuration makes of a destination.

    Raises
    ------
    Refused
        It cannot be read.
    """
    try:
        return await asyncio.to_thread(Plan.of, to)
    except ValueError as error:
        raise Refused(f"{to}: {error}") from error


async def keys(plan: Plan, agent: bool) -> tuple[list[str], list[str]]:
    """Return the keys that there are to log in with, by file or as the agent's; and what is wrong with others."""
    there = [Path.home() / ".ssh" / name for name in USUAL]
    found, wrong = [], []
    for each in plan.more.get("client_keys", [str(path) for path in there if path.exists()]):
        name = "a key" if isinstance(each, bytes) else each
        try:
            await asyncio.to_thread(_readable, each)
            found.append(name)
        except asyncssh.KeyEncryptionError:
            wrong.append(f"{name} needs a passphrase")
        except OSError as error:
            wrong.append(f"{name}: {error.strerror}")
        except ValueError as error:
            wrong.append(f"{name}: {error}")
    if agent and plan.more.get("agent_path", "") is not None:
        with contextlib.suppress(OSError, asyncssh.Error):
            async with asyncssh.connect_agent() as asked:
                found += [f"{len(held)} of the agent"] if (held := await asked.get_keys()) else []
    return found, wrong


def _readable(key: str | bytes) -> None:
    asyncssh.import_private_key(key) if isinstance(key, bytes) else asyncssh.read_private_key(key)


async def _through(jump: str, to: Destination, depth: int) -> asyncssh.SSHClientConnection | None:
    """Connect to the last of the jump hosts."""
    if depth == CIRCLE:
        raise Refused(f"{to}: the jump hosts on the way to it lead in a circle")
    via = None
    for hop in destination.hops(jump):
        keys = (
            to.keys if to.config == () else ()
        )  # as `ssh -i` is not for jump hosts either, if they can have their own
        via = await login(replace(hop, config=to.config, agent=to.agent, keys=keys), via, depth + 1)
    return via


def _distrusted(to: Destination, plan: Plan, key: asyncssh.SSHKey, mark: str) -> str:
    """Say what is wrong with a host key, and which line of which file would accept it."""
    kind, data, *_ = key.export_public_key().decode().split()
    shown = destination.Shown(mark + plan.name, kind, data, key.get_fingerprint())
    if to.trust is not None:
        return f"{to}: it shows another host key than the one it was given: {kind} {shown.print}"
    places = [
        f"{file} (line {number})"
        for file in plan.files
        for number, line in enumerate(_read(file).splitlines(), 1)
        if any(_known(line).match(plan.options.host_key_alias or plan.options.host, "", plan.options.port)[:3])
    ]
    if places:
        return destination.changed(to, shown, places, plan.files[0])
    return destination.unknown(to, shown, plan.files[0])


def _known(lines: str) -> asyncssh.SSHKnownHosts:
    """Host keys, without the lines that cannot be read, as `ssh` has it."""
    try:
        return asyncssh.import_known_hosts(lines)
    except ValueError:
        found = asyncssh.SSHKnownHosts()
        for line in lines.splitlines():
            with contextlib.suppress(ValueError):
                found.load(line)
        return found


def _read(file: str) -> str:
    try:
        return Path(file).read_text(errors="replace")
    except OSError:
        return ""
