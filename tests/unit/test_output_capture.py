"""What a worker writes comes into its pipes at once, whatever it writes with."""

import json
import logging
import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from skyward.remote.output_protocol import ERR, LOG, MAX_LINE_CHARACTERS, OUT, runs

ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, sys
from skyward.remote.node import output_capture
out, err, page = (os.open(f"{{sys.argv[1]}}/{{name}}", os.O_WRONLY | os.O_CREAT) for name in ("out", "err", "page"))
{before}
output_capture.take_over(output_capture.OutputPipes(out, err, page), {slot}, {levels})
{after}
os._exit(0)
"""


class Said:
    """What a worker said: `page` in order, and beside it `out` and `err`."""

    def __init__(self, folder: Path, after: str, before: str = "", slot: int = 2, **levels: int) -> None:
        program = PROGRAM.format(before=before, after=after, slot=slot, levels={"": 30, **levels})
        ran = subprocess.run(
            [sys.executable, "-c", program, str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
            timeout=150,
        )
        assert (ran.stdout, ran.stderr) == (b"", b"")
        self.page, rest = runs((folder / "page").read_bytes())
        assert rest == b""
        self.out, self.err = (folder / "out").read_bytes(), (folder / "err").read_bytes()
        self.logged = [json.loads(line) for stream, _, line in self.page if stream == LOG for line in line.splitlines()]


def test_prints_and_records_are_in_order_and_there_at_once(tmp_path: Path) -> None:
    said = Said(
        tmp_path,
        "import logging, warnings\n"
        "print('a', 1); print('b', file=sys.stderr); logging.getLogger('lib').warning('c %d', 1)\n"
        "sys.stdout.buffer.write(b'd'); print('e', end='')",
    )
    assert [(stream, slot) for stream, slot, _ in said.page] == [(OUT, 2), (ERR, 2), (LOG, 2), (OUT, 2)]
    assert (said.page[0][2], said.page[1][2], said.page[3][2]) == (b"a 1\n", b"b\n", b"de")
    assert said.logged[0][:4] == ["lib", 30, "c 1", ""]
    assert (said.out, said.err) == (b"", b"")


def test_other_programs_and_what_was_held_before_write_beside_the_page(tmp_path: Path) -> None:
    said = Said(
        tmp_path,
        "import subprocess\nheld.write('a\\n')\nsubprocess.run(['echo', 'b'], check=True)\n"
        "subprocess.run(['echo', 'c'], stdout=sys.stderr, check=True); print('d', file=sys.__stderr__)",
        before="held = sys.stdout",
    )
    assert (said.page, said.out, said.err) == ([], b"a\nb\n", b"c\nd\n")


def test_long_text_comes_in_pieces_that_nothing_comes_between(tmp_path: Path) -> None:
    said = Said(tmp_path, "print('x' * 100_000); print('\\udc80ü')")
    assert said.page == [(OUT, 2, b"x" * 100_000 + b"\n\\udc80" + "ü\n".encode())]
    assert select.PIPE_BUF < 100_000


def test_a_thread_says_which_slot_it_is(tmp_path: Path) -> None:
    said = Said(
        tmp_path,
        "import threading\nfrom skyward.remote import context\n"
        "def run(slot):\n"
        "    context.enter(context.InstanceInfo(0, slot, 1, 2, 'here')); print(slot)\n"
        "for slot in range(2):\n"
        "    thread = threading.Thread(target=run, args=[slot]); thread.start(); thread.join()\n"
        "print('outside')",
        slot=-1,
    )
    assert said.page == [(OUT, 0, b"0\n"), (OUT, 1, b"1\n"), (OUT, -1, b"outside\n")]


# ---------------------------------------------------------------- logging


def test_a_record_has_its_traceback_and_its_place(tmp_path: Path) -> None:
    said = Said(
        tmp_path,
        "import logging\n"
        "def fit():\n"
        "    try:\n"
        "        1 / 0\n"
        "    except ZeroDivisionError:\n"
        "        logging.getLogger('lib').exception('oops', stack_info=True)\n"
        "fit()",
    )
    ((name, level, text, trace, _, line, function),) = said.logged
    assert (name, level, text, line > 0, function) == ("lib", logging.ERROR, "oops", True, "fit")
    assert trace.startswith("Traceback")
    assert "ZeroDivisionError: division by zero\nStack (most recent call last)" in trace


@pytest.mark.parametrize("character", ["a", "\\u4e2d", "\\1", "\\udc80", "\\U0001f600"])
def test_a_record_fits_in_a_line_and_says_what_it_lacks(tmp_path: Path, character: str) -> None:
    said = Said(
        tmp_path,
        f"import logging\nlong = 'begins' + '{character}' * 100_000 + 'ends'\n"
        "def fit():\n"
        "    try:\n"
        "        raise ValueError(long)\n"
        "    except ValueError:\n"
        "        logging.getLogger(long).exception(long)\n"
        "exec(compile('fit()', long, 'exec')); logging.warning('short')",
    )
    assert max(len(line) for _, _, data in said.page for line in data.decode().splitlines()) < MAX_LINE_CHARACTERS
    (name, _, text, trace, *_), (_, _, short, *_) = said.logged
    for each in (name, text):
        assert each.startswith("begins")
        assert each.endswith("ends")
        assert re.search(r"\n\.\.\. [\d,]+ characters are left out \.\.\.\n", each)
    assert len(text) > 2000
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.endswith("ends")
    assert short == "short"


def test_records_that_nobody_wants_where_the_pool_is_stay_here(tmp_path: Path) -> None:
    lines = "; ".join(f"logging.getLogger({name!r}).info({name!r})" for name in ("loud", "loud.below", "quiet"))
    said = Said(tmp_path, f"import logging; {lines}", loud=logging.INFO)
    assert [text for _, _, text, *_ in said.logged] == ["loud", "loud.below"]


def test_a_record_that_cannot_be_said_is_told_of_and_costs_no_task(tmp_path: Path) -> None:
    said = Said(tmp_path, "import logging; logging.warning('%d', 'text'); print('on')")
    assert said.logged == []
    assert b"--- Logging error ---" in said.page[0][2]
    assert said.page[-1] == (OUT, 2, b"on\n")


@pytest.mark.parametrize("forced", [True, False])
def test_a_configuration_in_a_task_does_not_double_records(tmp_path: Path, forced: bool) -> None:
    said = Said(
        tmp_path,
        f"import logging; logging.basicConfig(format='%(message)s!', force={forced}); logging.warning('once')",
    )
    if forced:
        assert said.page == [(ERR, 2, b"once!\n")]
    else:
        assert [(stream, slot) for stream, slot, _ in said.page] == [(LOG, 2)]


def test_what_a_handler_of_the_users_own_prints_comes_once(tmp_path: Path) -> None:
    said = Said(
        tmp_path,
        "import logging\n"
        "logger = logging.getLogger('lib'); handler = logging.StreamHandler(); handler.setLevel(logging.ERROR)\n"
        "logger.addHandler(handler); logger.error('a'); logger.warning('b')\n"
        "other = logging.getLogger('other'); other.propagate = False; other.addHandler(logging.NullHandler())\n"
        "other.error('c')",
    )
    assert said.page[0] == (ERR, 2, b"a\n")
    assert [text for _, _, text, *_ in said.logged] == ["b"]


def test_a_handler_that_an_import_has_made_before_is_replaced(tmp_path: Path) -> None:
    said = Said(tmp_path, "logging.warning('once')", before="import logging; logging.basicConfig()")
    assert [text for _, _, text, *_ in said.logged] == ["once"]
    assert (len(said.page), said.err) == (1, b"")
