"""joblib on a pool: 2000 tasks of five seconds, on 10 nodes with 10 slots each, with `n_jobs=-1`."""

import argparse
import time

from joblib import Parallel, delayed

import skyward as sky

PROVIDERS = {"local": sky.Local}


def slow_task(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", choices=PROVIDERS, default="local")
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--concurrency", type=int, default=10, help="slots of each node")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each task sleeps")
    given = parser.parse_args()

    with sky.Compute(
        provider=PROVIDERS[given.provider](),
        nodes=given.nodes,
        worker=sky.Worker(concurrency=given.concurrency),
        plugins=[sky.plugins.joblib()],
    ) as compute:
        Parallel(n_jobs=-1)(delayed(slow_task)(given.seconds) for _ in range(given.tasks))

    print(compute.report())


if __name__ == "__main__":
    main()

# Tasks: ...
# Nodes: ...
# Concurrency: ...
# Effective workers: ...
# Total time: ... s
# Throughput: ... tasks/s
# Ideal time: ... s
# Efficiency: ...%
