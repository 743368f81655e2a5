"""What to connect to by SSH, and the errors about host keys. Pure: no I/O, no clock; `tunnel` acts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from skyward.errors import Unreachable


class Lost(Unreachable):
    """The connection was cut, so the result of a command is not known. The tunnel reconnects by itself."""


class Refused(Unreachable):
    """Trying again would not help: the host key is unknown or has changed, or the login is not allowed."""


class Distrusted(Refused):
    """The host key is unknown, or has changed; the text ends with the line that accepts it."""


class NotAllowed(Refused):
    """The host key is right, and the login is not allowed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a command: its exit code (of one killed by a signal, minus its number), and what it printed."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Target:
    """A machine that `ssh` can reach, said as one would say it to `ssh`. What is None is left to its configuration.

    Attributes
    ----------
    host
        A name, an address, or an alias of the configuration.
    port, user
        Where it listens, and whom to log in as.
    jump
        Machines to go through, as in `ssh -J`: `user@host:port,...`. None leaves it to the configuration; an empty
        string is none.
    keys
        Private keys to log in with: paths of files, or the keys themselves in OpenSSH's format. Empty: those of the
        configuration, the usual ones, and the agent's.
    agent
        Whether the agent may be asked for keys.
    config
        The configuration file to read instead of the user's and the system's, as in `ssh -F`; empty is none.
    trust
        Lines of a known_hosts file that are all that is trusted, for a machine whose key was chosen by us. None: the
        files that the configuration names, or the usual ones.
    alias
        The name by which its host key is known, as in `HostKeyAlias`.
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
        named = f"{self.user}@{self.host}" if self.user else self.host
        return f"{named}:{self.port}" if self.port else named


def hops(jump: str) -> list[Target]:
    """The machines to go through, in order, from `user@host:port,...` as `ProxyJump` has it."""
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
    """The host key that a machine showed, under the name that a known_hosts file has for the machine."""

    name: str
    kind: str
    key: str
    print: str

    @property
    def line(self) -> str:
        """Its line in a known_hosts file."""
        return f"{self.name} {self.kind} {self.key}"


def unknown(to: Target, shown: Shown, file: str) -> str:
    """Say how to accept a host key that no file has."""
    return (
        f"{to}: its host key is not known, and unknown keys are not trusted. It is {shown.kind}"
        f" {shown.print}; once you have verified it, accept it with\n  echo '{shown.line}' >> {file}"
    )


def changed(to: Target, shown: Shown, places: Sequence[str], file: str) -> str:
    """Say where a different host key is recorded, and how to accept the new one."""
    return (
        f"{to}: its host key has changed, or somebody intercepts the connection: it shows {shown.kind} {shown.print},"
        f" which differs from {', '.join(places)}. If you know that it was reinstalled, accept the key with\n"
        f"  ssh-keygen -f {file} -R '{shown.name}' && echo '{shown.line}' >> {file}"
    )
