"""How long modules take to import, as a slot tells it of its calls."""

import copy
import importlib
import itertools
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import pytest

from skyward.remote.node.import_timer import ImportTimer, public

numbers = itertools.count()


class Clock:
    """A clock that stands until a module moves it on."""

    now = 100.0


@pytest.fixture
def timer() -> Iterator[ImportTimer]:
    made = ImportTimer(lambda: Clock.now)
    made.install()
    yield made
    sys.meta_path.remove(made)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.syspath_prepend(tmp_path)

    def write(seconds: float, body: str = "", of: str = "") -> str:
        name = f"{of}{'.' if of else ''}timed_{next(numbers)}"
        folder = tmp_path.joinpath(*name.split("."))
        folder.mkdir()
        move = f"from {__name__} import Clock\nClock.now += {seconds}\n"
        (folder / "__init__.py").write_text(f"{body}\n{move}")
        importlib.invalidate_caches()
        return name

    return write


def seconds(timer: ImportTimer) -> dict[str, float]:
    return {each.module: each.seconds for each in timer.take() if each.seconds}


def test_a_module_counts_with_all_that_it_imports(timer: ImportTimer, module: Callable[..., str]) -> None:
    inner = module(2.0)
    outer = module(3.0, f"import {inner}")
    importlib.import_module(outer)
    assert seconds(timer) == {outer: 5.0}


def test_a_package_and_what_is_in_it_are_told_one_by_one(timer: ImportTimer, module: Callable[..., str]) -> None:
    package = module(2.0)
    part = module(3.0, of=package)
    importlib.import_module(part)
    assert seconds(timer) == {package: 2.0, part: 3.0}


def test_an_import_has_its_beginning_and_is_told_once(timer: ImportTimer, module: Callable[..., str]) -> None:
    name = module(2.0)
    before, count = Clock.now, timer.count
    importlib.import_module(name)
    assert {each.began for each in timer.take()} == {before}
    assert timer.count > count
    importlib.import_module(name)
    assert timer.take() == []


def test_an_import_that_raises_counts_as_well(timer: ImportTimer, module: Callable[..., str]) -> None:
    inner = module(2.0)
    broken = module(0.0, f"import {inner}\n1 / 0")
    with pytest.raises(ZeroDivisionError):
        importlib.import_module(broken)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("timed_nowhere")
    assert seconds(timer) == {broken: 2.0}
    importlib.import_module(other := module(1.0))
    assert seconds(timer) == {other: 1.0}


def test_a_traceback_shows_the_modules_and_nothing_between_them(timer: ImportTimer, module: Callable[..., str]) -> None:
    inner = module(0.0, "1 / 0")
    outer = module(0.0, f"import {inner}")
    with pytest.raises(ZeroDivisionError) as raised:
        exec(f"import {outer}")
    assert [Path(frame.filename).parent.name for frame in traceback.extract_tb(raised.tb)[2:]] == [outer, inner]


def test_each_thread_has_its_own_imports(timer: ImportTimer, module: Callable[..., str]) -> None:
    mine, other = module(1.0), module(2.0)
    told: list[dict[str, float]] = []

    def run() -> None:
        importlib.import_module(other)
        told.append(seconds(timer))

    importlib.import_module(mine)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert told == [{other: 2.0}]
    assert seconds(timer) == {mine: 1.0}


def test_to_look_for_a_module_is_not_to_import_it(timer: ImportTimer, module: Callable[..., str]) -> None:
    name = module(2.0)
    spec = find_spec(name)
    assert spec is not None
    assert isinstance(spec.loader, SourceFileLoader)
    assert timer.take() == []
    assert find_spec("timed_nowhere") is None


def test_a_loaded_module_has_its_loader_as_it_was(timer: ImportTimer, module: Callable[..., str]) -> None:
    name = module(2.0)
    loaded = importlib.import_module(name)
    untimed = PathFinder.find_spec(name)
    assert untimed is not None
    assert loaded.__spec__ is not None
    assert loaded.__loader__ == loaded.__spec__.loader == untimed.loader


def test_a_module_that_was_loaded_again_has_its_loader_as_it_was(
    timer: ImportTimer, module: Callable[..., str]
) -> None:
    name = module(2.0)
    again = importlib.reload(importlib.import_module(name))
    untimed = PathFinder.find_spec(name)
    assert untimed is not None
    assert again.__spec__ is not None
    assert again.__loader__ == again.__spec__.loader == untimed.loader


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda spec: pickle.loads(pickle.dumps(spec))])
def test_what_was_found_can_be_copied_and_loaded(
    timer: ImportTimer, module: Callable[..., str], copied: Callable[[Any], Any]
) -> None:
    name = module(2.0)
    spec = copied(find_spec(name))
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    untimed = PathFinder.find_spec(name)
    assert untimed is not None
    assert loaded.__loader__ == untimed.loader


def test_it_finds_nothing_where_it_is_not_installed(module: Callable[..., str]) -> None:
    assert ImportTimer().find_spec(module(1.0)) is None


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("sklearn.tree._classes", "sklearn.tree"),
        ("numpy._core.multiarray", "numpy"),
        ("_own", "_own"),
        ("_own.part", "_own.part"),
        ("a", "a"),
    ],
)
def test_a_private_module_is_had_by_the_public_one_that_holds_it(module: str, imported: str) -> None:
    assert public(module) == imported
