"""The lab runs when it is asked for: `make lab`, or `pytest -m lab`. What cannot run here is skipped, and says why."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

import skyward as sky
from tests import kit
from tests.lab.cloud import Cloud
from tests.lab.host import Host, Unavailable
from tests.lab.lab import NEAR, Lab, enter, why_not

REQUIRED = os.environ.get("SKYWARD_LAB") == "required"
"""Whether a lab that cannot run is a failure, as in CI."""


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.lab)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the lab out, unless `-m` names it."""
    if "lab" not in config.option.markexpr:
        lab = [item for item in items if item.get_closest_marker("lab")]
        config.hook.pytest_deselected(items=lab)
        items[:] = [item for item in items if item not in lab]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Enter the lab's network before any thread is there."""
    if any(item.get_closest_marker("lab") for item in session.items) and why_not() is None:
        enter()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if reason := why_not():
        (pytest.fail if REQUIRED else pytest.skip)(f"no lab here: {reason}")
    with Lab(tmp_path_factory.mktemp("lab")) as opened:
        yield opened


class Hosts(Protocol):
    def __call__(self, count: int = 1, **more: object) -> list[Host]: ...


@pytest.fixture
def hosts(lab: Lab) -> Iterator[Hosts]:
    """Start hosts for one test, with the arguments of `Lab.start`."""
    started: list[Host] = []

    def start(count: int = 1, **more: object) -> list[Host]:
        try:
            started.extend(made := lab.start_many(count, **more))
        except Unavailable as reason:
            pytest.skip(str(reason))
        return made

    yield start
    for host in started:
        lab.end(host)


@pytest.fixture
def host(hosts: Hosts) -> Host:
    """A host for one test."""
    return hosts()[0]


@pytest.fixture
def cloud(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An EC2 for one test, whose endpoint and keys are in the environment."""
    lab.home()  # before a machine needs it
    with Cloud(lab) as opened:
        for name, value in opened.environment().items():
            monkeypatch.setenv(name, value)
        yield opened


@pytest.fixture
def aws(cloud: Cloud, tmp_path: Path) -> Iterator[Callable[..., sky.AWS]]:
    """Make providers on the cloud; their guards are gone when the test ends."""
    usual: dict[str, Any] = {"allow": NEAR, "journal": tmp_path / "aws.jsonl", "max_lifetime": 300.0}
    yield lambda **more: sky.AWS(**usual | more)
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end by itself meanwhile
            if "skyward.providers.aws.watchdog" in child.cmdline():
                child.kill()
                child.wait(kit.SOON)
