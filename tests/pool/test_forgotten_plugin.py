"""A program that forgot the joblib plugin hears of it; one that means what it does hears nothing."""

import json
import subprocess
import sys

import pytest

from skyward.plugins.joblib_watch import FIX

PROGRAM = """
import json, sys
import skyward as sky
from joblib import Parallel, delayed
from tests import work
from tests.kit import Dear

def locally():
    assert Parallel(n_jobs=2)(delayed(work.square)(x) for x in range(3)) == [0, 1, 4]

options, worker = sky.Options(console="off", record=False), sky.Worker(concurrency=1)
for provider, plugins, body in json.loads(sys.argv[1]):
    try:
        with sky.Compute(provider=eval(provider), worker=worker, options=options, plugins=eval(plugins)) as compute:
            exec(body)
    except LookupError:
        pass
    print("END", file=sys.stderr)
"""

AT_ONCE = f"a Parallel call runs on this machine, not on the pool: {FIX}"

RUNS = {
    ("sky.Local()", "[]", "locally(); locally()"): [AT_ONCE],
    ("Dear()", "[]", "locally()"): [AT_ONCE, "no call reached the pool, whose machines cost $"],
    ("Dear()", "[]", "assert compute.slots == 1"): [],
    ("sky.Local()", "[]", "compute.submit(work.square, 3).result(); locally()"): [],
    ("sky.Local()", "[]", "list(compute.map(work.square, [3])); locally()"): [],
    ("Dear()", "[]", "Parallel(n_jobs=1)([delayed(abs)(-1)]); raise LookupError"): [],
    ("sky.Local()", "[sky.plugins.joblib()]", "Parallel(n_jobs=1)([delayed(abs)(-1)])"): [],
    ("sky.Local()", "[]", "square = sky.remote(work.square); locally(); square(3)"): [],
}
"""The arguments of pools, what is done in their blocks, and what is said; a remote function counts from its birth."""


@pytest.fixture(scope="module")
def said() -> dict[tuple[str, str, str], list[str]]:
    """What a program says that opens one pool after the other."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(list(RUNS))], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    parts = ran.stderr.split("END\n")[:-1]
    return {run: part.splitlines() for run, part in zip(RUNS, parts, strict=True)}


@pytest.mark.parametrize("run", RUNS)
def test_a_forgotten_plugin_is_said_and_nothing_else(
    run: tuple[str, str, str], said: dict[tuple[str, str, str], list[str]]
) -> None:
    lines = said[run]
    assert len(lines) == len(RUNS[run]), lines
    assert all(line.startswith(text) for line, text in zip(lines, RUNS[run], strict=True)), lines
