"""Pure: what one command asks for, and how to say it again to another interpreter."""

from dataclasses import dataclass
from typing import Literal

type BatchSize = int | Literal["auto"]


@dataclass(frozen=True, slots=True)
class Shape:
    """How many workers: `nodes` machines with `concurrency` slots each."""

    nodes: int
    concurrency: int

    @property
    def slots(self) -> int:
        """All slots together."""
        return self.nodes * self.concurrency


@dataclass(frozen=True, slots=True)
class Plan:
    """One scenario on one backend."""

    scenario: str
    backend: str
    shape: Shape
    tasks: int
    seconds: float
    batch_size: BatchSize
    by_value: bool
    executor: str
    repeat: int
    settle: float
    warm_limit: float
    round_trip: float
    loss: float

    def words(self) -> list[str]:
        """The command line that asks for this plan and no other backend."""
        return [
            self.scenario,
            f"--backend={self.backend}",
            f"--nodes={self.shape.nodes}",
            f"--concurrency={self.shape.concurrency}",
            f"--tasks={self.tasks}",
            f"--seconds={self.seconds}",
            f"--batch-size={self.batch_size}",
            "--main" if self.by_value else "--no-main",
            f"--executor={self.executor}",
            f"--repeat={self.repeat}",
            f"--settle={self.settle}",
            f"--warm-limit={self.warm_limit}",
            f"--round-trip={self.round_trip}",
            f"--loss={self.loss}",
        ]
