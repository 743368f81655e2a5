"""The contract of a provider, which launches machines and connects to them.

A provider launches machines, finds those of a pool, connects to one and terminates it. It knows nothing of slots,
batches or plugins: what runs on a machine is passed to `Host` as files and a command.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Protocol

from skyward.providers.checkup import Finding, Needs


@dataclass(frozen=True, slots=True)
class Quote:
    """What machines that are about to be launched will cost.

    Attributes
    ----------
    machine, zone, count
        What they are, where, and how many.
    hourly
        Dollars an hour of each, with the `extras` that are named; None if that is not known, for the `problem` said.
    """

    machine: str
    zone: str
    count: int
    hourly: float | None
    extras: str = ""
    problem: str = ""


class Purse(Protocol):
    """Who pays for machines."""

    @property
    def limited(self) -> bool:
        """Whether no machine may be launched whose price is not known."""
        ...

    def check(self, quote: Quote) -> None:
        """Hear what machines will cost, just before they are launched.

        Raises
        ------
        BudgetExceeded
            They must not be.
        """
        ...

    def begin(self, machine: str, hourly: float | None) -> None:
        """Hear that a machine is there, by its id, as soon as that is known: what is checked next counts it.

        That it was launched and that it has ended is noted by whoever ordered it, too; it may be said twice.
        """
        ...

    def left(self) -> float | None:
        """Return the seconds after which the money is used up, so that no machine may be there then; None: never."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What to launch: one machine for the pool `pool`, tagged with it and with `node`, which is unique.

    `node` is also the client token: launching the same order twice gives one machine. `lease` is how many seconds a
    machine that costs money waits for a sign of the driver before it ends itself, and `purse` is asked before it is
    launched. `wanted` says whether it still is: a launch that goes from place to place asks it before each attempt.
    """

    pool: str
    node: str
    lease: float = 300.0
    purse: Purse | None = None
    wanted: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine that was launched: the provider's `id` for it, and the tags of its order.

    `slots` is how many tasks it runs at once, if the provider was told that of this machine. It costs `hourly` dollars
    an hour, if it costs something and that is known.
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
    """A machine that was reached.

    One that is far away also has `acknowledged()`, the bytes that it has received over the tunnels so far: it tells a
    slow line from a dead one.

    Attributes
    ----------
    folder
        Absolute path of a folder on the machine that only this node uses.
    python
        The command that starts Python there.
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
        """Write files into `folder`, readable by nobody else."""
        ...

    async def start(self, command: Sequence[str]) -> Process:
        """Start a command."""
        ...

    async def tunnel(self, port: int) -> int:
        """Return a port of 127.0.0.1 here that leads to `port` of 127.0.0.1 there."""
        ...

    async def close(self) -> None:
        """Release the machine. What runs on it continues to run."""
        ...


class Examinable(Protocol):
    """A provider that can say what is right and what is wrong before anything is launched; not every one can."""

    async def examine(self, needs: Needs) -> Mapping[str, Sequence[Finding]]:
        """Return what was found, by machine; what concerns no machine is under `here`.

        Raises
        ------
        MissingExtra
            A library is not installed.
        """
        ...


class Provider(Protocol):
    """A source of machines. Every method may be called again after it failed.

    A provider of your own may leave out `clear` and `notices`. If it has a fixed number of machines, it has an
    attribute `capacity`: a pool of more nodes is refused when it is made.
    """

    @property
    def name(self) -> str:
        """The provider's name in log lines and errors."""
        ...

    @property
    def bare(self) -> bool:
        """Whether its machines lack what a node needs, so that a bootstrap script must install it."""
        ...

    @property
    def notices(self) -> str:
        """The notice by which a machine learns that it is about to be reclaimed, as `remote.notice` calls it; empty for
        none."""
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

    async def clear(self, pool: str) -> Sequence[str]:
        """Remove what the pool's machines shared, after they are terminated; return the names of what could not be
        removed."""
        ...
