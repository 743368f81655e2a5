"""The house keeps its own rules: what an import loads, what is public, how long a file is, what has a test."""

import ast
import inspect
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

import skyward

ROOT = Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "skyward").rglob("*.py"))
SOURCES = [path for room in ("skyward", "tests", "guides", "bench") for path in sorted((ROOT / room).rglob("*.py"))]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
PURE = next(
    contract["source_modules"]
    for contract in CONFIG["tool"]["importlinter"]["contracts"]
    if contract["id"] == "pure-is-pure"
)
STDLIB = sys.stdlib_module_names

SHARED_NAMES = {
    "BatchLost": ["skyward.errors", "skyward.events"],
    "LOCK_FILE": ["skyward.providers.scratch", "skyward.remote.node.parent_process"],
}
"""Names of two things: `BatchLost` is raised, and is the event in a record that says so; both are public. The driver
and a node of this machine lock the same file, and neither may import the other."""

LOADED = """
import sys
before = set(sys.modules)
{}
import json
print(json.dumps(sorted(sys.modules.keys() - before)))
"""

POOL = "import skyward; skyward.Compute()"

TIMED = """
from time import process_time
started = process_time()
import skyward
print(process_time() - started)
"""


def fresh(program: str) -> str:
    """What `program` prints in an interpreter that has loaded nothing yet."""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@cache
def loaded(statement: str) -> frozenset[str]:
    """The modules that `statement` brings into a fresh interpreter."""
    return frozenset(json.loads(fresh(LOADED.format(statement))))


def strangers(statement: str) -> set[str]:
    """The top-level packages among them that are neither ours nor the standard library's."""
    return {module.partition(".")[0] for module in loaded(statement)} - STDLIB - {"skyward"}


def ours(statement: str) -> set[str]:
    """The rooms of skyward among them: `errors`, `remote`, ..."""
    return {module.split(".")[1] for module in loaded(statement) if module.startswith("skyward.")}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever it stands in it."""
    names = set()
    for node in ast.walk(tree(path)):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module)):
                names.add(module)
    return names


# ---------------------------------------------------------------- what an import loads


def test_the_front_door_loads_nothing_heavy() -> None:
    assert strangers("import skyward") == set()
    assert ours("import skyward") == {"errors", "remote"}


def test_the_front_door_takes_less_than_150_ms_of_a_processor() -> None:
    assert min(float(fresh(TIMED)) for _ in range(3)) < 0.15


def test_a_pool_loads_what_it_uses() -> None:
    assert {"asyncssh", "botocore", "joblib", "numpy", "packaging", "rich"} & strangers(POOL) == set()
    unused = {"skyward.view.page", "skyward.remote.node.agent", "skyward.remote.node.zygote"}
    assert unused & loaded(POOL) == set()


@pytest.mark.parametrize("module", ["zygote", "parent_process"])
def test_what_is_forked_from_loads_no_casty(module: str) -> None:
    statement = f"import skyward.remote.node.{module}"

    assert strangers(statement) <= {"cloudpickle"}
    assert ours(statement) == {"errors", "remote"}


def test_a_node_loads_a_short_list() -> None:
    allowed = strangers("import casty") | {"cloudpickle", "uvloop"}

    assert strangers("import skyward.remote.node.agent") <= allowed
    assert ours("import skyward.remote.node.agent") == {"errors", "remote"}


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("skyward.errors", set[str]()),
        ("skyward.remote", {"casty", "cloudpickle", "uvloop", "skyward.errors", "skyward.remote"}),
    ],
)
def test_what_goes_to_a_node_names_nothing_else(room: str, allowed: set[str]) -> None:
    named = {
        dotted(path): {".".join(name.split(".")[: 2 if name.startswith("skyward") else 1]) for name in imported(path)}
        for path in PACKAGE
        if dotted(path).startswith(room)
    }

    assert named
    assert {module: strange for module, rooms in named.items() if (strange := rooms - STDLIB - allowed)} == {}


@pytest.mark.parametrize("path", sorted((ROOT / "guides").glob("*.py")), ids=lambda path: path.name)
def test_a_guide_uses_the_front_door_only(path: Path) -> None:
    inside = {name for name in imported(path) if name.startswith("skyward.")}

    assert inside <= {"skyward.plugins", "skyward.providers"}


# ---------------------------------------------------------------- two names that are also modules


def test_remote_stays_the_decorator() -> None:
    decorator = "import sys, skyward as sky; assert sky.remote is sys.modules['skyward.remote.function'].remote"

    fresh(f"import skyward.remote.function; {decorator}")
    fresh(f"from skyward.remote.serialization.packer import Packer; {decorator}")


def test_renaming_a_remote_module_as_it_is_imported_fails() -> None:
    fresh(
        "try:\n    import skyward.remote.serialization.call_codec as wire\n"
        "except ImportError:\n    pass\n"
        "else:\n    raise SystemExit('it works now: tell house-style.md, trap 1')"
    )


def test_nobody_renames_a_remote_module_as_it_is_imported() -> None:
    renamed = [
        (dotted(path), alias.name)
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.asname and alias.name.startswith("skyward.remote")
    ]

    assert renamed == []


def test_the_joblib_plugin_stays_a_function() -> None:
    fresh("import skyward.plugins.joblib; from skyward.plugins import joblib; joblib()")
    fresh("import skyward as sky, skyward.plugins.joblib; sky.plugins.joblib()")


# ---------------------------------------------------------------- what is public


@pytest.mark.parametrize("name", skyward.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(skyward, name)
    generated = f"{name}("  # what dataclass writes for a class without a docstring

    assert name in dir(skyward)
    assert thing.__doc__
    assert not thing.__doc__.startswith(generated)


@pytest.mark.parametrize("name", [name for name in skyward.__all__ if inspect.isclass(getattr(skyward, name))])
def test_what_a_public_class_offers_is_documented(name: str) -> None:
    thing = getattr(skyward, name)
    written = [
        member
        for member, value in vars(thing).items()
        if not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property))
    ]
    silent = [member for member in written if not inspect.getdoc(getattr(thing, member))]

    assert not [member for member in silent if member not in thing.__doc__]


def test_the_version_is_the_one_that_is_installed() -> None:
    assert skyward.__version__ == version("skyward")
    assert "__version__" in dir(skyward)


@pytest.mark.parametrize("name", ["Comptue", "_private"])
def test_a_name_that_is_not_there_fails_as_usual(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(skyward, name)


# ---------------------------------------------------------------- files


def test_a_file_has_at_most_450_lines() -> None:
    assert [dotted(path) for path in SOURCES if len(path.read_text().splitlines()) > 450] == []


def test_each_module_has_a_name_of_its_own() -> None:
    names = sorted(path.stem for path in PACKAGE if not path.stem.startswith("__"))

    assert names == sorted(set(names))


def defined(path: Path) -> Iterator[str]:
    """The types and constants of a module."""
    for node in tree(path).body:
        match node:
            case ast.ClassDef(name=name) | ast.TypeAlias(name=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=[target]) | ast.AnnAssign(target=target):
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                yield from (each.id for each in names if isinstance(each, ast.Name) and each.id.isupper())


def test_a_type_or_constant_has_a_name_of_its_own() -> None:
    homes: dict[str, list[str]] = {}
    for path in PACKAGE:
        for name in defined(path):
            homes.setdefault(name.lstrip("_"), []).append(dotted(path))

    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == SHARED_NAMES


def test_a_module_is_named_for_what_it_is_for() -> None:
    vague = {"base", "common", "handler", "handlers", "helpers", "manager", "misc", "utils"}

    assert [dotted(path) for path in PACKAGE if path.stem in vague] == []


def test_a_pure_module_says_so_in_its_first_line() -> None:
    first_lines = {dotted(path): (ast.get_docstring(tree(path)) or "").partition("\n")[0] for path in PACKAGE}

    assert sorted(module for module, line in first_lines.items() if "Pure: " in line) == sorted(PURE)


def test_a_pure_module_has_its_own_tests() -> None:
    tests = {module: ROOT / "tests" / "unit" / f"test_{module.rpartition('.')[2]}.py" for module in PURE}

    assert [module for module, path in tests.items() if not path.is_file()] == []
