"""Open an SSH connection as `ssh` would, but never trust an unknown host key.

Hosts, users, ports, keys, jump hosts, proxy commands and the agent are those of the user's configuration (`ssh -G`).
Its settings for keepalives, compression, terminals and forwarding are ignored, as is `StrictHostKeyChecking`.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
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
"""Preferred to asyncssh's first choice, chacha20.

In `python -m bench tunnel`, both are as fast as `ssh -L` with its own first choice (0.96 to 1.01 times up, 0.90 to 0.94
down), and chacha20 is slower (0.64 and 0.81).
"""

LOGIN_TIMEOUT_S = 15.0
"""Seconds for the login on an open connection."""

UNLIMITED_KEEPALIVES = 1_000_000
"""asyncssh counts every late answer as missed, so `tcp_info.closed` watches direct connections instead."""

MAX_JUMP_DEPTH = 8
"""Jump hosts that are reached through other jump hosts; a longer chain is taken for a loop."""


class _Client(asyncssh.SSHClient):
    """Accepts no host key that is not in `known_hosts`, and remembers the one that was refused."""

    key: asyncssh.SSHKey | None = None
    mark = ""

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.key = key
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.key, self.mark = key, "@cert-authority "
        return False


class _Dial:
    """Opens the TCP connection for asyncssh, with a timeout of its own: the login may take longer."""

    def __init__(self, plan: ResolvedTarget) -> None:
        self._timeout = plan.connect_timeout
        self._more: dict[str, Any] = {"family": plan.family}
        self._more |= {"local_addr": (plan.bind, 0)} if plan.bind else {}

    async def create_connection(self, session: Any, host: str, port: int) -> Any:
        async with asyncio.timeout(self._timeout):
            return await asyncio.get_running_loop().create_connection(session, host, port, **self._more)


ALGORITHM_OPTIONS: dict[str, tuple[str, Callable[[], list[bytes]]]] = {
    "ciphers": ("encryption_algs", get_encryption_algs),
    "kexalgorithms": ("kex_algs", get_kex_algs),
    "macs": ("mac_algs", get_mac_algs),
    "hostkeyalgorithms": ("server_host_key_algs", lambda: [*get_certificate_algs(), *get_public_key_algs()]),
    "casignaturealgorithms": ("signature_algs", get_public_key_algs),
}
"""For a keyword of `ssh_config`, the argument of asyncssh and the algorithms that asyncssh supports."""


def _options(plan: ResolvedTarget, trust: str | None) -> dict[str, Any]:
    """Return the arguments of `asyncssh.connect` for a target. Reads the files of keys and host keys."""
    lines = [trust] if trust is not None else [_read(file) for file in plan.files]
    options: dict[str, Any] = {
        "encryption_algs": CIPHERS,
        **_algorithms(plan),
        "known_hosts": _known("\n".join(lines)),
        "client_keys": login_keys.pairs(plan),
        "host_key_alias": plan.alias,
        "proxy_command": plan.proxy or None,
        "send_env": plan.settings.get("sendenv", []),
        "env": dict(each.split("=", 1) for each in plan.settings.get("setenv", ()) if "=" in each),
    }
    if plan.identities_only:
        options["agent_identities"] = login_keys.public(plan.keys)
    if plan.agent is None or (plan.identities_only and not options["agent_identities"]):
        options["agent_path"] = None
    elif plan.agent:  # else asyncssh uses `SSH_AUTH_SOCK`
        options["agent_path"] = plan.agent
    return options


def _algorithms(plan: ResolvedTarget) -> dict[str, Sequence[str]]:
    """Return the algorithms that the user has chosen, without those that asyncssh does not support."""
    found: dict[str, Sequence[str]] = {}
    for keyword, names in plan.algorithms.items():
        argument, there = ALGORITHM_OPTIONS[keyword]
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
        plan = await asyncio.to_thread(ResolvedTarget.of, to)
        options = await asyncio.to_thread(_options, plan, to.trust)
        if via is None and plan.jump:
            via = await _through(plan.jump, to, depth)
        tunnel: Any = via or (None if plan.proxy else _Dial(plan))
        connection = await asyncssh.connect(
            plan.host,
            plan.port,
            **options,
            config=None,
            username=plan.user,
            client_factory=lambda: client,
            tunnel=tunnel,
            compression_algs=None,
            connect_timeout=None,
            login_timeout=LOGIN_TIMEOUT_S,
            keepalive_interval=KEEPALIVE_INTERVAL_S,
            keepalive_count_max=UNLIMITED_KEEPALIVES if isinstance(tunnel, _Dial) else MAX_MISSED_KEEPALIVES,
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
    if via is not None:
        connection.set_tunnel(via)  # so that it is closed with this connection
    return connection


def _explained(error: Exception, to: Target, plan: ResolvedTarget | None) -> Unreachable:
    """Return an error that says in one line why the login failed, and what to do about it."""
    place = f"{plan.host}:{plan.port}" if plan is not None else str(to)
    match error:
        case socket.gaierror(errno=socket.EAI_NONAME | socket.EAI_NODATA) | UnicodeError():
            return Refused(f"{to}: the host name {place.rpartition(':')[0]!r} is unknown. Is it spelled right?")
        case OSError(filename=str(file)):
            return Refused(f"{to}: cannot read {file}: {error.strerror}")
        case asyncssh.HostKeyNotVerifiable() | asyncssh.KeyExchangeFailed() | asyncssh.ProtocolNotSupported():
            return Refused(f"{to}: {error}")
        case ValueError():  # a key or the configuration cannot be read
            return Refused(f"{to}: {error}")
        case TimeoutError():
            return Unreachable(f"{to}: {place} does not answer. Is it on, and does a firewall let you through?")
        case ConnectionRefusedError():
            return Unreachable(f"{to}: cannot connect to {place}: connection refused. Is sshd running there?")
        case OSError():
            return Unreachable(f"{to}: cannot connect to {place}: {error.strerror or error}")
        case _:
            return Unreachable(f"{to}: {error}")


async def _through(jump: str, to: Target, depth: int) -> asyncssh.SSHClientConnection | None:
    """Connect to the last of the jump hosts."""
    if depth == MAX_JUMP_DEPTH:
        raise Refused(f"{to}: its jump hosts form a loop")
    via = None
    for hop in target.hops(jump):
        keys = to.keys if to.config == () else ()  # like `ssh -i`: jump hosts use the keys of the configuration
        via = await login(replace(hop, config=to.config, agent=to.agent, keys=keys), via, depth + 1)
    return via


def _distrusted(to: Target, plan: ResolvedTarget, key: asyncssh.SSHKey, mark: str) -> str:
    """Explain why a host key was refused, with the command that accepts it."""
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
    """Parse lines of `known_hosts`; like `ssh`, skip those that are invalid."""
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
