"""Every guide runs as it stands, in a process of its own, prints what its last block says, and leaves nothing."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "guides").glob("[0-9]*.py"))
QUICK = ("--nodes=2", "--concurrency=2", "--tasks=40", "--seconds=0.05")
OPTIONS: Mapping[str, tuple[str, ...]] = {"10_joblib_concurrency": QUICK}
"""What a guide is given where its defaults take minutes."""


def run(guide: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a guide whose scratch folders go into `folder`."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(guide), *options],
        env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


type Once = Callable[[Path], tuple[subprocess.CompletedProcess[str], Path]]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Runs a guide, if it has not run yet; gives what it said, and the folder of its scratch folders."""

    @cache
    def ran(guide: Path) -> tuple[subprocess.CompletedProcess[str], Path]:
        folder = tmp_path_factory.mktemp(guide.stem)
        return run(guide, folder, *OPTIONS.get(guide.stem, ())), folder

    return ran


def promised(text: str) -> list[str]:
    """The lines of the comment that ends the text of a guide; empty if it ends with anything else."""
    block = text.rstrip().rpartition("\n\n")[2].splitlines()
    return [line.removeprefix("# ") for line in block] if all(line.startswith("# ") for line in block) else []


def matches(line: str, promise: str) -> bool:
    """Whether a line is what was promised; `...` stands for any text."""
    return re.fullmatch(".+".join(map(re.escape, promise.split("..."))), line) is not None


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guide_prints_what_it_says_and_leaves_nothing(guide: Path, once: Once) -> None:
    ran, folder = once(guide)

    assert ran.returncode == 0, ran.stderr
    printed, promises = ran.stdout.splitlines(), promised(guide.read_text())
    assert promises, "a guide ends with a comment that lists what it prints"
    wrong = [pair for pair in zip(printed, promises, strict=False) if not matches(*pair)]
    assert (wrong, len(printed)) == ([], len(promises)), ran.stdout
    assert list(folder.iterdir()) == []
    assert [process for process in psutil.process_iter(["cmdline"]) if mentions(process, folder)] == []


def mentions(process: psutil.Process, folder: Path) -> bool:
    return any(str(folder) in word for word in process.info["cmdline"] or ())


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guide_is_one_screen_with_one_lesson(guide: Path) -> None:
    lines = guide.read_text().splitlines()

    assert len(lines) <= 80
    assert re.fullmatch('"""[^"]+"""', lines[0]), "its first line is its lesson"
    assert 'if __name__ == "__main__":' in lines


def test_the_guides_are_those_that_the_readme_lists() -> None:
    listed = re.findall(r"\(guides/(\d\w+\.py)\)", (ROOT / "README.md").read_text())

    assert listed == [guide.name for guide in GUIDES]


def test_a_guide_without_its_block_promises_nothing() -> None:
    assert promised('"""Lesson."""\n\nprint(1)\n') == []
    assert promised('"""Lesson."""\n\nprint(1)  # one\n') == []
    assert promised('"""Lesson."""\n\nprint(1)\n\n# 1\n# 2\n') == ["1", "2"]


def test_a_placeholder_stands_for_some_text_and_no_other_line() -> None:
    assert matches("Total time: 5.02 s", "Total time: ... s")
    assert not matches("Total time: s", "Total time: ...s")
    assert not matches("x+y", "x.y")


def test_the_figures_of_the_main_guide_belong_together(once: Once) -> None:
    ran, _ = once(ROOT / "guides/10_joblib_concurrency.py")

    found = dict(line.split(": ") for line in ran.stdout.splitlines())
    number = {name: float(text.split()[0].removesuffix("%")) for name, text in found.items()}
    counts = [number[name] for name in ("Tasks", "Nodes", "Concurrency", "Effective workers")]
    assert counts == [40, 2, 2, 4]
    assert number["Ideal time"] == pytest.approx(0.5, rel=0.1)
    assert number["Total time"] >= number["Ideal time"]
    assert number["Efficiency"] == pytest.approx(100 * number["Ideal time"] / number["Total time"], rel=0.05)
    assert number["Throughput"] == pytest.approx(40 / number["Total time"], rel=0.05)


def test_the_main_guide_says_which_providers_there_are(tmp_path: Path) -> None:
    ran = run(ROOT / "guides/10_joblib_concurrency.py", tmp_path, "--provider=mainframe")

    assert ran.returncode == 2
    assert "--provider: invalid choice: 'mainframe'" in ran.stderr
    assert "local" in ran.stderr.splitlines()[-1]
