"""Machines that SSH connects to, and the errors of connections. Pure: no I/O, no clock."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from skyward.errors import Unreachable


class Lost(Unreachable):
    """The connection was lost, so the result of a command is unknown. The tunnel reconnects by itself."""


class Refused(Unreachable):
    """Retrying would not help: the host key is unknown or has changed, or the login is not allowed."""


class Distrusted(Refused):
    """The host key is unknown or has changed. The text ends with the command that accepts it."""


class NotAllowed(Refused):
    """The host key is known, but the login is not allowed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a command. The code of a command that was killed by a signal is minus the signal's number."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Target:
    """A machine, described as for the command `ssh`. Where a value is None, the user's configuration applies.

    Attributes
    ----------
    host
        A name, an address, or an alias of the configuration.
    port, user
        The port of sshd, and the user to log in as.
    jump
        Jump hosts, as in `ssh -J`: `user@host:port,...`. An empty string: none.
    keys
        Private keys to log in with: paths of files, or the keys themselves in OpenSSH's format. Empty: those of the
        configuration, the default ones, and the agent's.
    agent
        Whether the agent's keys may be used.
    config
        The configuration file to read instead of the user's and the system's, as in `ssh -F`; empty: none.
    trust
        Lines of a `known_hosts` file that replace all such files, for machines whose host key Skyward has made.
    alias
        The name of the machine in `known_hosts`, as in `HostKeyAlias`.
    """

    host: str
    port: int | None = None
    user: str | None = None
    jump: str | None = None
    keys: tuple[str | bytes, ...] = field(default=(), repr=False)
    agent: bool = True
    config: tuple[str, ...] | None = None
    trust: str | None = None
    alias: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{f'{self.user}@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"


def hops(jump: str) -> list[Target]:
    """Return the jump hosts of a `ProxyJump` setting, in order."""
    return [_hop(each.strip().removeprefix("ssh://")) for each in jump.split(",")]


def _hop(text: str) -> Target:
    user, _, place = text.rpartition("@")
    found = re.fullmatch(r"\[(?P<host>[^]]+)\](?::(?P<port>\d+))?|(?P<name>[^:]+)(?::(?P<number>\d+))?", place)
    if found is None:  # an IPv6 address without brackets
        return Target(place, user=user or None)
    port = found["port"] or found["number"]
    return Target(found["host"] or found["name"], int(port) if port else None, user or None)


@dataclass(frozen=True, slots=True)
class Shown:
    """The host key that a machine showed, and the machine's name in `known_hosts` files."""

    name: str
    kind: str
    key: str
    print: str

    @property
    def line(self) -> str:
        """The line for a `known_hosts` file."""
        return f"{self.name} {self.kind} {self.key}"


def unknown(to: Target, shown: Shown, file: str) -> str:
    """Explain that a host key is unknown, and how to accept it."""
    return (
        f"{to}: its host key is not known, and unknown keys are not trusted. It is {shown.kind}"
        f" {shown.print}; once you have verified it, accept it with\n  echo '{shown.line}' >> {file}"
    )


def changed(to: Target, shown: Shown, places: Sequence[str], file: str) -> str:
    """Explain that a host key differs from the recorded one, and how to accept it."""
    return (
        f"{to}: its host key has changed, or someone intercepts the connection: it shows {shown.kind} {shown.print},"
        f" which differs from {', '.join(places)}. If you know that it was reinstalled, accept the key with\n"
        f"  ssh-keygen -f {file} -R '{shown.name}' && echo '{shown.line}' >> {file}"
    )
