"""Whether an environment has what the driver counts on."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

from skyward.remote.node import environment_check
from skyward.remote.node_config import CONFIG_FILE, NodeConfig, Requirements
from skyward.remote.node_messages import EnvironmentMismatch, encode

HERE = "{}.{}".format(*sys.version_info)
CASTY = importlib.metadata.version("casty")


def test_an_environment_like_the_drivers_lacks_nothing() -> None:
    assert environment_check.wrong(HERE, {"casty": CASTY}, ["casty", "json.decoder"]) == []


def test_each_difference_is_a_row_with_its_fix() -> None:
    assert environment_check.wrong("2.7", {"casty": "0.1", "no-such": "2"}, ["nowhere.at.all", "json"]) == [
        ("Python", "2.7", HERE, "Image(python=...) that is a 2.7"),
        ("casty", "0.1", CASTY, "remove ~/.cache/skyward/env on the machine"),
        ("no-such", "2", "missing", "remove ~/.cache/skyward/env on the machine"),
        ("module nowhere", "preload", "missing", 'Image(packages=["nowhere"])'),
    ]


def test_rows_are_shown_as_a_table() -> None:
    shown = environment_check.table([("casty", "0.1", "0.30", "do this"), ("a", "1", "missing", "b")])

    assert shown.splitlines() == [
        "what   here  there    fix",
        "casty  0.1   0.30     do this",
        "a      1     missing  b",
    ]


@pytest.mark.parametrize(("python", "code"), [(HERE, 0), ("2.7", environment_check.MISMATCH_EXIT_CODE)])
def test_what_is_wrong_is_printed_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], python: str, code: int
) -> None:
    required = Requirements(python, {"casty": CASTY})
    config = NodeConfig("pool-0-0", 0, 1, 1, "process", lease=15.0, first_contact=60.0, requirements=required)
    (tmp_path / CONFIG_FILE).write_bytes(config.encode())

    assert environment_check.main(tmp_path) == code
    mismatch = EnvironmentMismatch([("Python", "2.7", HERE, "Image(python=...) that is a 2.7")])
    assert capfd.readouterr().out == (encode(mismatch).decode() if code else "")
