"""joblib on a pool: 2000 tasks of five seconds, on 10 nodes with 10 slots each, with `n_jobs=-1`."""

import argparse
import time

from joblib import Parallel, delayed

import skyward as sky


def slow_task(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", choices=["local", "ssh", "aws"], default="local")
    parser.add_argument("--hosts", nargs="+", default=[], help="with ssh: machines as you name them to ssh")
    parser.add_argument("--config", help="with ssh: a configuration file instead of ~/.ssh/config")
    parser.add_argument("--region", help="with aws: instead of your configuration's")
    parser.add_argument(
        "--allow",
        default="https://checkip.amazonaws.com",
        help="with aws: the address from which you reach the machines",
    )
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--concurrency", type=int, default=10, help="slots of each node")
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each task sleeps")
    given = parser.parse_args()

    provider: sky.Local | sky.SSH | sky.AWS = sky.Local()
    if given.provider == "ssh":
        provider = sky.SSH(hosts=given.hosts, config=given.config)
    if given.provider == "aws":
        provider = sky.AWS(region=given.region, allow=given.allow)
    with sky.Compute(
        provider=provider,
        nodes=given.nodes,
        worker=sky.Worker(concurrency=given.concurrency),
        plugins=[sky.plugins.joblib()],
    ) as compute:
        Parallel(n_jobs=-1)(delayed(slow_task)(given.seconds) for _ in range(given.tasks))

    report = compute.report()
    nominal = given.tasks * given.seconds / report.slots / report.total
    print(report)
    print(f"Efficiency if each task takes {given.seconds:g} s: {nominal:.1%}")


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
# Efficiency if each task takes ... s: ...%
