"""Open an SSH connection as `ssh` would, but never trust an unknown host key.

`ssh -G` says what the configuration makes of a host: names, users, ports, keys, jump hosts, proxy commands, the agent.
Not taken from there: keepalives and compression, what concerns terminals, agents and other forwards, and any wish to
trust a host key that is not known.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skyward import extras
from skyward.errors import Unreachable
from skyward.providers.ssh import login_keys, target
from skyward.providers.ssh.resolve import ResolvedTarget
from skyward.providers.ssh.target import Distrusted, NotAllowed, Refused, Target
from skyward.providers.ssh.tcp_info import KEEPALIVE_INTERVAL_S, MAX_MISSED_KEEPALIVES

try:
    import asyncssh
    from asyncssh.encryption import get_encryption_algs
    from asyncssh.kex import get_kex_algs
    from asyncssh.mac import get_mac_algs
    from asyncssh.public_key import get_certificate_algs, get_public_key_algs
except ImportError as missing:
    raise extras.missing("asyncssh", "ssh") from missing

CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
"""Put before asyncssh's own choice, which begins with chacha20.

By `python -m bench tunnel`, alone on two cores, medians of 7 in two runs: with 128 bits ours is 0.98-1.01 (up) and
0.90-0.94 (down) times as fast as `ssh -L` by its own choice, chacha20, and 0.73-0.76 and 0.88-0.96 times as `ssh -L` by
ours. 256 bits are as fast within the noise (0.96 and 0.94, 0.81 and 0.88), chacha20 is not (0.64 and 0.81, 0.52 and
0.82). What is missing up is asyncssh's work for each packet of 32 KiB, among it an empty one before it.
"""

LOGIN = 15.0
"""Seconds for the login on a connection."""

MANY = 1_000_000
"""Signs of life that may be missing where `Tunnel` looks itself: asyncssh counts each that is not answered in time."""

CIRCLE = 8
"""Jump hosts on the way to jump hosts, beyond which they lead in a circle."""


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

    def __init__(self, plan: ResolvedTarget) -> None:
        self._timeout = plan.connect_timeout
        self._more: dict[str, Any] = {"family": plan.family}
        self._more |= {"local_addr": (plan.bind, 0)} if plan.bind else {}

    async def create_connection(self, session: Any, host: str, port: int) -> Any:
        async with asyncio.timeout(self._timeout):
            return await asyncio.get_running_loop().create_connection(session, host, port, **self._more)


ALGORITHMS: dict[str, tuple[str, Callable[[], list[bytes]]]] = {
    "ciphers": ("encryption_algs", get_encryption_algs),
    "kexalgorithms": ("kex_algs", get_kex_algs),
    "macs": ("mac_algs", get_mac_algs),
    "hostkeyalgorithms": ("server_host_key_algs", lambda: [*get_certificate_algs(), *get_public_key_algs()]),
    "casignaturealgorithms": ("signature_algs", get_public_key_algs),
}
"""What asyncssh calls the algorithms of a keyword, and which of them it has."""


@dataclass(frozen=True, slots=True)
class _LoginPlan:
    """A plan, and what asyncssh makes of it."""

    plan: ResolvedTarget
    options: dict[str, Any]
    trust: asyncssh.SSHKnownHosts

    @classmethod
    def of(cls, to: Target) -> "_LoginPlan":
        plan = ResolvedTarget.of(to)
        lines = [to.trust] if to.trust is not None else [_read(file) for file in plan.files]
        said: dict[str, Any] = {"encryption_algs": CIPHERS} | _algorithms(plan)
        said |= {"client_keys": login_keys.pairs(plan), "agent_path": plan.agent}
        if plan.identities_only:
            said["agent_identities"] = login_keys.public(plan.keys)
            said["agent_path"] = plan.agent if said["agent_identities"] else None
        if said["agent_path"] == "":
            del said["agent_path"]  # it is the usual one
        said |= {"local_addr": (plan.bind, 0)} if plan.bind else {}
        said |= {"host_key_alias": plan.alias, "family": plan.family, "proxy_command": plan.proxy or None}
        said |= {"send_env": plan.settings.get("sendenv", [])}
        said |= {"env": dict(each.split("=", 1) for each in plan.settings.get("setenv", ()) if "=" in each)}
        return cls(plan, said, _known("\n".join(lines)))


def _algorithms(plan: ResolvedTarget) -> dict[str, Sequence[str]]:
    """Return the algorithms that the user has chosen, less those that asyncssh does not have."""
    found: dict[str, Sequence[str]] = {}
    for keyword, names in plan.algorithms.items():
        argument, there = ALGORITHMS[keyword]
        found[argument] = [each for each in names if each.encode() in there()]
        if not found[argument]:
            raise ValueError(
                f"the configuration of ssh says {keyword}, but asyncssh supports none of these: {', '.join(names)}"
            )
    return found


async def login(
    to: Target, via: asyncssh.SSHClientConnection | None = None, depth: int = 0
) -> asyncssh.SSHClientConnection:
    """Connect and log in, as `ssh` would."""
    client, plan = _Client(), None
    try:
        way = await asyncio.to_thread(_LoginPlan.of, to)
        plan = way.plan
        if via is None and plan.jump:
            via = await _through(plan.jump, to, depth)
        tunnel: Any = via or (None if plan.proxy else _Dial(plan))
        connection = await asyncssh.connect(
            plan.host,
            plan.port,
            **way.options,
            config=None,
            username=plan.user,
            client_factory=lambda: client,
            tunnel=tunnel,
            known_hosts=way.trust,
            compression_algs=None,
            connect_timeout=None,
            login_timeout=LOGIN,
            keepalive_interval=KEEPALIVE_INTERVAL_S,
            keepalive_count_max=MANY if isinstance(tunnel, _Dial) else MAX_MISSED_KEEPALIVES,
            request_pty=False,
            agent_forwarding=False,
            x11_forwarding=False,
        )
    except BaseException as error:
        if via is not None:
            via.abort()
        if isinstance(error, asyncssh.HostKeyNotVerifiable) and plan is not None and client.key is not None:
            raise Distrusted(_distrusted(to, plan, client.key, client.mark)) from error
        if isinstance(error, asyncssh.PermissionDenied) and plan is not None:
            raise NotAllowed(f"{to}: {login_keys.denied(plan.user, await login_keys.keys(plan))}") from error
        if isinstance(error, OSError | ValueError | asyncssh.Error):
            raise _explained(error, to, plan) from error
        raise
    if via is not None:  # else it may have a ProxyCommand, which would be forgotten
        connection.set_tunnel(via)  # which then ends with it
    return connection


def _explained(error: Exception, to: Target, plan: ResolvedTarget | None) -> Unreachable:
    """Say in one line what kept us from logging in, and what to do about it."""
    place = f"{plan.host}:{plan.port}" if plan is not None else str(to)
    match error:
        case socket.gaierror(errno=socket.EAI_NONAME | socket.EAI_NODATA) | UnicodeError():
            return Refused(f"{to}: the host name {place.rpartition(':')[0]!r} is unknown. Is it spelled right?")
        case OSError(filename=str(file)):
            return Refused(f"{to}: cannot read {file}: {error.strerror}")
        case asyncssh.HostKeyNotVerifiable() | asyncssh.KeyExchangeFailed() | asyncssh.ProtocolNotSupported():
            return Refused(f"{to}: {error}")
        case ValueError():  # a key or a configuration that cannot be read
            return Refused(f"{to}: {error}")
        case TimeoutError():
            return Unreachable(f"{to}: {place} does not answer. Is it on, and does a firewall let you through?")
        case ConnectionRefusedError():
            return Unreachable(f"{to}: cannot connect to {place}: connection refused. Is sshd running there?")
        case OSError():
            return Unreachable(f"{to}: cannot connect to {place}: {error.strerror or error}")
        case _:
            return Unreachable(f"{to}: {error}")


async def surveyed(to: Target) -> ResolvedTarget:
    """Read what the configuration makes of a destination.

    Raises
    ------
    Refused
        It cannot be read.
    """
    try:
        return await asyncio.to_thread(ResolvedTarget.of, to)
    except ValueError as error:
        raise Refused(f"{to}: {error}") from error


async def _through(jump: str, to: Target, depth: int) -> asyncssh.SSHClientConnection | None:
    """Connect to the last of the jump hosts."""
    if depth == CIRCLE:
        raise Refused(f"{to}: its jump hosts form a loop")
    via = None
    for hop in target.hops(jump):
        keys = (
            to.keys if to.config == () else ()
        )  # as `ssh -i` is not for jump hosts either, if they can have their own
        via = await login(replace(hop, config=to.config, agent=to.agent, keys=keys), via, depth + 1)
    return via


def _distrusted(to: Target, plan: ResolvedTarget, key: asyncssh.SSHKey, mark: str) -> str:
    """Say what is wrong with a host key, and which line of which file would accept it."""
    kind, data, *_ = key.export_public_key().decode().split()
    shown = target.Shown(mark + plan.name, kind, data, key.get_fingerprint())
    if to.trust is not None:
        return f"{to}: it shows a host key other than the one it was given: {kind} {shown.print}"
    places = [
        f"{file} (line {number})"
        for file in plan.files
        for number, line in enumerate(_read(file).splitlines(), 1)
        if any(_known(line).match(plan.alias or plan.host, "", plan.port)[:3])
    ]
    file = plan.files[0] if plan.files else "~/.ssh/known_hosts"
    return target.changed(to, shown, places, file) if places else target.unknown(to, shown, file)


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
