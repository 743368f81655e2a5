"""`python -m bench SCENARIO`: the command line. Prints one JSON line per run on standard output, and nothing else."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence

from bench.backends import BACKENDS, NotInstalledError
from bench.measure import Line, failed, run
from bench.plan import BatchSize, Plan, Shape
from bench.scenarios import SCENARIOS, SUITES
from bench.versus import in_turn


def main(words: Sequence[str] | None = None) -> int:
    """Run what the words ask for; 0 when every run gave figures."""
    asked = _parser().parse_args(words)
    code = 0
    for line in _lines(asked):
        print(json.dumps(line), flush=True)
        if "error" in line:
            print(f"{line['backend']}: {line['error']}", file=sys.stderr)
            code = 1
    return code


def _lines(asked: argparse.Namespace) -> Iterator[Line]:
    for scenario in SUITES.get(asked.scenario, (asked.scenario,)):
        plan = _plan(asked, scenario)
        yield from in_turn(plan, asked.vs, asked.limit) if asked.vs else _one(plan)


def _one(plan: Plan) -> Iterator[Line]:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            line = run(plan)
    except NotInstalledError as missing:
        line = failed(plan, str(missing))
    yield line


def _plan(asked: argparse.Namespace, scenario: str) -> Plan:
    return Plan(
        scenario=scenario,
        backend=asked.backend,
        shape=Shape(asked.nodes, asked.concurrency),
        tasks=asked.tasks or SCENARIOS[scenario].tasks,
        seconds=asked.seconds,
        batch_size=asked.batch_size,
        by_value=asked.main,
        executor=asked.executor,
        repeat=asked.repeat,
        settle=asked.settle,
        warm_limit=asked.warm_limit,
        round_trip=asked.round_trip,
        loss=asked.loss,
    )


def _parser() -> argparse.ArgumentParser:
    scenarios = "\n".join(f"  {name:<12}{scenario.about}" for name, scenario in SCENARIOS.items())
    suites = "\n".join(f"  {name:<12}{', '.join(members)}" for name, members in SUITES.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure one scenario on one backend, or on several in turn.",
        epilog=f"scenarios:\n{scenarios}\nseveral, one after the other:\n{suites}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("scenario", choices=[*SCENARIOS, *SUITES], metavar="SCENARIO", help="see below")
    add("--backend", choices=BACKENDS, default="skyward", help="where it runs (default: skyward)")
    add("--vs", choices=BACKENDS, nargs="+", default=[], help="run these too, in turn, and print the ratio")
    add("--nodes", type=_count, default=10, help="default: 10")
    add("--concurrency", type=_count, default=10, help="slots of each node (default: 10)")
    add("--tasks", type=_count, help="tasks or calls (default: the scenario's)")
    add("--seconds", type=_seconds, default=5.0, help="length of a task in `seed` and `far` (default: 5)")
    add("--batch-size", type=_batch_size, default="auto", help="joblib's batch_size (default: auto)")
    add(
        "--main",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="functions travel by value, as those of a user's script do (default), or by name",
    )
    add("--executor", choices=("process", "thread"), default="process", help="Skyward's slots (default: process)")
    add("--repeat", type=_count, default=1, help="measure so often; figures are medians, min and max beside them")
    add("--settle", type=_seconds, default=2.0, help="seconds of rest before `memory` looks (default: 2)")
    add("--warm-limit", type=_seconds, default=60.0, help="longest wait for all workers to have worked (default: 60 s)")
    add("--round-trip", type=_seconds, default=0.08, help="to a host of the lab and back in `far` (default: 0.08 s)")
    add("--loss", type=_share, default=0.0, help="share of packets that are lost each way in `far` (default: 0)")
    add("--limit", type=_seconds, default=1800.0, help="with --vs: give a backend up after so long (default: 1800 s)")
    return parser


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return count


def _seconds(text: str) -> float:
    if not (seconds := float(text)) >= 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return seconds


def _share(text: str) -> float:
    if not 0 <= (share := float(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to less than 1")
    return share


def _batch_size(text: str) -> BatchSize:
    return "auto" if text == "auto" else _count(text)


if __name__ == "__main__":
    sys.exit(main())
