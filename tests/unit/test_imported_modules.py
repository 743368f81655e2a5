"""Which installed modules are listed for a node to import."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from skyward.environment import imported_modules
from skyward.remote.module_bundles import IMPORTS_PREFIX

type Write = Callable[[str, str], str]


def listed(*names: str) -> list[str]:
    return [name for data in imported_modules.import_list(frozenset(names)).values() for name in data.decode().split()]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.syspath_prepend(tmp_path)
    imported_modules.import_list.cache_clear()

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return name

    return write


def test_a_module_of_an_installed_package_is_listed_under_a_name_that_says_what_is_in_it() -> None:
    (name,) = imported_modules.import_list(frozenset(["pytest"]))
    assert name.startswith(IMPORTS_PREFIX)
    assert listed("pytest") == ["pytest"]
    assert imported_modules.import_list(frozenset(["pluggy"])).keys() != {name}


@pytest.mark.parametrize(
    "name", ["math", "json.decoder", "__main__", "skyward.remote.serialization.packer", "joblib.parallel"]
)
def test_what_takes_no_time_is_not_listed(name: str) -> None:
    assert listed(name) == []


def test_a_module_that_does_not_exist_in_a_package_that_is_loaded_is_not_listed() -> None:
    assert listed("pytest", "pytest.no_such_module", "no_such_package_at_all") == ["pytest"]
    assert listed("_pytest.no.such") == []


def test_a_package_that_is_not_loaded_here_is_listed_and_stays_unloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "not_loaded_here.py").write_text("raise AssertionError")
    monkeypatch.syspath_prepend(folder)
    assert listed("not_loaded_here.part") == ["not_loaded_here.part"]


def test_of_the_users_own_modules_their_first_imports_are_listed(write: Write) -> None:
    name = write(
        "own_first",
        '"""Doc."""\nimport json\nimport pytest as p\nfrom pluggy import HookimplMarker\nX = 1\nimport _pytest\n',
    )
    assert listed(name) == ["_pytest", "pluggy", "pytest"]
    name = write("own_later", "import pytest\nprint(end='')\nimport pluggy\n")
    assert listed(name) == ["pytest"]


def test_imports_after_one_of_the_users_own_are_not_listed(write: Write) -> None:
    write("own_settings", "import pluggy\n")
    assert listed(write("own_user", "import pytest\nimport own_settings\nimport pluggy\n")) == ["pytest"]


@pytest.mark.parametrize("text", ["import os\nos.environ['A_B'] = 'c'\n", "from os import environ\n"])
def test_nothing_is_listed_with_a_module_that_may_set_variables(write: Write, text: str) -> None:
    name = write(f"own_setting_{len(text)}", f"import pytest\n{text}")
    assert listed(name, "pluggy") == []
