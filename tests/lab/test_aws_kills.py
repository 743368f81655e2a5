"""The kill grid: drivers that are killed, interrupted or cut off before and after each call and in each state.

Whatever happens to a driver, after at most its lease nothing of its pool is there: no machine, group or key pair. A
cell says what happens, when, and to what kind of pool; they are drawn with fixed seeds. `make lab` runs a few of them,
`make kills` all.

A driver that is cut off can remove nothing, and nobody else is told: its machines end themselves, and what is free, its
security group, goes when the network is back, by its guard.
"""

import logging
import math
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cloud import Cloud
from tests.lab.driver import Driver, Drivers
from tests.lab.endpoint import Call
from tests.lab.host import BOOTED
from tests.lab.lab import NEAR
from tests.lab.test_aws_pool import guards

log = logging.getLogger("lab")

LEASE, FIRST_CONTACT = 6.0, 10.0
SLACK = 30.0
"""Seconds that everything may take longer on a machine that runs many cells at once."""

CALLS = (
    ("DescribeInstanceTypes", 1),
    ("DescribeInstanceTypeOfferings", 1),
    ("GetParameter", 1),
    ("GetProducts", 1),
    ("DescribeImages", 1),
    ("CreateSecurityGroup", 1),
    ("AuthorizeSecurityGroupIngress", 1),
    ("RunInstances", 1),
    ("DescribeInstances", 1),
    ("DescribeInstances", 2),
    ("TerminateInstances", 1),
    ("DescribeInstances", 3),
    ("DescribeSecurityGroups", 1),
    ("DeleteSecurityGroup", 1),
    ("DeleteSecurityGroup", 2),
)
"""The calls of a usual pool: the first of an action, the second, ..."""

STATES = ("Reaching(", "Booting(", "Joining(", "Ready(", "in the block", "Ending(")
"""What a driver says when it comes into a state."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One driver: what happens to it (`kill`, `interrupt`, `cut`), when, and what pool it has.

    `moment` is `before` or `after` a call, or `in` a state, then `delay` seconds later.
    """

    number: int
    what: str
    moment: str
    point: tuple[str, int]
    delay: float
    nodes: int
    spot: bool
    throttled: float

    @property
    def key(self) -> str:
        """The access key of its driver, by which its calls and machines are known."""
        return f"cell{self.number}"

    def __str__(self) -> str:
        return f"cell {self.number}: {self.what} {self.moment} {self.point[0]} {self.point[1]}, {self.nodes} nodes"


def draw(seed: int, count: int) -> list[Cell]:
    """Draw cells: each combination of call, moment and what happens in turn, and everything else by luck."""
    luck = random.Random(seed)
    moments: list[tuple[str, tuple[str, int]]] = [(moment, call) for call in CALLS for moment in ("before", "after")]
    moments += [("in", (state, 0)) for state in STATES]
    every = [(what, *moment) for moment in moments for what in ("kill", "interrupt", "cut")]
    chosen = [each for _ in range(math.ceil(count / len(every))) for each in luck.sample(every, len(every))][:count]
    return [
        Cell(
            seed * 1000 + number,
            what,
            moment,
            point,
            luck.choice([0.0, luck.uniform(0, 0.4)]) if moment == "in" else 0.0,
            luck.choice([1, 2, 2, 3]),
            luck.random() < 0.2,
            luck.choice([0.0, 0.0, 0.1]),
        )
        for number, (what, moment, point) in enumerate(chosen)
    ]


class Run:
    """A cell that runs."""

    def __init__(self, cell: Cell, cloud: Cloud, drivers: Drivers, folder: Path) -> None:
        self.cell, self.cloud = cell, cloud
        self.happened = self.took = 0.0
        if cell.throttled:
            mine = {"match": lambda call: call.key == cell.key}
            cloud.fail("*", "RequestLimitExceeded", times=math.inf, share=cell.throttled, **mine)
        if cell.moment != "in":
            self._wait_for_call()
        provider: dict[str, Any] = {
            "allow": NEAR,
            "journal": str(folder / f"{cell.key}.jsonl"),
            "first_contact": FIRST_CONTACT,
            "max_lifetime": 200.0,
            "tags": {"cell": cell.key},
            "spot": cell.spot,
        }
        lasts = 0.02 if cell.moment != "in" or cell.point[0] == "Ending(" else 1000
        options = {"lease": LEASE, "grace": 1, "start_timeout": 2 * BOOTED}
        job = {"provider": provider, "nodes": cell.nodes, "options": options, "seconds": lasts}
        self.driver: Driver = drivers.start(folder / cell.key, cloud.environment(cell.key), **job)

    def _wait_for_call(self) -> None:
        seen = 0

        def counts(call: Call) -> bool:
            nonlocal seen
            if call.key != self.cell.key or call.action != self.cell.point[0]:
                return False
            seen += 1
            return seen == self.cell.point[1]

        self.cloud.endpoint.faults.insert(
            0, self.cloud.fail(self.cell.point[0], match=counts, do=self._happen, after=self.cell.moment == "after")
        )

    def _happen(self, call: Call | None = None) -> None:
        match self.cell.what:
            case "kill":
                self.driver.kill()
            case "interrupt":
                self.driver.kill(signal.SIGINT)
            case "cut":
                self._cut()
        self.happened = time.monotonic()

    def _cut(self) -> None:
        self.cloud.endpoint.cut(self.cell.key)
        for machine in self.cloud.machines(cell=self.cell.key):
            if (host := self.cloud.hosts.get(machine.id)) is not None and host.is_alive:
                host.cut()

    def finish(self) -> str:
        """Wait for what the cell is about, and see that nothing is left; returns what is wrong."""
        if self.cell.moment == "in":
            if not wait(lambda: self.cell.point[0] in self.driver.said or not self.driver.is_alive, 2 * BOOTED):
                return f"{self.cell}: it never came into that state: {self.driver.said[-2000:]}"
            time.sleep(self.cell.delay)  # this is the cell, not a wait
            self._happen()
        if not wait(lambda: self.happened or not self.driver.is_alive, 2 * BOOTED):
            return f"{self.cell}: it hangs: {self.driver.said[-2000:]}"
        if self.cell.what == "cut" and self.happened:
            if not wait(lambda: not self.cloud.living(cell=self.cell.key), max(LEASE, FIRST_CONTACT) + SLACK):
                return f"{self.cell}: {self._left()} outlived the lease, cut off"
            self.driver.kill()
            self.cloud.endpoint.mend(self.cell.key)
        elif self.cell.what == "interrupt" and not wait(lambda: not self.driver.is_alive, BOOTED):
            return f"{self.cell}: it does not leave: {self.driver.said[-2000:]}"
        if not wait(lambda: not self._left() and not self.driver.is_alive, LEASE + SLACK):
            return f"{self.cell}: {self._left()} is left: {self.driver.said[-2000:]}"
        self.took = time.monotonic() - self.happened if self.happened else 0.0
        return ""

    def _left(self) -> list[str]:
        machines = [machine.id for machine in self.cloud.machines(cell=self.cell.key)]
        return [*machines, *self.cloud.groups(cell=self.cell.key), *self.cloud.keys()]


def wait(true: Any, seconds: float) -> bool:
    """Look until it is true; whether it ever was."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(scope="module")
def drivers() -> Iterator[Drivers]:
    with Drivers() as opened:
        yield opened


def grid(cells: list[Cell], cloud: Cloud, drivers: Drivers, folder: Path, at_once: int) -> None:
    """Run these cells, so many at once, and log how long it took at most until nothing was left."""
    happened: list[Run] = []

    def one(cell: Cell) -> str:
        run = Run(cell, cloud, drivers, folder)
        wrong = run.finish()
        if wrong:
            run.driver.kill()  # its guard does the rest, and nothing of it is there when the next run has the same keys
        happened.extend([run] if run.happened else [])
        return wrong

    with ThreadPoolExecutor(at_once) as running:
        wrong = [each for each in running.map(one, cells) if each]
    wait(lambda: not any(guards(cell.key) for cell in cells), 90)
    assert [str(cell) for cell in cells if guards(cell.key)] == []
    for what in ("kill", "interrupt", "cut"):
        took = sorted(run.took for run in happened if run.cell.what == what)
        text = "%s: %d cells; until nothing was left: median %.1f s, longest %.1f s"
        log.info(text, what, len(took), took[len(took) // 2], took[-1])
    assert not wrong, "\n\n".join(wrong)
    assert cloud.left() == []
    assert len(happened) >= 0.9 * len(cells)  # a call that never came is no cell


@pytest.mark.timeout(590)
def test_a_few_cells_leave_nothing(cloud: Cloud, drivers: Drivers, tmp_path: Path) -> None:
    grid(draw(1, 18), cloud, drivers, tmp_path, at_once=4)


@pytest.mark.slow
@pytest.mark.timeout(590)
@pytest.mark.parametrize("seed", range(10, 16))
def test_every_cell_leaves_nothing(cloud: Cloud, drivers: Drivers, tmp_path: Path, seed: int) -> None:
    cloud.used = False
    grid(draw(seed, 51), cloud, drivers, tmp_path, at_once=6)
