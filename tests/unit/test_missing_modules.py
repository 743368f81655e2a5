import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from skyward.errors import NotPortable
from skyward.remote import missing_modules
from skyward.remote.serialization import call_codec
from skyward.remote.serialization.packer import Packer
from tests import work


def opened(value: Any) -> Any:
    """What arrives of `value` at the other end."""
    status, parts = call_codec.execute(Packer().pack(tuple, ([value],), {}).payload)
    assert status == "returned"
    return pickle.loads(parts[0])[0]


def test_a_category_that_both_ends_have_is_the_same() -> None:
    assert opened(work.OldWarning) is work.OldWarning
    assert opened(DeprecationWarning) is DeprecationWarning


def test_a_category_that_is_missing_has_a_namesake_that_no_warning_is_of() -> None:
    kind = missing_modules.category("nowhere.at.all", "Sign")

    assert (kind.__module__, kind.__name__, kind.__bases__) == ("nowhere.at.all", "Sign", (Warning,))
    assert kind is not missing_modules.category("nowhere.at.all", "Sign")


def test_a_package_that_breaks_as_it_is_imported_is_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("raise OSError('no such driver')")
    monkeypatch.syspath_prepend(tmp_path)

    assert missing_modules.category("broken", "Outer.Sign").__name__ == "Sign"


def test_a_category_of_a_function_travels_whole() -> None:
    class Local(Warning):
        text = "mine"

    status, _ = call_codec.execute(Packer(share=False).pack(len, ([Local],), {}).payload)
    assert status == "returned"


@pytest.mark.parametrize("name", ["os", "tests.nothing", "__main__", None])
def test_what_is_there_is_not_explained(name: str | None) -> None:
    assert missing_modules.explain(ModuleNotFoundError("?", name=name)) == ""


def test_what_is_missing_is_named_with_the_node_and_the_remedy() -> None:
    text = missing_modules.explain(ModuleNotFoundError("?", name="nowhere.at.all"))

    assert text.startswith("Node 0 (")
    assert "has no module 'nowhere.at.all'" in text
    assert 'sky.Image(packages=["nowhere"])' in text


def test_what_an_exception_holds_and_cannot_travel_is_named() -> None:
    status, payload = call_codec.execute(Packer().pack(work.raise_boxed, (), {}).payload)
    _, error = call_codec.open_outcome(status, payload)

    assert isinstance(error, work.BoxedError)
    _, note = error.__notes__
    assert note.startswith("exception.box._lock cannot be pickled and was left out")


def test_a_result_that_cannot_come_home_has_the_path_to_why() -> None:
    status, payload = call_codec.execute(Packer().pack(work.boxed, (), {}).payload)
    _, error = call_codec.open_outcome(status, payload)

    assert isinstance(error, NotPortable)
    assert error.path == 'result[1]["box"]._lock'


def test_a_path_that_was_added_late_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_late.py").touch()
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", [*before, str(tmp_path)])
    lacks = ModuleNotFoundError("no", name="found_late.part")

    assert f"finds 'found_late' in {str(tmp_path)!r}, which was added to sys.path after" in missing_modules.found_since(
        lacks, before
    )
    assert missing_modules.found_since(lacks, sys.path) == ""
    assert missing_modules.found_since(ModuleNotFoundError("no", name="found_nowhere"), before) == ""
    assert missing_modules.found_since(ModuleNotFoundError("no"), before) == ""
