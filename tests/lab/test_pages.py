"""The programs in the documentation that need hosts or EC2, and the first run on Amazon as its page shows it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.cloud import Cloud
from tests.lab.conftest import Hosts
from tests.lab.lab import NEAR, Lab
from tests.test_docs import allowed

pytestmark = pytest.mark.timeout(240)
DOCS = Path(__file__).parents[2] / "docs"
FIRST_RUN = DOCS / "aws-first-run.md"
CHECK = "skyward doctor aws --region us-east-1 --instance-type c7g.medium --nodes 2"
PRICE = 0.0363
"""Dollars an hour for the machine of the page."""


def program(page: Path, where: str) -> str:
    """Return the program of a page that runs there."""
    (code,) = re.findall(rf"<!-- runs {where} -->\n```python\n(.*?)```", page.read_text(), re.DOTALL)
    return str(code)


def run(folder: Path, *command: str) -> str:
    """Run a command and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(DOCS.parent), "HOME": str(folder)}
    ran = subprocess.run(
        command,
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def shown(command: str) -> list[str]:
    """Return the lines that the page shows below a command."""
    found = re.search(rf"^\$ {re.escape(command)}\n(.*?)^(?:\$|```)", FIRST_RUN.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1].splitlines()


def shape(lines: list[str]) -> list[str]:
    """Lines without their figures, and without those that come only when something takes its time."""
    return [re.sub(r"[\d.:]*\d", "#", line) for line in lines if " · " not in line and " ready after " not in line]


def test_files_of_the_image_are_there_on_hosts(hosts: Hosts, lab: Lab, tmp_path: Path) -> None:
    (host,) = hosts(used=True)
    code = program(DOCS / "data.md", "here and on hosts")
    here = code.replace("sky.Local()", f"sky.SSH(hosts=[{host.name!r}], config={str(lab.config)!r})")

    assert here != code
    (tmp_path / "program.py").write_text(here)
    assert run(tmp_path, sys.executable, "program.py").splitlines()[-1] == "3"


def test_the_first_run_prints_what_its_page_shows_and_leaves_nothing(cloud: Cloud, tmp_path: Path) -> None:
    cloud.market.prices["c7g.medium"] = PRICE
    code = program(FIRST_RUN, "on EC2")
    here = code.replace("sky.AWS(", f"sky.AWS(allow={NEAR!r}, ")
    assert here != code
    (tmp_path / "first.py").write_text(here)
    examined = run(tmp_path, sys.executable, "-m", *CHECK.split(), "--allow", NEAR).splitlines()
    printed = run(tmp_path, sys.executable, "first.py").splitlines()
    listed = run(tmp_path, sys.executable, "-m", "skyward", "ls", "--region", "us-east-1").splitlines()

    assert shape(examined) == shape(shown(CHECK))
    assert shape(printed) == shape(shown(".venv/bin/python first.py"))
    assert listed == shown("skyward ls --region us-east-1")
    asked = {call.action for call in cloud.calls} - {"GetCallerIdentity", "GetServiceQuota"}  # which the page explains
    assert asked - {action.partition(":")[2] for action in allowed()} == set()
    assert cloud.left() == []
