from pathlib import Path

import pytest

from skyward.remote import mounts

MOUNTED = r"""
25 1 8:1 / / rw - ext4 /dev/sda1 rw
26 25 0:44 / /my\040data rw shared:1 - nfs4 server:/export rw
27 25 0:45 / /fast rw - lustre 10.0.0.1@tcp:/fast rw
""".strip()


def test_tokens_are_equal_where_the_files_are() -> None:
    here, there = (mounts.parsed(MOUNTED, machine) for machine in ("a", "b"))

    assert set(here) == {"/", "/my data", "/fast"}
    assert here["/fast"] == there["/fast"]
    assert here["/my data"].read == there["/my data"].read
    assert here["/my data"].write != there["/my data"].write
    assert not {here["/"].read, here["/"].write} & {there["/"].read, there["/"].write}


def test_the_last_mount_on_a_folder_hides_the_others() -> None:
    text = "25 1 8:1 / /data rw - ext4 /dev/sda1 rw\n26 1 8:2 / /data rw - ext4 /dev/sdb1 rw\n"

    assert mounts.parsed(text, "a") == mounts.parsed(text.splitlines()[1], "a")


def test_a_path_is_on_the_mount_that_is_the_nearest_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"/": mounts.Mount("root", "root"), str(tmp_path): mounts.Mount("data", "data")}
    monkeypatch.setattr(mounts, "mounted", lambda: known)

    assert mounts.mount_of(str(tmp_path / "a" / "b")) == known[str(tmp_path)]
    assert mounts.mount_of("/etc/hosts") == known["/"]
    assert mounts.tokens() == ["data", "root"]


def test_where_the_system_lists_no_mounts_the_machine_stands_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MOUNTS", "BOOT_ID"):
        monkeypatch.setattr(mounts, name, tmp_path / "missing")

    assert mounts.mount_of(str(tmp_path)) == mounts.mounted()["/"]
    assert mounts.mount_of(str(tmp_path)).write in mounts.tokens()
