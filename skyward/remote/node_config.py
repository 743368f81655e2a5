"""The configuration of one node, which the driver writes into the node's folder as JSON. Pure: no I/O."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

CONFIG_FILE = "node.json"
"""The name of the file in the node's folder."""

WORK_FOLDER = "work"
"""The folder in the node's folder in which tasks work, with the files of the image. Where there is none, they work
where the node was started."""

LEASE_FILE = "lease"
"""The file in the node's folder with the seconds after which a node that is being started ends without a renewal."""

ALIVE_FILE = "alive"
"""The file that the driver writes into the node's folder to renew the lease of a node that is being started. Whoever
watches the lease removes it: first a shell (see `skyward.providers.ssh.scripts`), then the node's parent process, until
the driver has connected."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the environment of a node must have: `python` as `major.minor`, versions of `packages`, and `modules`."""

    python: str
    packages: Mapping[str, str]
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The configuration of one node.

    Attributes
    ----------
    cluster
        The name of the node's casty cluster, which has no other member.
    node, nodes
        The number of the node in its pool, and the pool's size.
    concurrency
        How many slots the node has; None for one per processor.
    executor
        Whether slots are processes or threads.
    lease
        Seconds without a message from the driver after which the node shuts itself down.
    first_contact
        The same, until the first message.
    env
        Environment variables.
    preload
        Modules that are imported before the workers are forked.
    preload_on_demand
        Whether modules that calls need are preloaded while the node runs.
    hooks
        Plugins with hooks on nodes, pickled; empty for none.
    modules
        The user's own modules that `preload` and `hooks` need, bundled, by name.
    stdin
        Whether the end of the node's standard input means that the driver is gone.
    notices
        Where to look for notices of interruption; empty for nowhere.
    requirements
        Checked before the node starts; None where the node shares the driver's environment.
    levels
        The levels of loggers in the driver, by name.
    """

    cluster: str
    node: int
    nodes: int
    concurrency: int | None
    executor: Literal["process", "thread"]
    lease: float
    first_contact: float
    env: Mapping[str, str] = field(default_factory=dict)
    preload: tuple[str, ...] = ()
    preload_on_demand: bool = True
    hooks: bytes = b""
    modules: Mapping[str, bytes] = field(default_factory=dict)
    stdin: bool = False
    notices: str = ""
    requirements: Requirements | None = None
    levels: Mapping[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the content of `CONFIG_FILE`."""
        return json.dumps(asdict(self), default=bytes.hex).encode()

    @classmethod
    def decode(cls, content: bytes) -> "NodeConfig":
        """Read the content of `CONFIG_FILE`.

        Raises
        ------
        ValueError
            It is not what `encode` returns: the error names the missing and the unknown keys.
        """
        try:
            given = _checked(cls, json.loads(content))
            if given["requirements"] is not None:
                required = _checked(Requirements, given["requirements"])
                given["requirements"] = Requirements(**required | {"modules": tuple(required["modules"])})
            given["hooks"] = bytes.fromhex(given["hooks"])
            given["modules"] = {name: bytes.fromhex(bundle) for name, bundle in given["modules"].items()}
        except ValueError as error:
            raise ValueError(f"invalid {CONFIG_FILE}: {error}") from None
        return cls(**given | {"preload": tuple(given["preload"])})


def _checked(kind: type[Any], given: Any) -> dict[str, Any]:
    """Return a JSON object if its keys are the fields of a dataclass."""
    if not isinstance(given, dict):
        raise ValueError(f"an object is expected, not {given!r:.100}")
    names = {each.name for each in fields(kind)}
    missing, unknown = sorted(names - given.keys()), sorted(given.keys() - names)
    problems = [f"{what} {', '.join(keys)}" for what, keys in (("missing", missing), ("unknown", unknown)) if keys]
    if problems:
        raise ValueError(f"{'; '.join(problems)} in {kind.__name__}")
    return given
