"""The shells that may be on a machine, in the home of a user who has nothing."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(params=["sh", "dash", "bash"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Runs a text in the home of a user who has nothing."""

    def run(text: str) -> str:
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
        words = [request.param, "-c", text]
        ran = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=150, check=True)
        return ran.stdout

    return run
