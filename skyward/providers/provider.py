"""The contract of a provider.

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
        Their type, their zone, and their number.
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
        """Count a launched machine from now on. Call this as soon as its id is known; calling it twice is harmless.

        Whoever placed the order also calls this, and notes the end of the machine.
        """
        ...

    def left(self) -> float | None:
        """Return the seconds until the budget is spent and all machines must have stopped; None for no limit."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """An order for one machine.

    Attributes
    ----------
    pool
        The pool that the machine is for; the machine is tagged with it.
    name
        Unique name of the node, with which the machine is tagged. It is also the client token: launching the same order
        twice gives one machine.
    lease
        Seconds without contact to the driver after which a machine that costs money shuts itself down.
    purse
        Checked before the launch.
    wanted
        Whether the machine is still needed. A launch that tries several places calls it before each attempt.
    """

    pool: str
    name: str
    lease: float = 300.0
    purse: Purse | None = None
    wanted: Callable[[], bool] = lambda: True

    @property
    def node(self) -> str:
        """The former name of `name`."""
        return self.name


@dataclass(frozen=True, slots=True)
class Instance:
    """A launched machine.

    Attributes
    ----------
    id
        The provider's id of it.
    pool, name
        The tags of its order.
    host
        Its host name or address, for people.
    slots
        Number of its slots, if the provider was given one for this machine.
    hourly
        Its price in dollars per hour, if known.
    """

    id: str
    pool: str
    name: str
    host: str
    slots: int | None = None
    hourly: float | None = None

    @property
    def node(self) -> str:
        """The former name of `name`."""
        return self.name


type Content = bytes | mmap
"""The content of a file; a large one is mapped, not held in memory."""


class LeftToLease(Exception):
    """A machine that has to be terminated does not answer. What runs there stops by itself when its lease expires."""


LeftToLeash = LeftToLease
"""The former name of `LeftToLease`."""


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
        Whether a command's standard input ends when the driver's process does, by which a node notices that the driver
        is gone. Where it does not, what is started there needs a lease until the node has its own: the machine ends it
        when the driver has not written the file `alive` into the folder for as many seconds as the file `lease` says,
        15 without that file.
    shares_memory
        Whether processes there can open anonymous memory of this process by its path under `/proc`, and the other way
        round: this machine, this user, and Linux.
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
    """A host that knows how much of the data sent has arrived, to distinguish a slow connection from a dead one."""

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
        """Whether a bootstrap script must install on its machines what a node needs."""
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
        """Terminate the machine and everything on it, and return when that is confirmed.

        Terminating a machine that is already gone is no error.

        Raises
        ------
        LeftToLease
            It cannot be terminated from here, and trying again would not help.
        """
        ...


@runtime_checkable
class SupportsNotices(Protocol):
    """A provider whose machines are told that they are about to be reclaimed."""

    @property
    def notices(self) -> str:
        """The source of notices, as named in `skyward.remote.node.interruption`; empty for none."""
        ...


@runtime_checkable
class SupportsClear(Protocol):
    """A provider whose machines share something that has to be removed after them."""

    async def clear(self, pool: str) -> Sequence[str]:
        """Remove what the pool's machines shared, after they are terminated; return the names of what could not be
        removed."""
        ...
