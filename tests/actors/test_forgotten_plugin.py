"""A program that forgot the joblib plugin hears of it; one that means what it does hears nothing."""

import subprocess
import sys

import pytest

from skyward.plugins.joblib_watch import FIX

PROGRAM = """
import joblib
import skyward as sky
from joblib import Parallel, delayed
from tests import work
from tests.kit import Dear

def locally():
    assert Parallel(n_jobs=2)(delayed(work.square)(x) for x in range(3)) == [0, 1, 4]

options, worker = sky.Options(console="off", record=False), sky.Worker(concurrency=1)
try:
    with sky.Compute(provider={provider}, worker=worker, options=options, plugins={plugins}) as compute:
        {body}
except LookupError:
    pass
"""

AT_ONCE = f"a Parallel call runs on this machine, not on the pool: {FIX}"


@pytest.mark.parametrize(
    ("provider", "plugins", "body", "said"),
    [
        ("sky.Local()", "[]", "locally(); locally()", [AT_ONCE]),
        ("Dear()", "[]", "locally()", [AT_ONCE, "no call reached the pool, whose machines cost $"]),
        ("Dear()", "[]", "assert compute.slots == 1", []),
        ("sky.Local()", "[]", "compute.submit(work.square, 3).result(); locally()", []),
        ("sky.Local()", "[]", "list(compute.map(work.square, [3])); locally()", []),
        ("sky.Local()", "[]", "square = sky.remote(work.square); locally(); square(3)", []),
        ("Dear()", "[]", "Parallel(n_jobs=1)([delayed(abs)(-1)]); raise LookupError", []),
        ("sky.Local()", "[sky.plugins.joblib()]", "Parallel(n_jobs=1)([delayed(abs)(-1)])", []),
    ],
)
def test_a_forgotten_plugin_is_said_and_nothing_else(provider: str, plugins: str, body: str, said: list[str]) -> None:
    program = PROGRAM.format(provider=provider, plugins=plugins, body=body)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr
    lines = ran.stderr.splitlines()
    assert len(lines) == len(said), ran.stderr
    assert all(line.startswith(text) for line, text in zip(lines, said, strict=True)), ran.stderr
