"""The keys that can be used to log in by SSH, from files and from the agent, and what is wrong with the others."""

import asyncio
import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from skyward.providers.ssh.resolve import ResolvedTarget

AGENT_S = 5.0
"""Seconds that the agent may take to answer."""

PUBLIC = (b"ssh-", b"ecdsa-", b"sk-", b"---- BEGIN SSH2 PUBLIC KEY", b"-----BEGIN PUBLIC KEY")
"""The first bytes of files of public keys."""


@dataclass(frozen=True, slots=True)
class LoginKey:
    """A key, named by its file. If it cannot be used, `problem` continues the sentence `NAME ...`."""

    name: str
    problem: str = ""
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.problem}: {self.fix}"


class Unusable(ValueError):
    """A key that was given as an argument cannot be used."""


class Only(list[asyncssh.SSHKeyPair]):
    """A list that is true even when empty: for a false one, asyncssh tries the default keys."""

    def __bool__(self) -> bool:
        return True


def pairs(plan: ResolvedTarget) -> Only:
    """Load the keys. A key that needs a passphrase is skipped, as the agent may have it.

    Raises
    ------
    Unusable
        A key that the user has given cannot be read. Like `ssh`, skip keys of the configuration that cannot be read.
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
    """Return the public keys of private keys, which may need a passphrase or be held by the agent only."""
    return [half for key in keys for half in _public(key)]


def _public(key: str | bytes) -> Iterator[asyncssh.SSHKey]:
    for file in (f"{key}.pub", key) if isinstance(key, str) else ():
        with contextlib.suppress(OSError, ValueError):
            yield asyncssh.read_public_key(file)
            return


async def keys(plan: ResolvedTarget) -> list[LoginKey]:
    """Return the keys that a login tries, and those of the configuration whose files do not exist."""
    held = await _agent(plan)
    found = [await asyncio.to_thread(_examined, each, held, plan.agent) for each in plan.keys]
    found += [
        LoginKey(file, "is not there", "correct its IdentityFile in the configuration of ssh") for file in plan.missing
    ]
    return found + ([LoginKey(f"{len(held)} of the agent")] if held else [])


async def _agent(plan: ResolvedTarget) -> Sequence[asyncssh.SSHKeyPair] | None:
    """Return the keys that the agent holds, or None if there is no agent."""
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
    """Explain why a key cannot be read. `begin` is the command that starts an agent, if there is none."""
    name, text = _name(key), str(error)
    if isinstance(error, OSError):
        return LoginKey(name, f"cannot be read ({str(error.strerror).lower()})", "give a key that you may read")
    if isinstance(error, asyncssh.KeyEncryptionError) or "encrypted" in text:
        return LoginKey(name, "needs a passphrase", f"give it to the agent with {begin}ssh-add {name}")
    begins = b"" if isinstance(key, bytes) else Path(key).read_bytes()[:64]
    if begins.startswith(b"PuTTY-User-Key-File"):
        return LoginKey(name, "is a key of PuTTY", f"convert it with puttygen {name} -O private-openssh -o NEW")
    if begins.startswith(PUBLIC):
        private = name.removesuffix(".pub")
        return LoginKey(name, "is a public key", f"name the private one{f', {private}' if private != name else ''}")
    return LoginKey(name, f"is not a private key that can be read here ({text})", "give another key")


def _name(key: str | bytes) -> str:
    return "a key" if isinstance(key, bytes) else key


def exposed(keys: Iterable[str | bytes]) -> list[str]:
    """Return the user's own key files that other users can access; `ssh` refuses those."""
    found = []
    for file in keys:
        with contextlib.suppress(OSError):
            if isinstance(file, str) and (status := os.stat(file)).st_uid == os.getuid() and status.st_mode & 0o077:
                found.append(file)
    return found


def denied(user: str, known: Sequence[LoginKey]) -> str:
    """Explain why the login as this user failed with these keys."""
    wrong = "; ".join(str(key) for key in known if key.problem)
    usable = [key for key in known if not key.problem]
    if not known:
        fix = "Pass one with key=, or make one: ssh-keygen -t ed25519"
        return f"login as {user} failed: there is no key to log in with, in no file and with no agent. {fix}"
    if not usable:
        return f"login as {user} failed: {wrong}"
    text = f"login as {user} failed: none of the available keys was accepted"
    return f"{text}, and {wrong}" if wrong else f"{text}. Is it the right user and key? ssh-copy-id adds a key there"
