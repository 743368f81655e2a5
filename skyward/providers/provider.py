"""The contract of a provider, which launches machines and connects to them.

A provider launches machines, finds those of a pool, connects to one and terminates it. It knows nothing of slots,
batches or plugins: what runs on a machine is passed to `Host` as files and a command.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Quote:
    """The price of machines that are about to be launched.

    Attributes
    ----------
    machine, zone, count
        Their type, their zone, and how many they are.
    hourly
        Dollars per hour for each, including the named `extras`; None if the price is not known, because of `problem`.
    """

    machine: str
    zone: str
    count: int
    hourly: float | None
    extras: str = ""
    problem: str = ""


class Purse(Protocol):
    """The budget that pays for machines."""

    @property
    def limited(self) -> bool:
        """Whether a limit is set, so that no machine may be launched whose price is not known."""
        ...

    def check(self, quote: Quote) -> None:
        """Check the price of machines, just before they are launched.

        Raises
        ------
        BudgetExceeded
            They would exceed a limit.
        """
        ...

    def begin(self, machine: str, hourly: float | None) -> None:
        """Note a launched machine by its id, as soon as that is known: the next check counts it.

        That it was launched and that it has ended is noted by whoever ordered it, too; it may be said twice.
        """
        ...

    def left(self) -> float | None:
        """Return the seconds until the budget is spent, when no machine may run any more; None: never."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """An order for one machine of the pool `pool`, tagged with the pool and with `node`, which is unique.

    `node` is also the client token: launching the same order twice gives one machine. `lease` is the seconds without
    contact to the driver after which a machine that costs money shuts itself down; `purse` is asked before the launch.
    `wanted` says whether the machine is still needed: a launch that tries several places asks it before each attempt.
    """

    pool: str
    node: str
    lease: float = 300.0
    purse: Purse | None = None
    wanted: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True)
class Instance:
    """A launched machine: the provider's `id` of it, and the tags of its order.

    `slots` is the number of its slots, if the provider was given one for this machine. `hourly` is its price in dollars
    per hour, if it has one that is known.
    """

    id: str
    pool: str
    node: str
    host: str
    slots: int | None = None
    hourly: float | None = None


type Content = bytes | mmap
"""What a file is to contain; what is large is mapped, and not held in memory."""


class LeftToLeash(Exception):
    """A machine that has to be terminated does not answer. What runs there stops by itself when its lease expires."""


class Process(Protocol):
    """A command that runs on a machine."""

    def lines(self) -> AsyncIterator[tuple[str, str]]:
        """Yield what it prints, line by line, as `("stdout" | "stderr", text)`, until it ends."""
        ...

    async def wait(self) -> int:
        """Return its exit code, once it has ended."""
        ...


class Host(Protocol):
    """A machine to which there is a connection. A remote one should be `SupportsAcknowledged`, too.

    Attributes
    ----------
    folder
        Absolute path of a folder on the machine that only this node uses.
    python
        Command that starts Python there.
    tethered
        Whether a command's standard input ends when the driver's process does, so that a node may end itself by that.
        Where it does not, the machine holds what is started there until it has a leash of its own: it is ended when the
        file `alive` in the folder was not written again for as many seconds as the file `lease` says, 15 without one.
    shares_memory
        Whether what runs there can open what this process holds in anonymous memory, by its path under `/proc`, and the
        other way round: it is this machine, this user, and Linux.
    """

    @property
    def folder(self) -> str: ...
    @property
    def python(self) -> str: ...
    @property
    def tethered(self) -> bool: ...
    @property
    def shares_memory(self) -> bool: ...

    async def write(self, files: Mapping[str, Content]) -> None:
        """Write files into `folder`, readable only by this user."""
        ...

    async def start(self, command: Sequence[str]) -> Process:
        """Start a command."""
        ...

    async def tunnel(self, port: int) -> int:
        """Return a local port on 127.0.0.1 that forwards to `port` on 127.0.0.1 there."""
        ...

    async def close(self) -> None:
        """Release the machine. What runs on it continues to run."""
        ...


@runtime_checkable
class SupportsAcknowledged(Protocol):
    """A host that knows how much of what was sent has arrived, which tells a slow connection from a dead one."""

    def acknowledged(self) -> int:
        """Return the number of bytes that the machine has received over the tunnels so far."""
        ...


class Provider(Protocol):
    """A source of machines. Every method may be called again after it failed.

    A provider may also have the members of `SupportsNotices` and `SupportsClear`. If it has a fixed number of machines,
    it has an attribute `capacity`: a pool of more nodes is refused when it is made.
    """

    @property
    def name(self) -> str:
        """The provider's name in log lines and errors."""
        ...

    @property
    def bare(self) -> bool:
        """Whether its machines lack what a node needs, so that a bootstrap script must install it."""
        ...

    async def launch(self, order: Order) -> Instance:
        """Launch a machine, or return the one that this order has already launched.

        Raises
        ------
        ProvisioningError
            No machine is available; the text says why.
        """
        ...

    async def reach(self, instance: Instance) -> Host:
        """Return the machine once it can run commands.

        Raises
        ------
        Unreachable
            It does not answer.
        """
        ...

    async def find(self, pool: str) -> Sequence[Instance]:
        """Return every machine of the pool that exists, or may still appear."""
        ...

    async def terminate(self, instance: Instance) -> None:
        """Terminate the machine and everything on it, and return when that is confirmed. A machine that is already gone
        is no error.

        Raises
        ------
        LeftToLeash
            It cannot be terminated from here, and trying again would not help.
        """
        ...


@runtime_checkable
class SupportsNotices(Protocol):
    """A provider whose machines are told that they are about to be reclaimed."""

    @property
    def notices(self) -> str:
        """How a machine is told, as `skyward.remote.node.interruption` calls it; empty for not at all."""
        ...


@runtime_checkable
class SupportsClear(Protocol):
    """A provider whose machines share something that has to be removed after them."""

    async def clear(self, pool: str) -> Sequence[str]:
        """Remove what the pool's machines shared, after they are terminated; return the names of what could not be
        removed."""
        ...
