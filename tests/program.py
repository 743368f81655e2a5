"""Programs that use a pool: on a terminal of their own, and in a notebook."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pexpect
import pyte
import pytest

from tests import kit
from tests.terminal import rows

ROOT = Path(__file__).parents[1]
HEAD = """
import sys
import skyward as sky
from joblib import Parallel, delayed
from tqdm import tqdm
from tests import kit, work

def pool(**options):
    options = sky.Options(record=False, **options)
    plugins = [sky.plugins.joblib()]
    image = sky.Image(preload=["tests.work"])  # else slots may take so long to import it that this is the last line
    return sky.Compute(nodes=2, worker=sky.Worker(concurrency=2), image=image, options=options, plugins=plugins)
"""
BAR = "slots busy"


class Program:
    """A program on a terminal of its own, and all that was ever seen there."""

    def __init__(self, folder: Path, body: str) -> None:
        path = folder / "program.py"
        path.write_text(HEAD + body)
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
        self.child: pexpect.spawn[bytes] = pexpect.spawn(
            sys.executable, [str(path)], env=env, dimensions=(30, 100), timeout=kit.SOON
        )
        self.screen = pyte.HistoryScreen(100, 30, history=2000)
        self._stream = pyte.ByteStream(self.screen)
        self._deadline = time.monotonic() + 150

    def frames(self) -> Iterator[list[str]]:
        """Yield what is seen, each time that something has been written, until the program has ended."""
        while True:
            assert time.monotonic() < self._deadline, rows(self.screen)
            try:
                self._stream.feed(self.child.read_nonblocking(1 << 16, timeout=kit.SOON))
            except pexpect.EOF:
                self.child.close()
                return
            yield rows(self.screen)

    def until(self, *texts: str) -> list[str]:
        """Wait until each text is seen in a line."""
        return next(seen for seen in self.frames() if all(any(text in line for line in seen) for text in texts))

    def stop(self) -> None:
        """Have it end its pool, if it has not ended."""
        if self.child.isalive():
            self.child.kill(signal.SIGINT)
            try:
                self.child.expect(pexpect.EOF)
            finally:
                self.child.close(force=True)

    def end(self) -> list[str]:
        """Return what is seen when the program has ended well."""
        for _ in self.frames():
            pass
        assert self.child.exitstatus == 0, rows(self.screen)
        return rows(self.screen)


type Start = Callable[[str], Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program on a terminal, and sees it end."""
    with ExitStack() as programs:

        def begin(body: str) -> Program:
            program = Program(tmp_path, body)
            programs.callback(program.stop)
            return program

        yield begin


NOTEBOOK = """
import json, nbclient, nbformat, sys
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(sys.argv[1])])
nbclient.NotebookClient(book, timeout=140, kernel_name="python3").execute()
print(json.dumps(book.cells[0].outputs))
"""


def notebook(body: str, folder: Path) -> list[dict[str, Any]]:
    """Return the outputs of a notebook's cell."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder), "JUPYTER_CONFIG_DIR": str(folder)}
    command = [sys.executable, "-W", "ignore", "-c", NOTEBOOK, HEAD + body]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=150, check=True)
    outputs: list[dict[str, Any]] = json.loads(ran.stdout)
    return outputs
