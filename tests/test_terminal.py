"""What a person sees of a run: on a terminal, in a notebook, and where there is neither."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.program import BAR, HEAD, ROOT, Start, notebook
from tests.program import start as start
from tests.terminal import rows


def test_it_shows_how_the_work_goes_and_leaves_one_line(start: Start) -> None:
    program = start(
        """
with pool() as compute, kit.Bell() as bell:
    futures = [compute.submit(work.ring, bell.port) for _ in range(5)]
    lines = [bell.answer() for _ in range(4)]
    print("they run", flush=True)
    sys.stdin.readline()
    for line in lines:
        line.release()
    bell.answer().release()
    print(len([future.result() for future in futures]), "done")
print("after")
"""
    )
    seen = program.until("0 tasks done, 5 queued or running · 4/4 slots busy", "they run")
    assert seen[0] == "they run"
    program.child.sendline("")
    *above, last, after = program.end()
    assert above == ["they run", "", "5 done"]
    assert re.fullmatch(r"skyward: 5 tasks on 2 nodes in \d:\d\d", last)
    assert after == "after"


def test_the_last_line_the_report_and_the_page_count_alike(start: Start, tmp_path: Path) -> None:
    program = start(
        """
with pool() as compute:
    for call in (lambda: 1 // 0, work.die, lambda: work.square(3)):
        print(type(compute.submit(call).exception()).__name__)
print(*[line for line in str(compute.report()).splitlines() if line.startswith(("Tasks", "Raised", "Lost"))], sep=", ")
compute.report().save(sys.argv[0] + ".html")
"""
    )
    *above, last, report = program.end()
    assert above == ["ZeroDivisionError", "BatchLost", "NoneType"]
    assert re.fullmatch(r"skyward: 2 tasks on \d nodes? in \d:\d\d, 1 call raised, 1 call lost, 2 retries", last)
    assert report == "Tasks: 2, Raised: 1 call, Lost: 1 call"
    page = (tmp_path / "program.py.html").read_text()
    assert all(tile in page for tile in ('["Tasks","2"]', '["Raised","1 call"]', '["Lost","1 call"]'))


def test_prints_tqdm_and_joblib_stay_whole(start: Start) -> None:
    program = start(
        """
print("an open line ", end="", flush=True)
with pool() as compute:
    print("is closed")
    for number in tqdm(compute.map(work.sleep, [0.02] * 100), total=100, ascii=True):
        pass
    print("begun ", end="")
    Parallel(n_jobs=-1, verbose=10, batch_size=1)(delayed(work.sleep)(0.02) for _ in range(100))
    for number in range(20):
        print("line", number, file=sys.stderr if number % 2 else sys.stdout)
        compute.submit(work.sleep, 0.05).result()
"""
    )
    first, bar, *rest, last = program.end()
    assert first == "an open line is closed"
    assert re.fullmatch(r"100%\|#+\| 100/100 \[\d\d:\d\d<\d\d:\d\d, .*it/s\]", bar)
    assert sum(line.startswith("begun ") for line in rest) == 1  # Python writes it when it likes: it was not flushed
    rest = [line.removeprefix("begun ") for line in rest]
    progress = [line for line in rest if "[Parallel" in line]
    assert len(progress) > 5
    assert all(re.fullmatch(r"\[Parallel\(n_jobs=-1\)\]: (Using backend|Done) .+", line) for line in progress)
    assert rest[len(progress) :] == [f"line {number}" for number in range(20)]
    assert last.startswith("skyward: 220 tasks on 2 nodes in ")


def test_how_many_tasks_there_are_is_shown_from_the_beginning_where_it_is_certain(start: Start) -> None:
    program = start(
        """
def given():
    yield from range(8)

with pool() as compute, kit.Bell() as bell:
    for numbers in (range(24), given()):
        results = Parallel(n_jobs=-1, batch_size=1, return_as="generator")(
            delayed(work.ring)(bell.port) for _ in numbers
        )
        for _ in range(12 if numbers == range(24) else 0):
            bell.answer().release()
        sys.stdin.readline()
        for _ in range(12 if numbers == range(24) else 8):
            bell.answer().release()
        list(results)
"""
    )
    program.until("skyward  ██████░░░░░░  12/24 tasks · 4/4 slots busy")
    program.child.sendline("")
    seen = program.until("24 tasks done, 8 queued or running · 4/4 slots busy")
    assert not any("█" in line for line in seen)
    program.child.sendline("")
    assert program.end()[-1].startswith("skyward: 32 tasks on 2 nodes in ")


def test_a_node_that_is_killed_is_named(start: Start) -> None:
    program = start(
        """
with pool() as compute, kit.Bell() as bell:
    futures = [compute.submit(work.ring, bell.port) for _ in range(4)]
    lines = [bell.answer() for _ in range(4)]
    kit.kill(kit.host(compute.nodes[1]))
    again = [bell.answer() for _ in range(2)]
    sys.stdin.readline()
    for line in (*lines, *again):
        try:
            line.release()
        except OSError:
            pass
    for future in futures:
        future.result()
"""
    )
    seen = program.until("  node 1 was lost: its process ended")
    assert any(BAR in line for line in seen)
    program.child.sendline("")
    end = program.end()
    assert not any(BAR in line for line in end)
    assert re.fullmatch(r"skyward: 4 tasks on 2 nodes in \d:\d\d, \d (retry|retries)", end[-1])


def test_nothing_is_left_when_the_block_fails(start: Start) -> None:
    program = start(
        """
try:
    with pool() as compute, kit.Bell() as bell:
        compute.submit(work.ring, bell.port)
        bell.answer()
        sys.stdin.readline()
        raise ValueError("no")
except ValueError as error:
    print("failed:", error)
"""
    )
    program.until(BAR)
    program.child.sendline("")
    assert program.end()[-1] == "failed: no"
    assert not any(BAR in line for line in rows(program.screen))


@pytest.mark.parametrize(("console", "said"), [("auto", False), ("off", False), ("plain", True)])
def test_where_there_is_no_terminal_little_is_said(tmp_path: Path, console: str, said: bool) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        f"{HEAD}\nwith pool(console={console!r}) as compute:\n    compute.submit(work.sleep, 0.5).result()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, str(path)], env=env, capture_output=True, text=True, timeout=150, check=True)
    told = [line for line in ran.stderr.splitlines() if "of 2 nodes ready" not in line]
    assert ran.stdout == ""
    assert [re.sub(r"\d:\d\d", "0:00", line) for line in told] == (
        ["skyward: 2 nodes with 4 slots ready after 0:00", "skyward: 1 task on 1 node in 0:00"] if said else []
    )


def test_a_start_that_failed_with_a_long_log_scrolls_nothing_away(start: Start, tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.write_text('#!/bin/sh\nmkdir "$0.failed" || exec cat\nseq -f "boot log line %g" 300\nexit 7\n')
    node.chmod(0o755)
    program = start(
        f"""
import logging
logging.disable(logging.WARNING)  # where the reason is said, whole
class Failing(sky.Local):
    async def reach(self, instance):
        host = await super().reach(instance)
        host.python = {str(node)!r}
        return host
print(*["printed before"] * 20, sep="\\n")
with sky.Compute(provider=Failing(), options=sky.Options(record=False)):
    pass
"""
    )
    seen = program.until("after the one before: BootFailed: node 0 ended with exit code 7")
    assert seen[:20] == ["printed before"] * 20
    assert len(seen) < 25
    assert not program.screen.history.top


def test_where_there_is_no_terminal_a_start_that_hangs_is_told(tmp_path: Path) -> None:
    path, node = tmp_path / "program.py", tmp_path / "node"
    node.write_text("#!/bin/sh\nexec cat\n")
    node.chmod(0o755)
    path.write_text(
        f"""{HEAD}
class Hanging(sky.Local):
    async def reach(self, instance):
        host = await super().reach(instance)
        host.python = {str(node)!r}
        return host
with sky.Compute(provider=Hanging(), options=sky.Options(record=False)):
    pass
"""
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen([sys.executable, str(path)], env=env, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None
        assert re.match(r"skyward: 0 of 1 node ready · local · \d:\d\d, node 0 is booting", running.stderr.readline())
    finally:
        running.send_signal(signal.SIGINT)
        try:
            running.communicate(timeout=150)
        finally:
            running.kill()


def test_a_notebook_shows_a_pool_and_its_report_as_html(tmp_path: Path) -> None:
    body = """
compute = pool(console="off")
display(compute)
with compute:
    compute.submit(work.square, 2).result()
    display(compute)
display(compute, compute.report())
"""
    outputs = notebook(body, tmp_path)
    pages = [output["data"]["text/html"] for output in outputs]
    assert ["not entered" in page for page in pages] == [True, False, False, False]
    assert ["<th" in page for page in pages] == [False, True, False, False]
    assert [">Efficiency</div>" in page for page in pages] == [False, True, True, True]
    assert "Attempts: 1, retries: 0" in pages[3]
    assert outputs[3]["data"]["text/plain"].startswith("Report(tasks=1")


def test_a_notebook_has_a_line_that_changes_in_its_cell(tmp_path: Path) -> None:
    body = """
with pool() as compute:
    list(compute.map(work.sleep, [0.3] * 20))
    print("done")
"""
    outputs = notebook(body, tmp_path)
    (shown,) = [output["data"] for output in outputs if output["output_type"] == "display_data"]
    assert re.fullmatch(r"skyward: 20 tasks on 2 nodes in \d:\d\d", shown["text/plain"])
    assert shown["text/plain"] in shown["text/html"]
    assert [output["text"] for output in outputs if output["output_type"] == "stream"] == ["done\n"]


def test_without_rich_a_terminal_has_lines_that_stay(start: Start) -> None:
    program = start(
        """
sys.modules["rich"] = None
with pool() as compute:
    compute.submit(work.sleep, 0.5).result()
"""
    )
    end = [re.sub(r"\d:\d\d", "0:00", line) for line in program.end()]
    assert end[-2:] == ["skyward: 2 nodes with 4 slots ready after 0:00", "skyward: 1 task on 1 node in 0:00"]


def test_who_edits_a_line_is_left_alone(start: Start) -> None:
    program = start(
        """
import readline
with pool() as compute, kit.Bell() as bell:
    future = compute.submit(work.ring, bell.port)
    line = bell.answer()
    sys.stdin.readline()
    answer = input("what now? ")
    line.release()
    future.result()
print("it was", answer)
"""
    )
    program.until(BAR)
    program.child.sendline("")
    program.until("what now?")
    program.child.send("go on")
    assert any(line.startswith("what now? go on") for line in program.until("go on"))
    program.child.sendline("")
    end = program.end()
    assert "it was go on" in end
    assert not any(BAR in line for line in end)


ODD = """
def odd(number):
    import logging
    print(f"\\x1b[2Jprinted {number}\\x1b]0;stolen\\x07", flush=True)
    print(f"\\x1b[32mgreen {number}", flush=True)
    print(f"a\\rb\\rbar {number}", flush=True)
    logging.getLogger("tasks\\x1b[H").error("logged\\x1b[3A %d", number)

print("above")
with pool({}) as compute:
    compute.submit(odd, 1).result()
print("after")
"""


@pytest.mark.parametrize("console", ["auto", "plain"])
def test_control_sequences_of_tasks_are_shown_and_do_nothing(start: Start, console: str) -> None:
    program = start(ODD.replace("pool({})", f"pool(console={console!r})"))
    seen = program.end()
    assert seen[0] == "above"
    lines = [re.sub(r"slot \d", "slot 0", line) for line in seen if "[node" in line]
    assert [re.sub(r"node \d", "node 0", line) for line in lines] == [
        r"[node 0 slot 0] \x1b[2Jprinted 1\x1b]0;stolen\x07",
        "[node 0 slot 0] green 1",
        "[node 0 slot 0] bar 1",
        r"[node 0 slot 0] logged\x1b[3A 1",
    ]
    assert program.screen.title == ""


def test_control_sequences_of_tasks_are_written_where_they_are_wanted(start: Start) -> None:
    program = start(ODD.replace("pool({})", "pool(console='off', console_raw=True)"))
    program.end()
    assert program.screen.title == "stolen"
