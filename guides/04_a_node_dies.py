"""A node that dies in mid-run costs only time: its calls move to other nodes, and another node replaces it."""

import os
import signal
import time
from pathlib import Path

import skyward as sky


def task(x: int) -> int:
    time.sleep(0.05)
    return x


def kill(node: sky.Node) -> None:
    """Kill a local node as a power cut would; a file in its folder names its processes."""
    parent, group = map(int, (Path(node.instance) / "pids").read_text().split())
    os.killpg(group, signal.SIGKILL)
    os.kill(parent, signal.SIGKILL)


if __name__ == "__main__":
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2)) as compute:
        first = compute.nodes[0]
        results = compute.map(task, range(100))
        print("the first result:", next(results))
        kill(first)
        print("the others:", list(results) == list(range(1, 100)))
        print("a new node 0:", compute.broadcast(task, 1) == [1, 1] and compute.nodes[0].instance != first.instance)

# the first result: 0
# the others: True
# a new node 0: True
