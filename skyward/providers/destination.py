"""Whom to reach by SSH, and how often to try. Pure: no I/O, no clock, no luck; `tunnel` does it."""

from dataclasses import dataclass, field

FIRST = 0.2
"""Seconds, at most, before the second attempt to connect."""

LONGEST = 5.0
"""Seconds, at most, between two attempts."""


@dataclass(frozen=True, slots=True)
class Destination:
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
        Configuration files to read instead of the user's and the system's, as in `ssh -F`; empty is no configuration.
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


def pause(attempt: int, luck: float) -> float:
    """Seconds to wait after `attempt` failures; `luck` from 0 to 1 spreads those who lost a machine together."""
    return min(LONGEST, FIRST * 2.0 ** min(attempt - 1, 10)) * (0.5 + luck / 2)
