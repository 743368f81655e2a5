"""Run the tests of the pure modules, each of which must take every branch of its module: `python -m tests.covered`.

Only what its own test module runs counts for a module. Imports count for all, as each test module makes them too.
"""

import importlib
import io
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[1]


def pure() -> list[str]:
    """Return the names of the modules that the import contract of pure modules holds."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = config["tool"]["importlinter"]["contracts"]
    (modules,) = (each["source_modules"] for each in contracts if each["id"] == "pure-is-pure")
    return list(modules)


def tests_of(module: str) -> str:
    """Return the path of the tests of a module."""
    return f"tests/unit/test_{module.rpartition('.')[2]}.py"


class ByTestModule:
    """A plugin for pytest that notes for each line which test module ran it, when it was collected or later."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self._measured = measured

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        self._measured.switch_context(collector.nodeid)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._measured.switch_context(item.nodeid.partition("::")[0])
        return (yield)


def main() -> int:
    """Run the tests, print the branches that are missed, and return the exit status."""
    modules = pure()
    measured = coverage.Coverage(
        data_file=None, branch=True, source_pkgs=modules, config_file=str(ROOT / "pyproject.toml")
    )
    measured.start()
    measured.switch_context("import")
    files = {module: str(importlib.import_module(module).__file__) for module in modules}
    status = pytest.main(["-q", "-n0", *map(tests_of, modules)], [ByTestModule(measured)])
    measured.stop()
    if status:
        return status
    for module, file in files.items():
        report = io.StringIO()
        contexts = ["^import$", f"^{tests_of(module)}$"]
        if measured.report([file], file=report, contexts=contexts) < 100:
            sys.stderr.write(f"{tests_of(module)} misses branches of its module:\n{report.getvalue()}\n")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
