"""Skyward: run functions, and every `joblib.Parallel` call, on machines that it launches and shuts down for you.

    with sky.Compute(nodes=10, worker=sky.Worker(concurrency=10), plugins=[sky.plugins.joblib()]) as compute:
        results = Parallel(n_jobs=-1)(delayed(slow_task)(i) for i in range(2000))

| name | where | what |
| --- | --- | --- |
| `Compute` | `api/compute.py` | the pool, for the length of a block |
| `Local` | `providers/local.py` | nodes on this machine |
| `SSH` | `providers/ssh/ssh.py` | nodes on your own machines |
| `AWS` | `providers/aws/aws.py` | nodes on Amazon EC2 |
| `Image` | `config/image.py` | what a node needs before its first task |
| `Worker`, `Options` | `config/spec.py` | slots of a node, and timeouts, retries and limits |
| `Nodes` | `config/nodes.py` | how many machines a pool has |
| `remote` | `remote/function.py` | makes a function run on the pool |
| `instance_info`, `InstanceInfo`, `shard` | `remote/context.py` | where a task runs, and its node's share of the data |
| `Future` | `remote/future.py` | the future of a call |
| `TaskGroup` | `calls/task_groups.py` | a group of calls |
| `Node` | `telemetry/node.py` | a node as `Compute.nodes` shows it |
| `Stack` | `telemetry/stacks.py` | the Python stack of a running call, from `Compute.stacks()` |
| `Report` | `telemetry/report.py` | what a pool did, from `Compute.report()` |
| `ls`, `down`, `CloudPool`, `CloudMachine` | `providers/aws/inventory.py` | list and terminate cloud machines |
| `plugins` | `plugins/` | joblib, and the contract for others |
| the errors | `errors.py` | one tree |

Names load when they are first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

from skyward.remote.function import remote

if TYPE_CHECKING:
    from skyward import plugins
    from skyward.api.compute import Compute
    from skyward.calls.task_groups import TaskGroup
    from skyward.config.image import Image
    from skyward.config.nodes import Nodes
    from skyward.config.spec import Options, Worker
    from skyward.errors import (
        BatchLost,
        BootFailed,
        BudgetExceeded,
        Denied,
        InvalidArgument,
        Leaked,
        MissingExtra,
        NoCapacity,
        NoCompute,
        NodeError,
        NotPortable,
        PoolFailed,
        ProvisioningError,
        QuotaExceeded,
        RemoteError,
        RemoteTraceback,
        SkywardError,
        Unreachable,
    )
    from skyward.providers.aws.aws import AWS
    from skyward.providers.aws.inventory import CloudMachine, CloudPool, down, ls
    from skyward.providers.local import Local
    from skyward.providers.ssh.ssh import SSH
    from skyward.remote.context import InstanceInfo, instance_info, shard
    from skyward.remote.future import Future
    from skyward.telemetry.node import Node
    from skyward.telemetry.report import Report
    from skyward.telemetry.stacks import Stack

    __version__: str
    """The version of Skyward that is installed here."""

__all__ = [
    "AWS",
    "SSH",
    "BatchLost",
    "BootFailed",
    "BudgetExceeded",
    "CloudMachine",
    "CloudPool",
    "Compute",
    "Denied",
    "Future",
    "Image",
    "InstanceInfo",
    "InvalidArgument",
    "Leaked",
    "Local",
    "MissingExtra",
    "NoCapacity",
    "NoCompute",
    "Node",
    "NodeError",
    "Nodes",
    "NotPortable",
    "Options",
    "PoolFailed",
    "ProvisioningError",
    "QuotaExceeded",
    "RemoteError",
    "RemoteTraceback",
    "Report",
    "SkywardError",
    "Stack",
    "TaskGroup",
    "Unreachable",
    "Worker",
    "down",
    "instance_info",
    "ls",
    "plugins",
    "remote",
    "shard",
]

_HOMES = {
    "AWS": "skyward.providers.aws.aws",
    "CloudMachine": "skyward.providers.aws.inventory",
    "CloudPool": "skyward.providers.aws.inventory",
    "Compute": "skyward.api.compute",
    "Future": "skyward.remote.future",
    "Image": "skyward.config.image",
    "InstanceInfo": "skyward.remote.context",
    "Local": "skyward.providers.local",
    "Node": "skyward.telemetry.node",
    "Nodes": "skyward.config.nodes",
    "Options": "skyward.config.spec",
    "Report": "skyward.telemetry.report",
    "SSH": "skyward.providers.ssh.ssh",
    "Stack": "skyward.telemetry.stacks",
    "TaskGroup": "skyward.calls.task_groups",
    "Worker": "skyward.config.spec",
    "down": "skyward.providers.aws.inventory",
    "instance_info": "skyward.remote.context",
    "ls": "skyward.providers.aws.inventory",
    "shard": "skyward.remote.context",
}
"""Where the names live that are not errors."""

if not TYPE_CHECKING:  # a type checker must not think that every name exists

    def __getattr__(name: str) -> object:
        if name == "plugins":
            return importlib.import_module("skyward.plugins")
        if name == "__version__":
            return importlib.import_module("importlib.metadata").version("skyward")
        if name not in __all__:
            raise AttributeError(f"module 'skyward' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES.get(name, "skyward.errors")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
