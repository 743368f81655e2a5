"""How what is missing is installed: into the environment of the running program, whatever environment is activated."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from skyward import extras
from skyward.errors import MissingExtra

PIP = f"{shlex.quote(sys.executable)} -m pip install"


@pytest.mark.parametrize(
    ("origin", "what"),
    [
        ({"url": "file:///home/alice/my%20sky", "dir_info": {"editable": True}}, "-e '/home/alice/my sky[aws]'"),
        (
            {"url": "https://git.test/sky.git", "vcs_info": {"vcs": "git", "commit_id": "a1b2"}},
            "'skyward[aws] @ git+https://git.test/sky.git@a1b2'",
        ),
        (
            {"url": "file:///tmp/skyward-0.1.0-py3-none-any.whl", "archive_info": {}},
            "'skyward[aws] @ file:///tmp/skyward-0.1.0-py3-none-any.whl'",
        ),
        ({"url": "file:///srv/sky", "dir_info": {}}, "'skyward[aws] @ file:///srv/sky'"),
        (None, "-e '.[aws]' in the folder of Skyward's source"),
    ],
)
def test_a_missing_extra_is_installed_from_where_skyward_was_installed(
    origin: object, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "skyward-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: skyward\nVersion: 0.1.0\n")
    if origin is not None:
        (folder / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(tmp_path)
    error = extras.missing("aioboto3", "aws")

    assert str(error) == f"aioboto3 is not installed: {PIP} {what}"
    assert error.name == "aioboto3"


def test_an_extra_is_missing_if_one_of_its_libraries_is() -> None:
    extras.require("dashboard", "json", "shlex")
    with pytest.raises(MissingExtra, match=r"^no_such_library is not installed: .*\[dashboard\]"):
        extras.require("dashboard", "json", "no_such_library")


@pytest.mark.parametrize(
    ("uv", "command"),
    [
        ("/usr/bin/uv", "uv pip install --python '/my env/bin/python'"),
        (None, "'/my env/bin/python' -m ensurepip && '/my env/bin/python' -m pip install"),
    ],
)
def test_without_pip_it_is_uv_that_installs_or_pip_comes_first(
    uv: str | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/my env/bin/python")
    assert extras.installer() == "'/my env/bin/python' -m pip install"

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda _: uv)
    assert extras.installer() == command


def test_the_command_finds_the_environment_of_this_program_from_anywhere(tmp_path: Path) -> None:
    ran = subprocess.run(
        [*shlex.split(extras.installer()), "--dry-run", "--no-deps", "--no-index", "-q", "pip"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
