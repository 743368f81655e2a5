"""Which keys there are to log in with by SSH, in files and with the agent, and what is wrong with the others."""

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import asyncssh

from skyward.providers.ssh.resolve import ResolvedTarget

AGENT_S = 5.0
"""Seconds that the agent has to answer."""

PUBLIC = (b"ssh-", b"ecdsa-", b"sk-", b"---- BEGIN SSH2 PUBLIC KEY", b"-----BEGIN PUBLIC KEY")
"""How files of public keys begin."""


@dataclass(frozen=True, slots=True)
class LoginKey:
    """A key by its file's name; `problem` says why it cannot be used, as `NAME problem` reads, and `fix` what to do."""

    name: str
    problem: str = ""
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.problem}: {self.fix}"


class Unusable(ValueError):
    """A key that was named cannot be used."""


class Only(list[asyncssh.SSHKeyPair]):
    """Keys, and no others: asyncssh tries the usual ones instead of a list that is false."""

    def __bool__(self) -> bool:
        return True


def pairs(plan: ResolvedTarget) -> Only:
    """Load the keys that can be read. One that needs a passphrase may be with the agent.

    Raises
    ------
    Unusable
        A key that the user has named is none; of the configuration's, `ssh` passes over those that it cannot read.
    """
    found = Only()
    for each in plan.keys:
        try:
            found += asyncssh.load_keypairs(each, None, [*plan.certificates], not plan.given, True)
        except (OSError, ValueError) as error:
            if plan.given:
                raise Unusable(str(_judged(each, error, ""))) from error
    return found


def public(keys: Iterable[str | bytes]) -> list[asyncssh.SSHKey]:
    """Return the public halves of keys, which may need a passphrase or be with the agent alone."""
    return [half for key in keys for half in _public(key)]


def _public(key: str | bytes) -> Iterator[asyncssh.SSHKey]:
    for file in (f"{key}.pub", key) if isinstance(key, str) else ():
        with contextlib.suppress(OSError, ValueError):
            yield asyncssh.read_public_key(file)
            return


async def keys(plan: ResolvedTarget) -> list[LoginKey]:
    """Return the keys of a plan: those in files, those that are not where the configuration has them, the agent's."""
    held = await _agent(plan)
    found = [await asyncio.to_thread(_examined, each, held, plan.agent) for each in plan.keys]
    found += [
        LoginKey(file, "is not there", "correct its IdentityFile in the configuration of ssh") for file in plan.missing
    ]
    return found + ([LoginKey(f"{len(held)} of the agent")] if held else [])


async def _agent(plan: ResolvedTarget) -> Sequence[asyncssh.SSHKeyPair] | None:
    """Return the keys that the agent holds; None where there is no agent."""
    if plan.agent is None:
        return None
    path: Any = plan.agent or ()
    try:
        async with asyncio.timeout(AGENT_S), asyncssh.connect_agent(path) as asked:
            return list(await asked.get_keys())
    except (OSError, ValueError, asyncssh.Error):  # TimeoutError is an OSError
        return None


def _examined(key: str | bytes, held: Sequence[asyncssh.SSHKeyPair] | None, agent: str | None) -> LoginKey:
    try:
        asyncssh.import_private_key(key) if isinstance(key, bytes) else asyncssh.read_private_key(key)
    except (OSError, ValueError) as error:
        if {half.public_data for half in _public(key)} & {each.public_data for each in held or ()}:
            return LoginKey(_name(key))
        begin = 'eval "$(ssh-agent)"; ' if held is None and agent is not None else ""
        return _judged(key, error, begin)
    return LoginKey(_name(key))


def _judged(key: str | bytes, error: OSError | ValueError, begin: str) -> LoginKey:
    """Say in our words why a key cannot be read; `begin` is what has to be run before the agent can be given one."""
    name, text = _name(key), str(error)
    if isinstance(error, OSError):
        return LoginKey(name, f"cannot be read ({str(error.strerror).lower()})", "name a key that you may read")
    if isinstance(error, asyncssh.KeyEncryptionError) or "encrypted" in text:
        return LoginKey(name, "needs a passphrase", f"give it to the agent with {begin}ssh-add {name}")
    begins = b"" if isinstance(key, bytes) else _beginning(key)
    if begins.startswith(b"PuTTY-User-Key-File"):
        return LoginKey(name, "is a key of PuTTY", f"convert it with puttygen {name} -O private-openssh -o NEW")
    if begins.startswith(PUBLIC):
        private = name.removesuffix(".pub")
        return LoginKey(name, "is a public key", f"name the private one{f', {private}' if private != name else ''}")
    return LoginKey(name, f"is not a private key that can be read here ({text})", "name another key")


def _beginning(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read(64)


def _name(key: str | bytes) -> str:
    return "a key" if isinstance(key, bytes) else key


def exposed(keys: Iterable[str | bytes]) -> list[str]:
    """Return the files of our own that others can read; `ssh` itself takes no such key."""
    found = []
    for file in keys:
        with contextlib.suppress(OSError):
            status = os.stat(file) if isinstance(file, str) else None
            if status is not None and status.st_uid == os.getuid() and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                found.append(str(file))
    return found


def denied(user: str, known: Sequence[LoginKey]) -> str:
    """Say why nobody could log in as this user, with these keys."""
    wrong = "; ".join(str(key) for key in known if key.problem)
    usable = [key for key in known if not key.problem]
    if not known:
        fix = "Name one with key=, or make one: ssh-keygen -t ed25519"
        return f"login as {user} failed: there is no key to log in with, in no file and with no agent. {fix}"
    if not usable:
        return f"login as {user} failed: {wrong}"
    text = f"login as {user} failed: none of the available keys was accepted"
    return f"{text}, and {wrong}" if wrong else f"{text}. Is it the right user and key? ssh-copy-id adds a key there"
