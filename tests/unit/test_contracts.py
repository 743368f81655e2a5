"""The import contracts of pyproject.toml hold, and each breaks when someone breaks it."""

import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from importlinter import configuration
from importlinter.application import use_cases
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.protected import ProtectedContract
from importlinter.domain.contract import ContractCheck, registry

ROOT = Path(__file__).parents[2]
CONTRACTS = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}

PROOFS = {
    "aws-parts-know-no-provider": [
        ("providers/aws/launch_plan.py", "from skyward.providers.aws.aws import AWS"),
        ("providers/aws/security_group.py", "def late(): import skyward.providers.aws.aws"),
    ],
    "actors-know-no-provider": [
        ("actors/supervisor.py", "from skyward.providers.local import Local"),
        ("actors/provisioner.py", "from skyward.providers import Local"),
        ("actors/router.py", "import skyward.plugins.plugin"),
        ("actors/node_client.py", "import skyward.api.compute"),
    ],
    "casty-in-the-shells": [("api/compute.py", "import casty"), ("providers/local.py", "import casty")],
    "cli-is-outermost": [
        ("api/compute.py", "import cyclopts"),
        ("providers/ssh/ssh.py", "from skyward.cli import main"),
    ],
    "contract-stands-alone": [
        ("providers/provider.py", "from skyward.providers.health_checks import HostRequirements"),
        ("providers/provider.py", "import skyward.errors"),
    ],
    # everything imports errors: only what a node may load anyway breaks this contract alone
    "errors-stand-alone": [("errors.py", "import uvloop")],
    "front-door-is-for-guests": [
        ("api/compute.py", "import skyward"),
        ("api/compute.py", "from skyward import Worker"),
    ],
    "few-files-know-asyncssh": [("api/compute.py", "import asyncssh"), ("providers/local.py", "import asyncssh")],
    "no-circles": [
        ("actors/connection.py", "from skyward.actors.node_client import NodeClient"),
        ("actors/call_table.py", "if TYPE_CHECKING: from skyward.actors.router import Router"),
        ("providers/aws/watchdog.py", "from skyward.providers.aws.pool import EC2Pool"),
        ("telemetry/report.py", "def late(): import skyward.calls.completion"),
    ],
    "one-file-knows-aws": [("api/compute.py", "import aioboto3"), ("providers/local.py", "import botocore.session")],
    "one-file-serves": [("view/page.py", "import starlette"), ("api/compute.py", "from uvicorn import Server")],
    "nobody-is-watched": [
        ("actors/node_starter.py", "import skyward.view.output_echo"),
        ("telemetry/event_log.py", "from skyward.view import page"),
    ],
    "rich-in-the-console": [("api/compute.py", "import rich"), ("telemetry/report.py", "from rich.table import Table")],
    "joblib-in-its-plugin": [("api/compute.py", "import joblib"), ("plugins/joblib.py", "def late(): import joblib")],
    "pickling-in-one-place": [("api/compute.py", "import pickle"), ("remote/node/zygote.py", "import cloudpickle")],
    "plugins-see-a-pool": [
        ("plugins/joblib.py", "from skyward.api.compute import Compute"),
        ("plugins/joblib.py", "import skyward.actors.routing"),
        ("plugins/joblib_backend.py", "from skyward.providers.provider import Provider"),
    ],
    "providers-know-no-slots": [
        ("providers/provider.py", "import skyward.actors.lifecycle"),
        ("providers/local.py", "import skyward.remote.context"),
        ("providers/local.py", "def late(): import skyward.api.compute"),
    ],
    "pure-is-pure": [
        ("actors/costs.py", "import time"),
        ("actors/scaling.py", "import skyward.remote.protocol"),  # which imports casty
    ],
    "remote-is-small": [
        ("remote/node/slot.py", "import pydantic"),
        ("remote/node/agent.py", "from skyward.config.spec import Options"),
        ("remote/function.py", "def late(): import skyward.api.compute"),
    ],
    "views-are-attached-in-one-place": [
        ("api/compute.py", "from skyward.view.page import save"),
        ("config/spec.py", "def late(): import skyward.view.dashboard"),
    ],
    "views-see-events": [
        ("view/console.py", "from skyward.config.spec import Options"),
        ("view/dashboard.py", "def late(): import skyward.actors.driver"),
    ],
    "zygote-without-casty": [
        ("remote/node/zygote.py", "import asyncio"),
        ("remote/node/zygote.py", "import skyward.remote.node.slot"),
    ],
}
"""For each contract, lines that must break it and no other: (file below skyward/, line)."""


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that import-linter takes for the real one."""
    shutil.copytree(ROOT / "skyward", tmp_path / "skyward", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "skyward", raising=False)
    return tmp_path / "skyward"


def checked(*asked: str) -> dict[str, ContractCheck]:
    """What comes of the contracts, of those asked for or of all, in the package found first; by their ids."""
    configuration.configure()
    registry.register(AcyclicSiblingsContract, "acyclic_siblings")
    registry.register(ForbiddenContract, "forbidden")
    registry.register(ProtectedContract, "protected")
    options = use_cases.read_user_options(str(ROOT / "pyproject.toml"))
    report = use_cases.create_report(options, limit_to_contracts=asked, cache_dir=None)
    assert not report.invalid_contract_options
    ids = {contract["name"]: name for name, contract in CONTRACTS.items()}
    return {ids[contract.name]: check for contract, check in report.get_contracts_and_checks()}


def broken(*asked: str) -> set[str]:
    """The ids of the contracts that do not hold."""
    return {name for name, check in checked(*asked).items() if not check.kept}


def test_all_contracts_hold(house: Path) -> None:
    assert broken() == set()


def test_each_contract_has_a_proof() -> None:
    assert PROOFS.keys() == CONTRACTS.keys()


@pytest.mark.parametrize(
    ("contract", "file", "line"), [(name, *proof) for name, proofs in PROOFS.items() for proof in proofs]
)
def test_a_line_that_does_not_belong_breaks_its_contract(house: Path, contract: str, file: str, line: str) -> None:
    with (house / file).open("a") as module:
        module.write(f"\n{line}\n")

    assert broken(contract) == {contract}  # others too may break, by importing this module


def test_no_pure_module_may_import_what_is_forbidden_to_one(house: Path) -> None:
    contract = CONTRACTS["pure-is-pure"]
    lines = dict.fromkeys(contract["source_modules"], "import time")
    lines["skyward.actors.routing"] = f"import {', '.join(contract['forbidden_modules'])}"
    for module, line in lines.items():
        with (house.parent / f"{module.replace('.', '/')}.py").open("a") as file:
            file.write(f"\n{line}\n")
    found = checked("pure-is-pure")["pure-is-pure"].metadata["invalid_chains"]
    direct = {
        (each["downstream_module"], each["upstream_module"])
        for each in found
        if any(len(chain) == 1 for chain in each["chains"])
    }

    assert {(module, "time") for module in contract["source_modules"]} <= direct
    assert {("skyward.actors.routing", name) for name in contract["forbidden_modules"]} <= direct


@pytest.mark.parametrize(
    ("file", "line"), [("ssh/tunnel.py", "import asyncssh"), ("aws/api.py", "import aioboto3, botocore")]
)
def test_the_one_file_that_may_import_a_heavy_library_may(house: Path, file: str, line: str) -> None:
    (house / "providers" / file).write_text(line)

    assert broken() == set()
