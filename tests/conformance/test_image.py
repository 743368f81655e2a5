"""What an image brings is the same on a node of this machine and on one of another, which an sshd stands for here."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import skyward as sky
from tests import kit, sshd

if TYPE_CHECKING:
    from skyward.providers.provider import Provider

type Make = "Callable[[], Provider]"

ONE = sky.Worker(concurrency=1)


@pytest.fixture(scope="module", params=["local", "ssh"])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """What makes the provider."""
    if request.param == "local":
        yield sky.Local
        return
    if sshd.MISSING is not None:
        pytest.skip(sshd.MISSING)
    folder = tmp_path_factory.mktemp("sshd")
    with sshd.machine(folder):
        yield lambda: sky.SSH(hosts=["box"], config=folder / "config")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the program works, with files of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("1,2")
    (tmp_path / "out").mkdir()
    return tmp_path


def test_files_are_in_the_working_folder_of_tasks_and_nothing_else_is(make: Make, home: Path) -> None:
    (home / "large").write_bytes(bytes(3 << 20))
    (home / "empty").touch()
    files: dict[str, str | Path] = {"a/b/table.csv": "data.csv", "large": home / "large", "./empty": "empty"}
    image = sky.Image(files=files, env={"MODE": "fast"}, preload=["colorsys"])

    def look() -> tuple[list[tuple[str, int]], str, str, bool]:
        import sys

        found = [(path.as_posix(), path.stat().st_size) for path in Path().rglob("*") if path.is_file()]
        return sorted(found), Path("a/b/table.csv").read_text(), os.environ["MODE"], "colorsys" in sys.modules

    with sky.Compute(provider=make(), worker=ONE, image=image) as compute:
        assert compute.submit(look).result(kit.SOON) == (
            [("a/b/table.csv", 3), ("empty", 0), ("large", 3 << 20)],
            "1,2",
            "fast",
            True,
        )
        compute.submit(lambda: Path("a/b/table.csv").write_text("changed")).result(kit.SOON)
        assert compute.submit(lambda: Path("a/b/table.csv").read_text()).result(kit.SOON) == "changed"
        where = compute.submit(os.getcwd).result(kit.SOON)

    assert (home / "data.csv").read_text() == "1,2"
    assert not Path(where).exists()


def test_a_file_that_only_the_program_has_is_named_with_how_to_send_it(make: Make) -> None:
    with sky.Compute(provider=make(), worker=ONE, image=sky.Image(files={"x": "data.csv"})) as compute:
        with pytest.raises(FileNotFoundError) as read:
            compute.submit(lambda: Path("data.csv").read_text()).result(kit.SOON)
        with pytest.raises(FileNotFoundError) as written:
            compute.submit(lambda: Path("out/a").write_text("a")).result(kit.SOON)
        with pytest.raises(FileNotFoundError) as nowhere:
            compute.submit(lambda: Path("nowhere").read_text()).result(kit.SOON)

    assert any("sky.Image(files={'data.csv': 'data.csv'})" in note for note in read.value.__notes__)
    assert any("return what is to be kept" in note for note in written.value.__notes__)
    assert not any("working folder" in note for note in nowhere.value.__notes__)


def test_without_files_tasks_of_this_machine_work_where_the_program_does(home: Path) -> None:
    with sky.Compute(worker=ONE) as compute:
        assert compute.submit(lambda: Path("data.csv").read_text()).result(kit.SOON) == "1,2"
        compute.submit(lambda: Path("out/a").write_text("a")).result(kit.SOON)
    assert (home / "out" / "a").read_text() == "a"


def test_modules_are_found_where_they_were_in_either_working_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "src").mkdir()
    (home / "src" / "beside_data.py").write_text("NAME = 'mine'\n")
    monkeypatch.syspath_prepend("src")  # a relative entry
    for files in ({}, {"x": "data.csv"}):
        with sky.Compute(worker=ONE, image=sky.Image(files=files, preload=["beside_data"])) as compute:
            assert compute.submit(lambda: __import__("beside_data").NAME).result(kit.SOON) == "mine"


def test_what_has_no_effect_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    image = sky.Image(apt=["libgomp1"], index="https://index.example", shell=["false"])
    with caplog.at_level(logging.WARNING, "skyward"), sky.Compute(worker=ONE, nodes=2, image=image):
        pass

    (said,) = [each.getMessage() for each in caplog.records if "Image(" in each.getMessage()]
    assert said.startswith(
        "Image(index=, apt=, shell=) has no effect: nodes of 'local' run in this program's environment"
    )
