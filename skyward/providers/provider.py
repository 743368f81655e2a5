"""The contract of a provider: where machines come from, and how one is reached.

A provider launches machines, finds the ones of a pool again, reaches one and ends it. It knows nothing of slots,
batches or plugins: what runs on a machine is handed to `Host` as files and a command.
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
    """A machine that has to be ended does not answer. What runs there ends itself, when its lease is over."""


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
        """Let go of the machine. What runs on it goes on running."""
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
    """Where machines come from. Every method may be called again after it failed.

    One of your own may leave out `clear` and `notices`. One that has a fixed number of machines says how many by an
    attribute `capacity`: a pool of more nodes is refused when it is made.
    """

    @property
    def name(self) -> str:
        """The provider's name in log lines and errors."""
        ...

    @property
    def bare(self) -> bool:
        """Whether its machines have nothing of what a node needs, so that they are given a script that brings it."""
        ...

    @property
    def notices(self) -> str:
        """What on its machines says that one is about to be taken away, as `remote.notice` calls it; empty for none."""
        ...

    async def launch(self, order: Order) -> Instance:
        """Launch one machine, or return the one that this order already launched.

        Raises
        ------
        ProvisioningError
            There is no machine to be had, and why.
        """
        ...

    async def reach(self, instance: Instance) -> Host:
        """Return the machine once commands can be run on it.

        Raises
        ------
        Unreachable
            It does not answer.
        """
        ...

    async def find(self, pool: str) -> Sequence[Instance]:
        """Return every machine of the pool that exists, or may still come to."""
        ...

    async def terminate(self, instance: Instance) -> None:
        """End the machine and everything on it; return when that is certain. One that is gone already is no error.

        Raises
        ------
        LeftToLeash
            It cannot be ended from here, and trying again would not help.
        """
        ...

    async def clear(self, pool: str) -> Sequence[str]:
        """Remove what the pool's machines shared, after their end; return the names of what could not be removed."""
        ...
