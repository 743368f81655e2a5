"""`skyward ls` and `skyward down`, as processes of their own: they know nothing of who made what they find."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from skyward.providers.aws import staleness
from skyward.providers.aws.journal import Journal
from tests.lab.cloud import REGION, Cloud
from tests.lab.host import until
from tests.lab.test_aws_inventory import Make, launch, retag

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[2]


def skyward(
    *words: str, stdin: int = subprocess.DEVNULL, home: Path = Path("/nonexistent")
) -> "subprocess.CompletedProcess[str]":
    # from a home where no driver of ours has ever run, unless it is given
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(home), "XDG_STATE_HOME": ""}
    command = [sys.executable, "-m", "skyward", *words]
    return subprocess.run(
        command, env=environment, stdin=stdin, capture_output=True, text=True, timeout=100, check=False
    )


def on_a_terminal(answer: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run it where somebody can be asked, and answers."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        return skyward(*words, stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def test_what_is_there_is_listed_with_age_price_and_lease_and_ended_by_name(cloud: Cloud, aws: Make) -> None:
    cloud.market.prices["t4g.micro"] = 0.0084
    launch(aws(volume_gb=8), "one", 2)
    launch(aws(), "two")
    ran = skyward("ls")

    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert re.fullmatch(
        rf"one  {REGION}, by \S+:{os.getpid()}, in use, 2 machines, \$0\.0286/h, \$\d\S* so far", lines[0]
    )
    machine = r"  i-\w+  t4g\.micro  \S+  \w+  +\d+s  \$0\.0143/h, \$\S+ +shuts down 5m after its driver or in [34]m.*"
    assert [bool(re.fullmatch(machine, line)) for line in lines[1:3]] == [True, True]
    assert re.fullmatch(r"  sg-\w+  security group", lines[3])
    assert lines[4].startswith("two  ")

    listed = json.loads(skyward("ls", "--json", "--region", REGION).stdout)
    assert [(each["name"], len(each["machines"]), len(each["groups"])) for each in listed] == [
        ("one", 2, 1),
        ("two", 1, 1),
    ]

    ran = skyward("down", "one", "none")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "skyward: there is no pool 'none' in us-east-1; found: one, two" in ran.stderr
    ran = skyward("down", "one")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("terminated one  ")
    assert cloud.groups() == ["skyward-two"]


def test_who_is_at_a_terminal_is_asked(cloud: Cloud, aws: Make) -> None:
    launch(aws(), "one")
    launch(aws(), "two")
    for answer in ("n", "", "yess"):
        ran = on_a_terminal(answer, "down", "--all")
        assert ran.returncode == 1
        assert ran.stderr.endswith("Terminate these 2 pools? [y/N] skyward: nothing was terminated\n")
        assert "t4g.micro" in ran.stderr
    assert len(cloud.living()) == 2

    ran = on_a_terminal("y", "down", "two")
    assert ran.returncode == 0
    assert ran.stderr.endswith("Terminate it? [y/N] ")
    assert ran.stdout.startswith("terminated two  ")
    assert on_a_terminal("", "down", "one", "--yes").returncode == 0
    until(lambda: not cloud.left(), "nothing is left")


def test_what_nobody_needs_is_ended_and_nothing_else_until_all_is(cloud: Cloud, aws: Make) -> None:
    launch(aws(), "old")
    retag(cloud, staleness.UNTIL, "2020-01-01T00:00:00+00:00")
    launch(aws(), "new")
    assert "stale" in skyward("ls").stdout.splitlines()[-3]  # they are listed by name

    ran = skyward("down", "--stale", "--json")
    assert [each["name"] for each in json.loads(ran.stdout)] == ["old"]
    assert skyward("down", "--stale").stdout == "nothing to terminate in us-east-1\n"
    assert len(cloud.living()) == 1

    assert skyward("down", "--all").returncode == 2
    assert len(cloud.living()) == 1
    assert skyward("down", "--all", "--yes").returncode == 0
    assert skyward("ls").stdout == "no Skyward pools found in us-east-1\n"
    until(lambda: not cloud.left(), "nothing is left")


def test_what_could_not_be_looked_for_is_no_success(cloud: Cloud, aws: Make, tmp_path: Path) -> None:
    launch(aws(), "pool")
    begun = Journal(tmp_path / ".local/state/skyward/aws.jsonl").note("run_instances", pool="far", region="eu-west-3")
    asyncio.run(begun)
    cloud.fail("*", "OptInRequired", times=99, match=lambda call: call.region == "eu-west-3")

    ran = skyward("down", "--all", "--yes", home=tmp_path)
    assert (ran.returncode, ran.stdout[:16]) == (1, "terminated pool ")
    assert "skyward: something may be left in regions that could not be searched: eu-west-3: " in ran.stderr


def test_a_permission_that_is_missing_is_named(cloud: Cloud) -> None:
    cloud.fail("DescribeInstances", "UnauthorizedOperation")
    ran = skyward("ls")

    assert ran.returncode == 1
    assert ran.stderr.startswith("skyward: your credentials do not allow ec2:DescribeInstances")
