"""What a machine is told at its first boot. That it holds is proved on machines, in `tests/lab/test_aws_lease.py`."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from skyward.providers.aws import userdata
from skyward.providers.aws.userdata import ShutdownTimeouts

LIMITS = ShutdownTimeouts(600, 300, 43200)


def test_the_lease_script_starts_before_anything_else() -> None:
    text = userdata.cloud_config(LIMITS, ("PRIVATE", "ssh-ed25519 HOST"), "ssh-ed25519 LOGIN")
    head, _, body = text.partition("\n")
    told = json.loads(body)

    assert head == "#cloud-config"
    assert next(iter(told)) == "bootcmd"
    assert told["ssh_keys"] == {"ed25519_private": "PRIVATE", "ed25519_public": "ssh-ed25519 HOST"}
    assert told["ssh_authorized_keys"] == ["ssh-ed25519 LOGIN"]
    assert len(text) < 16_000  # as much as user data may be


def test_the_limits_are_in_the_script_as_whole_seconds() -> None:
    script = userdata.starting(ShutdownTimeouts(600, 299.6, 43200))

    assert "-lt 600 ]" in script
    assert "-lt 300 ]" in script
    assert "-lt 43200 ]" in script


@pytest.mark.parametrize(
    ("limits", "pause"), [(LIMITS, 5.0), (ShutdownTimeouts(600, 2, 43200), 0.5), (ShutdownTimeouts(4, 9, 9), 1.0)]
)
def test_it_looks_often_enough_for_its_limits(limits: ShutdownTimeouts, pause: float) -> None:
    assert limits.pause == pause
    assert f"sleep {pause:.2f}" in userdata.starting(limits)


@pytest.mark.parametrize(
    "script", [userdata.starting(LIMITS), userdata.rekey("ssh-ed25519 A b"), userdata.renewal("x", 1.2)]
)
def test_it_is_shell(script: str) -> None:
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_a_sign_of_life_says_when_the_money_is_used_up() -> None:
    assert userdata.renewal("x") == f"echo x >{userdata.HELD_FILE}"
    assert userdata.renewal("x", 61.2) == f"echo x 62 >{userdata.HELD_FILE}"
    assert userdata.renewal("x", 0.0) == f"echo x 0 >{userdata.HELD_FILE}"


def test_what_is_run_as_root_is_one_word() -> None:
    *_, script = shlex.split(userdata.rekey("ssh-ed25519 it's"))

    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert "it'\"'\"'s" in script


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen here")
def test_half_a_host_key_changes_nothing(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "new"], check=True)
    private, public = (tmp_path / "new").read_bytes(), (tmp_path / "new.pub").read_text().strip()
    *_, script = shlex.split(userdata.rekey(public))
    script = re.sub("^systemctl.*$", "", script.replace("/etc/ssh", str(tmp_path)), flags=re.MULTILINE)
    key = tmp_path / "ssh_host_ed25519_key"
    key.write_text("old")
    half = subprocess.run(["sh", "-c", script], input=private[:200], capture_output=True, check=False)

    assert half.returncode
    assert key.read_text() == "old"
    subprocess.run(["sh", "-c", script], input=private, check=True)
    assert key.read_bytes() == private
    assert (tmp_path / "ssh_host_ed25519_key.pub").read_text().strip() == public
