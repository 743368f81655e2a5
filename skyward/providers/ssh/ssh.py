"""Nodes on your own machines, reached by SSH. What a node needs is put into `~/.cache/skyward` there."""

import contextlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo

from skyward import extras
from skyward.config.validation import StrictModel, Text, existing_file, matching, refused
from skyward.errors import NoCapacity, Unreachable
from skyward.formatting import counted
from skyward.providers.batching import Attempts, side_by_side
from skyward.providers.health_checks import Finding, HostRequirements
from skyward.providers.provider import Instance, LeftToLease, Order
from skyward.providers.ssh import scripts
from skyward.providers.ssh.allocation import HostAllocator
from skyward.providers.ssh.target import Refused, Target

if TYPE_CHECKING:
    from skyward.providers.ssh.remote_host import RemoteHost
    from skyward.providers.ssh.tunnel import Tunnel

log = logging.getLogger("skyward")

TERMINATE_CONNECT_TIMEOUT_S = 5.0
"""Seconds to connect to a machine whose node has to be terminated; without an answer, the node ends with its lease."""

OTHER_ATTEMPTS_S = 2.0
"""Seconds that a failed attempt waits for those at other machines, so that one error names all that failed."""

_HOST = re.compile(r"(?:(?P<user>[^@\s:]+)@)?(?P<host>\[[0-9a-fA-F:.%\w]+\]|[^@\s:\[\]]+)(?::(?P<port>\d{1,5}))?")


def _host(value: object) -> Target:
    match value:
        case str(text) if (found := _HOST.fullmatch(text)) and not text.startswith("-"):
            port = int(found["port"]) if found["port"] else None
            name = found["host"].strip("[]")
        case (str(text), int(number)) if type(number) is int and (found := _HOST.fullmatch(text)) and not found["port"]:
            port, name = number, found["host"].strip("[]")
        case _:
            raise refused(f"{value!r} is not a machine")
    if port is not None and not 0 < port < 65536:
        raise refused(f"{port} is not a port", "give a number from 1 to 65535")
    return Target(name, port, found["user"])


def _hosts(value: object) -> tuple[Target, ...]:
    if isinstance(value, str) and value.strip():
        raise refused("must be a list", f"put it in a list: [{value!r}]")
    if not isinstance(value, list | tuple):
        raise refused("must be a list")
    found = tuple(each if isinstance(each, Target) else _host(each) for each in value)
    if not found:
        raise refused("is empty", "give at least one machine")
    twice = [str(each) for number, each in enumerate(found) if each in found[:number]]
    if twice:
        fix = "name each once, and give slots= to have more tasks at once on a machine"
        raise refused(f"{twice[0]} is listed twice", fix)
    return found


def _file(value: object) -> object:
    found = existing_file(value)
    return found if found is None else str(found)


def _slots(value: object, info: ValidationInfo) -> object:
    """Check a number of slots, or a number for each name."""
    if value is None:
        return None
    for number in value.values() if isinstance(value, Mapping) else [value]:
        if type(number) is not int:
            raise refused(f"must be a whole number{' for each name' if isinstance(value, Mapping) else ''}")
        if number < 1:
            raise refused("must be at least 1")
    if isinstance(value, Mapping):
        hosts: tuple[Target, ...] = info.data.get("hosts", ())
        names = {name for to in hosts for name in (str(to), to.host)}
        if strangers := [name for name in value if name not in names and hosts]:
            raise refused(f"{strangers[0]!r} is not in hosts")
    return value


class SSH(StrictModel):
    """Your own machines, reached by SSH. A pool of n nodes uses n of them, and leaves nothing there but a cache.

    Names, users, keys, ports and jump hosts are found as `ssh` itself finds them, in the user's configuration, agent
    and `known_hosts`. An unknown host key is refused.

    Parameters
    ----------
    hosts
        Machines as you name them to `ssh`: `"gpu-box"`, `"alice@node-7"`, `("10.0.0.5", 2222)`.
    user
        User to log in as, unless given with the machine.
    key
        The file of the private key to log in with.
    config
        Configuration file to read instead of `~/.ssh/config`.
    jump
        Jump hosts, as in `ssh -J`.
    slots
        Number of slots of a machine: one number for all, or one for each name. Machines that are not named have as many
        as `Worker(concurrency=)` sets.
    """

    synonyms: ClassVar[Mapping[str, str]] = {
        "hosts": "host machines nodes servers addresses hostnames workers",
        "user": "username login",
        "key": "key_file keyfile identity_file identity private_key pkey ssh_key key_filename",
        "config": "config_file ssh_config",
        "jump": "proxy_jump jump_host gateway bastion proxy",
        "slots": "concurrency cpus cores n_jobs workers_per_host",
        "write it with the machine: hosts=[('name', 2222)]": "port ports",
        "log in with a key: key='~/.ssh/id_ed25519'": "password passphrase",
    }

    hosts: Annotated[tuple[Target, ...], BeforeValidator(_hosts)] = Field(
        description="give machines as you name them to ssh", examples=["['alice@node-7', ('10.0.0.5', 2222)]"]
    )
    user: Text | None = Field(default=None, description="give the name of a user", examples=["'alice'"])
    key: Annotated[str | None, BeforeValidator(_file)] = Field(
        default=None, description="give the file of a private key", examples=["'~/.ssh/id_ed25519'"]
    )
    config: Annotated[str | None, BeforeValidator(_file)] = Field(
        default=None, description="give a configuration file of ssh", examples=["'~/.ssh/config'"]
    )
    jump: Annotated[str | None, matching(r"|[^\s\0].*", "is not a machine")] = Field(
        default=None, description="give machines to go through as `ssh -J` has it", examples=["'alice@gateway'"]
    )
    slots: Annotated[int | Mapping[str, int] | None, BeforeValidator(_slots)] = Field(
        default=None, description="give a number of slots, or one for each name", examples=["{'gpu-box': 8}"]
    )
    _allocator: HostAllocator = PrivateAttr(default_factory=HostAllocator)
    _attempts: dict[str, Attempts] = PrivateAttr(default_factory=dict)

    if TYPE_CHECKING:  # lists are accepted, too

        def __init__(
            self,
            *,
            hosts: Iterable[str | tuple[str, int] | Target],
            user: str | None = None,
            key: str | Path | None = None,
            config: str | Path | None = None,
            jump: str | None = None,
            slots: int | Mapping[str, int] | None = None,
        ) -> None: ...

    def model_post_init(self, _: object, /) -> None:
        """Raise `MissingExtra` at once where the extra `ssh` is not installed."""
        extras.require("ssh", "asyncssh")

    @property
    def name(self) -> str:
        """`ssh`."""
        return "ssh"

    @property
    def capacity(self) -> int:
        """Number of machines."""
        return len(self.hosts)

    @property
    def bare(self) -> bool:
        """Yes: a machine needs only an sshd and a shell."""
        return True

    async def launch(self, order: Order) -> Instance:
        """Choose a machine that no other node uses. It is not contacted yet."""
        place = self._allocator.take(order.pool, order.name, len(self.hosts))
        if place is None:
            given = counted(len(self.hosts), "machine")
            raise NoCapacity(f"all machines of hosts= are in use ({given}): give more, or ask for fewer nodes")
        return self._instance(order.pool, order.name, place)

    async def reach(self, instance: Instance) -> "RemoteHost":
        """Connect to the machine, and make the node's folder there."""
        tunnel = self._tunnel(self._place(instance))
        from skyward.providers.ssh.remote_host import RemoteHost, settled, shut

        attempts = self._attempts.setdefault(instance.pool, Attempts())
        try:
            with attempts.under_way():
                await tunnel.open()
                self._allocator.touch(instance.pool, instance.name)
                return RemoteHost(tunnel, await settled(tunnel, instance.name), "python3")
        except BaseException as error:
            self._allocator.fail(instance.name)
            if isinstance(error, Unreachable):  # first, as other attempts may be waiting for this one
                self._allocator.note(instance.pool, instance.name, str(error))
            await shut(tunnel)
            if isinstance(error, Refused):
                error.final = not self._allocator.spare(len(self.hosts))
                if not error.final:
                    log.warning("using another machine in place of %s", error)
            if isinstance(error, Unreachable):
                await attempts.settle(OTHER_ATTEMPTS_S)
                error.args = ("\n".join([str(error), *self._also(instance)]),)
            raise

    async def find(self, pool: str) -> Sequence[Instance]:
        """Return the nodes of the pool: those that were launched here, and those found on the machines."""
        taken = {node: place for node, place in self._allocator.taken.items() if node.startswith(f"{pool}-")}
        places = sorted(self._allocator.used.get(pool, range(len(self.hosts))))
        for place, nodes in zip(places, await side_by_side(*(self._ask(pool, place) for place in places)), strict=True):
            taken |= dict.fromkeys(nodes, place)
        return [self._instance(pool, node, place) for node, place in sorted(taken.items())]

    async def terminate(self, instance: Instance) -> None:
        """Stop everything that the node runs on the machine, and remove its folder.

        Raises
        ------
        LeftToLease
            The machine does not answer.
        """
        if instance.name in self._allocator.untouched:
            self._allocator.leave(instance.name)
            return
        tunnel = self._tunnel(self._place(instance))
        try:
            await tunnel.open(TERMINATE_CONNECT_TIMEOUT_S)
            ran = await tunnel.run(scripts.finish(instance.name))
            if ran.code:
                raise Unreachable(f"{tunnel.to}: the node cannot be stopped: {ran.stderr.strip()}")
        except Unreachable as error:
            self._allocator.fail(instance.name)
            raise LeftToLease(str(error)) from error
        finally:
            await tunnel.close()
            self._allocator.leave(instance.name)

    async def examine(self, needs: HostRequirements) -> Mapping[str, Sequence[Finding]]:
        """Check whether each machine can be a node and whether this program can reach it, all at the same time."""
        from skyward.providers.ssh.host_doctor import examine, extra  # not above: it needs the extra

        found = await side_by_side(*(examine(self._destination(place), needs) for place in range(len(self.hosts))))
        return {"here": [extra()]} | {str(to): each for to, each in zip(self.hosts, found, strict=True)}

    def _also(self, instance: Instance) -> list[str]:
        """Return lines that name the other machines that could not be reached for this pool, with the reasons."""
        problems = self._allocator.problems[instance.pool]
        others = [f"  {text}" for place, text in sorted(problems.items()) if place != self._place(instance)]
        return ["Other machines that cannot be reached:", *others] if others else []

    async def _ask(self, pool: str, place: int) -> list[str]:
        tunnel = self._tunnel(place)
        try:
            await tunnel.open()
            ran = await tunnel.run(scripts.find(pool))
            if ran.code:
                raise Unreachable(f"{tunnel.to}: {ran.stderr.strip() or f'exit code {ran.code}'}")
            return ran.stdout.split()
        except Unreachable as error:
            log.warning("%s; cannot check whether anything of the pool is left there", error)
            return []
        finally:
            await tunnel.close()

    def _tunnel(self, place: int) -> "Tunnel":
        from skyward.providers.ssh.tunnel import Tunnel  # not above: it needs the extra

        return Tunnel(self._destination(place))

    def _destination(self, place: int) -> Target:
        to = self.hosts[place]
        return replace(
            to,
            user=to.user or self.user,
            jump=self.jump if to.jump is None else to.jump,
            keys=to.keys or ((self.key,) if self.key else ()),
            config=to.config or ((self.config,) if self.config else None),
        )

    def _instance(self, pool: str, node: str, place: int) -> Instance:
        to = self.hosts[place]
        slots = self.slots
        if isinstance(slots, Mapping):
            slots = slots.get(str(to), slots.get(to.host))
        return Instance(f"{to}/{node}", pool, node, to.host, slots)

    def _place(self, instance: Instance) -> int:
        with contextlib.suppress(KeyError):
            return self._allocator.taken[instance.name]
        return next(place for place, to in enumerate(self.hosts) if instance.id.startswith(f"{to}/"))
