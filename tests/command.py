"""The command `skyward`: as a process of its own, and in this one where the process is not the point."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import IO

import pytest

from skyward.cli.main import main

ENDS = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
type Ran = subprocess.CompletedProcess[str]


def run(folder: Path, *words: str, stdout: int | IO[str] = subprocess.PIPE, **environment: str) -> Ran:
    """Run it in a process of its own, in `folder`, which also has its records."""
    command = [sys.executable, "-m", "skyward", *words]
    env = os.environ | ENDS | {"XDG_STATE_HOME": str(folder / "state"), "PYTHONUNBUFFERED": ""} | environment
    return subprocess.run(
        command, env=env, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=150, check=False
    )


def run_here(folder: Path, *words: str, **environment: str) -> Ran:
    """Run it in this process: as `run` does, for commands that start nothing and end by themselves."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", [])
        patch.setattr(sys, "path", sys.path[:])
        for name, value in (ENDS | {"XDG_STATE_HOME": str(folder / "state")} | environment).items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main(words)
    for each in (out, err):
        each.seek(0)
    return subprocess.CompletedProcess(words, ended.value.code or 0, out.read(), err.read())  # type: ignore[arg-type]
