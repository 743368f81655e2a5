"""What is known of the nodes of a pool: one record for each number.

The provisioner says which nodes there should be, the supervisor of a node what has become of it. Whoever only asks may
do so from any thread.
"""

import logging
import time
from dataclasses import dataclass, field
from itertools import pairwise

from skyward.actors.node_client import NodeClient
from skyward.errors import NodeError, PoolFailed, SkywardError
from skyward.providers.provider import LeftToLease
from skyward.telemetry.node import Node

log = logging.getLogger("skyward")


@dataclass(slots=True)
class NodeRecord:
    """What is known of the machines that come one after the other under one number.

    Attributes
    ----------
    requested
        Whether the number was ever asked for and its node is neither draining nor drained.
    client
        The connection to the node while it takes calls, also while it is draining.
    node, mounts
        The last node that was ready, until it is given up, and the tokens of its mounts (see `skyward.remote.mounts`).
    steps
        The steps of the last start, and when each began.
    problem
        What went wrong last.
    """

    requested: bool = False
    client: NodeClient | None = None
    node: Node | None = None
    mounts: frozenset[str] = frozenset()
    steps: list[tuple[str, float]] = field(default_factory=list)
    problem: BaseException | None = None


class NodeTable:
    """The nodes of a pool by number, and the machines that could not be terminated."""

    def __init__(self) -> None:
        self._records: dict[int, NodeRecord] = {}
        self._left: dict[str, float] = {}  # until when, on the monotonic clock, its lease lets a machine live

    def _record(self, number: int) -> NodeRecord:
        return self._records.setdefault(number, NodeRecord())

    def _sorted(self) -> list[tuple[int, NodeRecord]]:
        return sorted(self._records.items(), key=lambda item: item[0])

    # ------------------------------------------------------------ what the provisioner knows

    def request(self, number: int) -> None:
        """A node is being started under this number."""
        self._record(number).requested = True

    def drain(self, number: int) -> None:
        """The node finishes what it runs, and leaves."""
        self._record(number).requested = False

    def give_up(self, number: int) -> None:
        """The node is gone, and no other comes."""
        self._record(number).node = None

    def error(self, number: int, reason: str) -> BaseException:
        """Return the error for the user about a node that is not available."""
        match self._record(number).problem:
            case None:
                return NodeError(f"node {number}: {reason}")
            case SkywardError() as problem:
                return problem
            case problem:
                failed = PoolFailed(f"node {number}: {reason}")
                failed.__cause__ = problem
                return failed

    # ------------------------------------------------------------ what the supervisors know

    def note_step(self, number: int, step: str, at: float) -> None:
        """A node that is being started has come to this step; the first one is `launching`."""
        record = self._record(number)
        if step == "launching":
            record.steps = []
        record.steps.append((step, at))

    def note_problem(self, number: int, problem: BaseException) -> None:
        """Something went wrong with the node."""
        self._record(number).problem = problem

    def up(self, node: Node, mounts: frozenset[str], client: NodeClient) -> None:
        """The node takes calls."""
        record = self._record(node.number)
        record.node, record.mounts, record.client = node, mounts, client

    def down(self, number: int) -> None:
        """The node takes no more calls."""
        self._record(number).client = None

    def leave(self, machine: str, why: LeftToLease, lease: float) -> None:
        """A machine cannot be terminated from here; its lease of so many seconds ends what runs there."""
        log.warning("%s: %s; its processes will stop by themselves within %.0f s", machine, why, lease)
        self._left.setdefault(machine, time.monotonic() + lease)

    def terminated(self, machine: str) -> None:
        """A machine that was left has been terminated after all."""
        self._left.pop(machine, None)

    # ------------------------------------------------------------ what anybody may ask

    def client(self, number: int) -> NodeClient | None:
        """Return the connection to a node, if it takes calls."""
        record = self._records.get(number)
        return None if record is None else record.client

    def clients(self) -> dict[int, NodeClient]:
        """Return the connections to all nodes that take calls."""
        return {number: client for number, each in self._sorted() if (client := each.client) is not None}

    def ready(self) -> tuple[Node, ...]:
        """Return the nodes that take calls, by number."""
        return tuple(node for _, each in self._sorted() if each.client is not None and (node := each.node) is not None)

    def known(self) -> tuple[Node, ...]:
        """Return the nodes that take calls or are being replaced."""
        return tuple(node for _, each in self._sorted() if (node := each.node) is not None)

    def numbers(self, *, ready: bool) -> list[int]:
        """Return the numbers of all nodes that were requested and are not draining; with `ready`, that take calls."""
        return [number for number, each in self._sorted() if each.requested and (each.client is not None or not ready)]

    def mounts(self) -> list[frozenset[str]]:
        """Return the tokens of the mounts of each node that takes calls."""
        return [each.mounts for _, each in self._sorted() if each.client is not None]

    def starts(self) -> dict[int, tuple[tuple[str, float], ...]]:
        """Return the steps of each node's last start, and the seconds that each took."""
        return {
            number: tuple((name, round(end - at, 3)) for (name, at), (_, end) in pairwise(tuple(each.steps)))
            for number, each in self._sorted()
            if each.steps
        }

    def left(self) -> dict[str, float]:
        """Return the machines that could not be terminated, and the seconds until their leases have ended."""
        clock = time.monotonic()
        return {machine: max(until - clock, 0.0) for machine, until in tuple(self._left.items())}
