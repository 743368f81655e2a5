"""Nodes on Amazon EC2: machines that are launched for a pool, reached by SSH, and always terminated with it.

| file | what |
| --- | --- |
| `aws.py` | `sky.AWS`: its methods as a provider |
| `launch_config.py` | its arguments, checked |
| `pool.py` | the resources of one pool: keys, group, machines |
| `security_group.py` | the security group |
| `launch_plan.py`, `instance_selection.py` | which image, type, zone, at what price |
| `resources.py`, `termination.py` | list a pool's resources, and terminate them |
| `staleness.py` | who owns a resource, and whether it is abandoned |
| `watchdog.py` | cleans up when the driver was killed |
| `account_doctor.py`, `account_checks.py` | the checks of `skyward doctor aws`, and their verdicts |
| `api.py`, `api_errors.py` | calls, retries, and what an error means |
| `region_names.py` | suggestions for a misspelled region |
| `userdata.py`, `cloud_host.py` | how a machine shuts itself down, and how its lease is renewed |
"""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import PrivateAttr

from skyward import extras
from skyward.errors import Unreachable
from skyward.providers.aws import userdata, watchdog
from skyward.providers.aws.api import Api, Refusal
from skyward.providers.aws.instance_selection import Offer
from skyward.providers.aws.launch_config import CHECKIP, LaunchConfig
from skyward.providers.aws.launch_plan import LaunchPlan
from skyward.providers.aws.pool import EC2Pool
from skyward.providers.provider import Instance, Order
from skyward.providers.ssh.key_pair import KeyPair
from skyward.retry import backoff

if TYPE_CHECKING:
    from skyward.providers.aws.cloud_host import CloudHost
    from skyward.providers.ssh.tunnel import Tunnel

POLL_INTERVAL_S, LONGEST_POLL_INTERVAL_S = 0.3, 3.0
"""Seconds between checks whether a machine runs, at first and at most."""


class AWS(LaunchConfig):
    """Machines of Amazon EC2, launched for a pool and terminated with it.

    Credentials are found in the usual AWS places (environment, `~/.aws`, SSO, instance role). By default, a machine is
    a `t4g.micro`.

    Parameters
    ----------
    region
        AWS region; by default the configured one.
    instance_type
        Instance type. Instead of it, you can set what a machine must have; then the cheapest type that has it is used.
    cpus, memory_gb, architecture, accelerator
        What a machine must have: processors, GB of memory, `"arm64"` or `"x86_64"`, and an accelerator by its name
        (`"T4"`), its maker (`"nvidia"`), or just `"gpu"`.
    image
        An image, `ami-...`, or a public parameter that names one; by default Ubuntu LTS for the architecture. Any other
        image must have cloud-init.
    user
        User to log in as; `ubuntu` is the one of the default image.
    spot
        Whether to use spot machines, which cost less and can be reclaimed: `True` for spot only, `"if-available"` for
        on-demand machines where there are none.
    subnet
        A subnet, or one for each zone; by default those of the default network.
    security_groups
        Security groups to use. By default, one is made for the pool, which opens sshd to `allow` and is removed with
        the pool.
    allow
        Address from which the machines are reached: an address, a network, or the URL of a service that returns it; by
        default `https://checkip.amazonaws.com`.
    key
        File of the private key to log in with. By default, one is made for the pool and never written to disk.
    profile
        A profile of `~/.aws/config`.
    role
        Name of an instance profile for the machines. Without it, they can do nothing in the account.
    volume_gb
        Size of the disk in GB; by default the size of the image.
    tags
        Additional tags for everything that is created.
    zones
        Availability zones to use; by default all that have the type.
    first_contact
        Seconds after which a machine shuts itself down if nobody has logged in to it.
    max_lifetime
        Seconds after which a machine shuts itself down in any case.
    journal
        File that lists what is created, before it is created; by default `~/.local/state/skyward/aws.jsonl`, or below
        `XDG_STATE_HOME`.
    """

    _pools: dict[str, EC2Pool] = PrivateAttr(default_factory=dict)
    _host_keys: dict[str, KeyPair] = PrivateAttr(default_factory=dict)
    _rekeyed: set[str] = PrivateAttr(default_factory=set)

    if TYPE_CHECKING:  # lists and names of files are welcome, and a type checker should know

        def __init__(
            self,
            *,
            region: str | None = None,
            instance_type: str | None = None,
            cpus: int | None = None,
            memory_gb: float | None = None,
            architecture: Literal["arm64", "x86_64"] | None = None,
            accelerator: str | None = None,
            image: str | None = None,
            user: str = "ubuntu",
            spot: bool | Literal["if-available"] = False,
            subnet: str | Iterable[str] = (),
            security_groups: Iterable[str] = (),
            allow: str = CHECKIP,
            key: str | Path | None = None,
            profile: str | None = None,
            role: str | None = None,
            volume_gb: int | None = None,
            tags: Mapping[str, str] = {},
            zones: Iterable[str] = (),
            first_contact: float = 600.0,
            max_lifetime: float = 43200.0,
            journal: str | Path | None = None,
        ) -> None: ...

    def model_post_init(self, _: object, /) -> None:
        """Raise `MissingExtra` at once where the extra `aws` is not installed."""
        extras.require("aws", "aioboto3", "asyncssh")

    # ---------------------------------------------------------------- the contract of a provider

    @property
    def name(self) -> str:
        """`aws`."""
        return "aws"

    @property
    def bare(self) -> bool:
        """True: a machine needs only an sshd and a shell."""
        return True

    @property
    def notices(self) -> str:
        """Those of spot machines."""
        return "ec2"

    async def launch(self, order: Order) -> Instance:
        """Launch a machine, in one request with those that are ordered at about the same time."""
        with _explaining(self.instance_type or ""):
            return await self._pool(order.pool).launch(order)

    async def reach(self, instance: Instance) -> "CloudHost":
        """Wait until the machine runs and accepts the login; renew its lease; give it a new host key."""
        pool = self._pool(instance.pool)
        with _explaining():
            address = await self._address(pool, instance)
        from skyward.providers.aws.cloud_host import CloudHost, first_login, touch
        from skyward.providers.ssh.remote_host import settled, shut

        tunnel = self._tunnel(pool, instance, address)
        try:
            await first_login(tunnel)
            await touch(tunnel)
            await self._rekey(pool, instance, tunnel)
            return CloudHost(tunnel, await settled(tunnel, instance.name), "python3", pool.lease, pool.left)
        except BaseException:
            await shut(tunnel)
            raise

    async def find(self, pool: str) -> Sequence[Instance]:
        """Return the machines that carry the pool's tag and are not shutting down."""
        with _explaining():
            return await self._pool(pool).find()

    async def terminate(self, instance: Instance) -> None:
        """Terminate the machine, and return when the API confirms that it is shutting down."""
        with _explaining():
            await self._pool(instance.pool).terminate(instance)
        self._host_keys.pop(instance.id, None)
        self._rekeyed.discard(instance.id)

    async def clear(self, pool: str) -> Sequence[str]:
        """Remove the pool's security group, which is possible once its machines are terminated."""
        with _explaining():
            left = await self._pool(pool).clear()
        if not left:
            self._pools.pop(pool, None)
        return left

    async def offers(self) -> Sequence[Offer]:
        """Return the offers that a launch would try, in order: type, zone, and price per hour with address and disk."""
        with _explaining(self.instance_type or ""):
            async with Api(self.region, self.profile).open() as api:
                return await LaunchPlan(self, api).priced()

    def _pool(self, pool: str) -> EC2Pool:
        if pool not in self._pools:
            login = KeyPair.read(self.key) if self.key else KeyPair()
            self._pools[pool] = EC2Pool(self, pool, login, Api(self.region, self.profile), watchdog.start)
        return self._pools[pool]

    # ---------------------------------------------------------------- connecting to a machine

    async def _address(self, pool: EC2Pool, instance: Instance) -> str:
        """Return the address of the machine once it runs."""
        delays = backoff(POLL_INTERVAL_S, LONGEST_POLL_INTERVAL_S, 1.3)
        async with pool.api.open():
            while True:
                told = await pool.look(instance.id)
                if told is not None and not told.is_alive:
                    raise Unreachable(f"{instance.id} is {told.state}: {told.reason or 'no reason is given'}")
                if told is not None and told.state == "running" and told.address:
                    return told.address
                await asyncio.sleep(next(delays))

    def _tunnel(self, pool: EC2Pool, instance: Instance, address: str) -> "Tunnel":
        from skyward.providers.ssh.target import Target
        from skyward.providers.ssh.tunnel import Tunnel  # not above: it needs the extra

        alias = f"skyward-{pool.pool}"
        to = Target(address, 22, self.user, "", (pool.login.private,), agent=False, config=(), alias=alias)
        return Tunnel(replace(to, trust=self._trust(pool, instance.id, alias)))

    def _trust(self, pool: EC2Pool, machine: str, alias: str) -> str:
        """Return the host keys that the machine may show: that of its launch, and the one that replaces it."""
        first = None if machine in self._rekeyed else pool.first_host_keys.get(machine)
        return "".join(f"{alias} {key.public}\n" for key in (first, self._host_keys.get(machine)) if key)

    async def _rekey(self, pool: EC2Pool, instance: Instance, tunnel: "Tunnel") -> None:
        """Give the machine a host key that no user data contains, and trust no other from then on."""
        if instance.id in self._rekeyed:
            return
        own = self._host_keys.setdefault(instance.id, KeyPair())
        ran = await tunnel.run(userdata.rekey(own.public), stdin=own.private)
        if ran.code:
            raise Unreachable(f"{tunnel.to}: its host key cannot be changed: {ran.stderr.strip()}")
        self._rekeyed.add(instance.id)
        tunnel.to = replace(tunnel.to, trust=self._trust(pool, instance.id, f"skyward-{pool.pool}"))


@contextlib.contextmanager
def _explaining(kind: str = "") -> Iterator[None]:
    """Raise what a refusal of the API means for the user."""
    try:
        yield
    except Refusal as refusal:
        raise refusal.explained(kind=kind) from refusal
