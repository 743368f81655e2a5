"""Every kind of thing that a script defines: a call gives on a node what it gives here, or is refused at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("script", ["functions", "annotations", "values", "members", "classes", "objects"])
def test_what_a_script_defines_is_the_same_on_a_node(script: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", f"tests.kinds.{script}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    problems = json.loads(ran.stdout)
    assert len(problems) > 5
    assert {name: problem for name, problem in problems.items() if problem} == {}
