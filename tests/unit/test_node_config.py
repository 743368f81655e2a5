"""The configuration of a node."""

import json
from dataclasses import replace
from typing import Any

import pytest

from skyward.remote.node_config import NodeConfig, Requirements

LEAST = NodeConfig("pool-0-0", 0, 1, None, "process", lease=15.0, first_contact=60.0)
FULL = NodeConfig(
    cluster="pool-3-1",
    node=3,
    nodes=8,
    concurrency=4,
    executor="thread",
    lease=15.0,
    first_contact=60.0,
    env={"FLAG": "up"},
    preload=("numpy", "mine"),
    preload_on_demand=False,
    hooks=b"\x80\x05.",
    modules={"mine": b"\x00zip\xff"},
    stdin=True,
    notices="http://169.254.169.254/notices",
    requirements=Requirements("3.12", {"casty": "0.30"}, ("numpy",)),
    levels={"": 20, "noisy": 40},
)


@pytest.mark.parametrize("config", [LEAST, FULL, replace(FULL, requirements=Requirements("3.12", {}))])
def test_what_is_encoded_is_decoded(config: NodeConfig) -> None:
    assert NodeConfig.decode(config.encode()) == config


def changed(key: str, value: object) -> bytes:
    return json.dumps(json.loads(FULL.encode()) | {key: value}).encode()


def without(key: str) -> bytes:
    config: dict[str, Any] = json.loads(FULL.encode())
    del config[key]
    return json.dumps(config).encode()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (without("lease"), "missing lease in NodeConfig"),
        (changed("lifetime", None), "unknown lifetime in NodeConfig"),
        (b'{"node": 0}', "missing cluster, concurrency, env, .*, stdin in NodeConfig"),
        (without("node")[:-1] + b', "nodex": 1}', "missing node; unknown nodex in NodeConfig"),
        (changed("requirements", {"python": "3.12"}), "missing modules, packages in Requirements"),
        (changed("requirements", ["3.12"]), r"an object is expected, not \['3.12'\]"),
        (b"[]", r"an object is expected, not \[\]"),
        (b"{", "Expecting property name"),
    ],
)
def test_a_configuration_of_other_keys_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"^invalid node\.json: {problem}"):
        NodeConfig.decode(content)
