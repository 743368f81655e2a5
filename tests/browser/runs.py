"""Runs that never were, of any size, as their events."""

import random
from collections.abc import Iterator

from skyward.events import (
    BatchesArrived,
    BatchesEnded,
    BatchLost,
    BatchRetried,
    Event,
    Logged,
    NodeChanged,
    NodeFacts,
    NodeHeard,
    NodeNoticed,
    NodeSilent,
    NodeStep,
    Printed,
    Quoted,
    RunEnded,
    RunStarted,
    Spent,
    Stage,
)
from skyward.telemetry.report import LostTime, NodeUse, Report

STAGES: tuple[Stage, ...] = ("launching", "reaching", "booting", "joining", "ready")


def start(nodes: int, slots: int, name: str = "1125-made") -> Iterator[Event]:
    """Nodes that start, each a bit later."""
    yield RunStarted(1_795_000_000.0, name, "aws", nodes, nodes, slots, "process", "train.py", "0.1.0", "3.12.1")
    yield Quoted(1_795_000_000.1, f"{nodes} x c7g.2xlarge (spot): $1.45 an hour", "c7g.2xlarge", nodes, 1.45)
    for node in range(nodes):
        for step, stage in enumerate(STAGES):
            at = 1_795_000_000.2 + step * 4 + node * 0.3
            ready = slots if stage == "ready" else 0
            yield NodeChanged(at, node, 0, stage, "", f"i-{node:04x}", f"10.0.0.{node}", ready)
            if stage == "booting":
                yield NodeStep(at + 1, node, "packages")


def work(nodes: int, slots: int, tasks: int, seconds: float = 1.0) -> Iterator[Event]:
    """So many tasks on these nodes, told some at a time."""
    luck = random.Random(7)
    begin = 1_795_000_020.0 + nodes * 0.3
    yield BatchesArrived(begin, tasks, tasks)
    free = [[begin] * slots for _ in range(nodes)]
    number, rounds = 0, 0
    while number < tasks:
        node = rounds % nodes
        rounds += 1
        batches, of, ran = [], [], []
        for slot in range(slots):
            for _ in range(2):
                length = luck.uniform(0.4, 1.6) * seconds
                free[node][slot] += length + 0.02 * seconds
                batches.append(number)
                of.append(slot)
                ran.append(length)
                number += 1
        many = len(batches)
        statuses = ["returned"] * many
        if rounds % 50 == 7:
            statuses[0] = ("raised", "overdue", "died")[rounds % 3]
        end, numbers, names = max(free[node]), tuple(batches), ("train",)
        yield BatchesEnded(
            end, node, numbers, tuple(of), tuple(ran), tuple(statuses), (1,) * many, 100, (), names, numbers
        )


def troubled(nodes: int = 4, slots: int = 4, tasks: int = 2000) -> list[Event]:
    """A run on EC2 with silences, a notice, a node that is lost, retries, a call that is lost, and what it cost."""
    events = [*start(nodes, slots), *work(nodes, slots, tasks)]
    at = 1_795_000_060.0
    silence, causes = "node 3: not heard for 30 s", ("killed by signal 9 (SIGKILL), out of memory", "exit code 1")
    events += [
        NodeSilent(at, 1, 30.0),
        NodeHeard(at + 12, 1),
        NodeNoticed(at + 20, 2, "spot interruption in 120 s"),
        NodeSilent(at + 25, 3, 30.0),
        NodeChanged(at + 55, 3, 0, "ending", "not heard for 30 s", "i-0003", "10.0.0.3"),
        NodeChanged(at + 56, 3, 1, "launching"),
        NodeChanged(at + 66, 3, 1, "booting", "", "i-00ff", "10.0.0.77"),
        NodeChanged(at + 80, 3, 1, "ready", "", "i-00ff", "10.0.0.77", slots),
        *(BatchRetried(at + 55, number, silence, 3, f"train, task {number}") for number in range(8)),
        BatchLost(at + 90, 5, causes, 1, "train, task 5"),
        *(Printed(at + number, 1, 0, "stdout", f"epoch {number}: <b>loss</b>\n") for number in range(-38, 40)),
        *(
            NodeFacts(
                at + 2 * number, node, 0, slots, 3.5, (16 - number % 13) << 30, abs(number % 20 - 10) / 10, 16 << 30
            )
            for number in range(-18, 20)
            for node in range(nodes)
        ),
        Logged(at + 5, 3, 2, "train", 30, "slow disk", "Traceback\nOSError: slow"),
        *(Spent(at + 3 * number, 0.01 + number * 0.0012, 1.45) for number in range(40)),
    ]
    events.sort(key=lambda event: event.at)
    return events


def ended(events: list[Event], tasks: int, error: str = "") -> list[Event]:
    """The same run with its end."""
    lost = LostTime(start=0.04, serialization=0.01, idle=0.02, tail=0.05, link=0.03)
    nodes = {node: NodeUse(4, tasks // 4, (tasks / 16,) * 4, 10_000_000, 3_000_000) for node in range(4)}
    retries = {"node 3: not heard for 30 s": 8}
    report = Report(tasks, tasks, 1, 0, tasks + 8, retries, 0, nodes, tasks / 14, tasks * 1.15, tasks * 0.9775, lost)
    last = events[-1].at + 2
    going: tuple[tuple[float, Stage], ...] = ((1, "ending"), (0.5, "ended"))
    ends = [NodeChanged(last - number, node, 0, stage, "dismissed") for node in range(4) for number, stage in going]
    return [*events, *ends, RunEnded(last, error, (), report.as_dict())]


def importing() -> list[Event]:
    """A run of one call of ten seconds, of which a module took half."""
    begin, calls = 1_795_000_060.0, ((0,), (0,), (5.0,), ("returned",), (1,))
    nodes = {0: NodeUse(1, 1, (5.0,), 100, 100)}
    report = Report(1, 1, 0, 0, 1, {}, 0, nodes, 10.0, 10.0, 5.0, LostTime(opening=0.5), {"slow": 5.0})
    return [
        *start(1, 1),
        BatchesArrived(begin, 1, 1),
        BatchesEnded(begin + 10, 0, *calls, 100, (), ("train",), (0,), (5.0,), {"slow": 5.0}),
        RunEnded(begin + 12, "", (), report.as_dict()),
    ]
