"""What tasks print and log meets no bar and no other open line, on a terminal and in a notebook."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pyte
import pytest

from tests.program import Start, notebook
from tests.program import start as start
from tests.terminal import rows

TALK = """
import logging, warnings
from rich.progress import Progress
from tqdm import auto, rich

warnings.simplefilter("ignore")
logging.basicConfig(format="%(message)s", level=logging.INFO)

def talk(number):
    import logging, sys
    work.sleep(0.02)
    print("says", number, flush=True)
    logging.getLogger("tasks").info("logs %d", number)
    print("complains", number, file=sys.stderr, flush=True)

def calls(numbers=range(16)):
    return Parallel(n_jobs=-1, return_as="generator", batch_size=1)(delayed(talk)(i) for i in numbers)

with Progress() as around, pool(console={}) as compute:
    for _ in around.track(compute.map(talk, range(16)), total=16):
        pass
    around.stop()
    for bar in (tqdm, auto.tqdm, rich.tqdm):
        for _ in bar(calls(), total=16, desc=bar.__module__):
            pass
    for _ in tqdm(calls(), total=16, colour="green", leave=False):
        pass
    for begin in tqdm((0, 8), desc="outer"):
        with tqdm(total=8, desc="inner", leave=False) as inner, tqdm(total=8, desc="third", leave=False) as third:
            for _ in calls(range(begin, begin + 8)):
                inner.update()
                third.update()
    with Progress() as progress:
        bars = [progress.add_task(f"bar {{number}}", total=16) for number in range(3)]
        for _ in calls():
            for each in bars:
                progress.advance(each)
    print("open", end="", flush=True)
    list(calls())
    print(" and closed")
    Parallel(n_jobs=-1, verbose=20, batch_size=1)(delayed(talk)(i) for i in range(16))
print("after")
"""


@pytest.mark.parametrize("console", ["auto", "plain", "off"])
def test_what_tasks_print_and_log_meets_no_bar(start: Start, console: str) -> None:
    seen = start(TALK.format(repr(console))).end()
    told = Counter(line.partition("] ")[2] for line in seen if line.startswith("[node "))
    expected = [f"{what} {number}" for what in ("says", "logs", "complains") for number in range(16)]
    assert told == dict.fromkeys(expected, 9)
    others = [line for line in seen if line and not line.startswith(("[node ", "skyward: "))]
    bars = ["Working", "tqdm.std", "tqdm.asyncio", "tqdm.rich", "outer", "bar 0", "bar 1", "bar 2"]
    for name, line in zip(bars, others, strict=False):
        assert re.match(rf"{name}.* 100%|100%.* 16/16", line)
    assert others[8] == "open and closed"
    assert all(re.fullmatch(r"\[Parallel\(n_jobs=-1\)\]: (Using backend|Done) .+", line) for line in others[9:-1])
    assert others[-1] == "after"


PLACED = """
import contextlib, io

class Own:
    def __init__(self):
        self.kept = ""
    def write(self, text):
        self.kept += text
        return sys.__stdout__.write(text)
    def flush(self):
        sys.__stdout__.flush()

def talk(number):
    print("says", number)

def calls(begin, shown):
    print(begin, end=" ", flush=True)
    list(compute.map(talk, range(8)))
    kit.until(lambda: shown().count("says") == 8)
    print("closed", flush=True)

name, text = sys.argv[0] + ".out", io.StringIO()
with pool(console={}) as compute, open(name, "w") as file:
    sys.stdout = own = Own()
    calls("own", lambda: own.kept)
    sys.stdout = sys.__stdout__
    with contextlib.redirect_stdout(text):
        calls("text", text.getvalue)
    with contextlib.redirect_stdout(file):
        calls("file", lambda: open(name).read())
with open(sys.argv[0] + ".text", "w") as file:
    file.write(text.getvalue())
"""


@pytest.mark.parametrize("console", ["auto", "off"])
def test_lines_of_tasks_stand_whole_in_what_is_put_in_the_place_of_a_stream(
    start: Start, console: str, tmp_path: Path
) -> None:
    seen = start(PLACED.format(repr(console))).end()
    told = sorted(f"says {number}" for number in range(8))
    text, file = (Path(f"{tmp_path}/program.py.{end}").read_text().splitlines() for end in ("text", "out"))
    for name, lines in (("text", text), ("file", file)):
        assert (lines[0], lines[-1]) == (f"{name} ", "closed")
        assert sorted(line.partition("] ")[2] for line in lines[1:-1]) == told
    lines = [line for line in seen if line and not line.startswith("skyward: ")]
    assert sorted(line.partition("] ")[2] for line in lines[:-1]) == told
    assert lines[-1] == "own closed"


def test_what_tasks_print_and_log_meets_no_bar_in_a_notebook(tmp_path: Path) -> None:
    body = """
import logging
logging.basicConfig(format="%(message)s", level=logging.INFO)

def talk(number):
    import logging, sys
    print("says", number, flush=True)
    logging.getLogger("tasks").info("logs %d", number)
    print("complains", number, file=sys.stderr, flush=True)

with pool() as compute, tqdm(total=8) as bar:
    bar.update()
    for number in range(8):
        compute.submit(talk, number).result()
    kit.until(lambda: sum(type(each).__name__ in ("Printed", "Logged") for each in compute.events()) == 24)
"""
    told, bars = Counter[str](), []
    for name, text in _streams(body, tmp_path):
        for line in text.splitlines():
            if line.startswith("[node "):
                told[f"{name}: {line.partition('] ')[2]}"] += 1
            elif line:
                bars.append(line)
    whats = ("stdout: says", "stderr: logs", "stderr: complains")
    assert told == {f"{what} {number}": 1 for what in whats for number in range(8)}
    assert all(re.fullmatch(r" +[01]\S*\|.*\| [01]/8 \[.*it/s\]", line) for line in bars)
    assert bars


def _streams(body: str, folder: Path) -> Iterator[tuple[str, str]]:
    """What each stream of a notebook's cell shows, in pieces that stand together."""
    outputs = [output for output in notebook(body, folder) if output["output_type"] == "stream"]
    for name, pieces in groupby(outputs, lambda output: str(output["name"])):
        screen = pyte.HistoryScreen(200, 30, history=2000)
        screen.set_mode(pyte.modes.LNM)
        pyte.Stream(screen).feed("".join(piece["text"] for piece in pieces))
        yield name, "\n".join(rows(screen))
