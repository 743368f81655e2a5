"""A module that is edited and reloaded: the next call runs the new code, wherever nodes have it from."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import skyward as sky
from skyward.actors.driver import Driver
from tests.kit import Apart

MODULE = "ANSWER = {0}\ndef answer(): return ANSWER\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's with a module and one that takes something from it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_edited.py").write_text(MODULE.format(1))
    (tmp_path / "own_taking.py").write_text("from own_edited import ANSWER\ndef taken(): return ANSWER\n")
    yield tmp_path
    for name in ("own_edited", "own_taking"):
        sys.modules.pop(name, None)


def answers(compute: sky.Compute, edited: Any, taking: Any) -> list[Any]:
    """What every slot says, by reference, by value, and through the other module."""
    calls: list[Callable[[], Any]] = [edited.answer, lambda: edited.ANSWER, taking.taken]
    found = [compute.submit(call).result() for call in calls]
    assert [list(compute.map(lambda _, call=call: call(), range(8))) for call in calls] == [
        [each] * 8 for each in found
    ]
    return found


def test_an_edited_and_reloaded_module_is_imported_again_by_nodes_of_this_machine(folder: Path) -> None:
    edited, taking = importlib.import_module("own_edited"), importlib.import_module("own_taking")
    with sky.Compute(provider=sky.Local(), nodes=1, worker=sky.Worker(concurrency=2)) as compute:
        assert answers(compute, edited, taking) == [1, 1, 1]
        for value in (22, 333):
            (folder / "own_edited.py").write_text(MODULE.format(value))
            importlib.reload(edited)

            assert answers(compute, edited, taking) == [value] * 3
    assert not any(type(each).__name__ == "_Reloads" for each in sys.meta_path)


def test_an_edited_module_is_sent_again_also_when_nothing_but_its_content_shows_that(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Driver, "sources", property(lambda self: self._modules))  # as for bare machines
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file = folder / "own_edited.py"
    os.utime(file, (1_000_000_000, 1_000_000_000))
    edited, taking = importlib.import_module("own_edited"), importlib.import_module("own_taking")
    with sky.Compute(provider=Apart(), nodes=1, worker=sky.Worker(concurrency=2)) as compute:
        assert answers(compute, edited, taking) == [1, 1, 1]
        for value in (2, 3, 1):
            file.write_text(MODULE.format(value))
            os.utime(file, (1_000_000_000, 1_000_000_000))
            importlib.reload(edited)

            assert answers(compute, edited, taking) == [value] * 3
