"""The lines of shell that the SSH provider has run, run here: those that need not wait for anything."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from skyward.providers.ssh import scripts
from skyward.remote.node.parent_process import PIDS_FILE, SILENCE_FILE
from skyward.remote.node_config import ALIVE_FILE, LEASE_FILE
from tests import kit
from tests.shells import shell as shell


def test_a_folder_that_cannot_be_removed_is_not_called_finished(shell: Callable[[str], str], tmp_path: Path) -> None:
    shell(scripts.settle("pool-0-0"))
    for name, lines in {"rm": "echo 'rm: Device or resource busy' >&2; false", "sleep": "true"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / name).chmod(0o700)

    with pytest.raises(subprocess.CalledProcessError) as raised:
        shell(f'PATH="{tmp_path}:$PATH"\n{scripts.finish("pool-0-0")}')
    assert raised.value.stderr == "rm: Device or resource busy\n"
    shell(scripts.finish("pool-0-0"))


@pytest.mark.parametrize("name", [ALIVE_FILE, LEASE_FILE, PIDS_FILE, SILENCE_FILE])
def test_the_files_of_a_lease_are_those_of_a_node(name: str) -> None:
    assert f'"$folder/{name}"' in scripts._LEASE_LOOP


def test_a_pool_finds_nothing_where_nothing_ever_was(shell: Callable[[str], str]) -> None:
    assert shell(scripts.find("pool")) == ""


def test_folders_are_made_for_nobody_else_or_refused(shell: Callable[[str], str], tmp_path: Path) -> None:
    top = tmp_path / "a" / "it's"
    for _ in range(2):
        shell(scripts.make([str(top), str(top / "deep")]))
    assert {path.stat().st_mode & 0o777 for path in (top, top / "deep")} == {0o700}

    (tmp_path / "open").mkdir(0o755)
    (tmp_path / "link").symlink_to(top)
    (tmp_path / "file").touch(0o600)
    for name, said in (("open", "not a folder of"), ("link", "not a folder of"), ("file", "File exists")):
        with pytest.raises(subprocess.CalledProcessError) as failed:
            shell(scripts.make([str(tmp_path / name)]))
        assert said in failed.value.stderr


def test_a_file_appears_whole_or_not_at_all(shell: Callable[[str], str], tmp_path: Path) -> None:
    path = tmp_path / "it's"
    shell(f"printf 12345 | ({scripts.write(str(path), 5)})")
    with pytest.raises(subprocess.CalledProcessError):
        shell(f"printf 1234 | ({scripts.write(str(path), 9)})")

    assert path.read_text() == "12345"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_command_is_followed_from_any_line_on_and_says_how_it_ended(shell: Callable[[str], str]) -> None:
    folder = shell(scripts.settle("pool-0-0")).strip()
    shell(scripts.start(folder, 1, "token", ["sh", "-c", "echo one; echo two; echo bad >&2; exit 7"]))
    ended = f"{scripts.END_MARK} token 7"
    kit.until(lambda: ended in Path(folder, ".1.err").read_text())

    assert Path(folder, ".1.out").read_text() == f"one\ntwo\n\n{ended}\n"
    assert Path(folder, ".1.err").read_text() == f"bad\n\n{ended}\n"
    followed = scripts.follow(folder, 1, 1, 0).replace(" -f ", " ")  # to the end that is there
    assert shell(followed).splitlines()[0] == "two"
