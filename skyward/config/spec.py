"""Validation of `Worker`, `Image`, `Nodes` and `Options`, and of the arguments of `Compute`.

Everything is checked before anything starts. The models are frozen, take keyword arguments only, and raise
`InvalidArgument`, whose text is one line: the argument, its value, what is wrong, and the fix. Driver only: a node
never imports pydantic.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from skyward import extras
from skyward.config.image import Image
from skyward.config.nodes import Nodes, as_nodes
from skyward.config.validation import StrictModel, any_path, as_integer, refused
from skyward.errors import listed
from skyward.formatting import counted
from skyward.remote.call_options import MAX_COUNT

__all__ = ["Image", "Nodes", "Options", "PoolSpec", "Worker", "check"]


# ---------------------------------------------------------------- checks


def _concurrency(value: object) -> object:
    if type(value) is int and value == -1:
        raise refused("-1 does not mean 'all' here", "leave it out for one task per CPU")
    return as_integer(value)


def _record(value: object, info: ValidationInfo) -> object:
    """Check that the value is an instance of the model that the argument is named after."""
    name = info.field_name or ""
    kind = _RECORDS[name]
    if isinstance(value, kind):
        return value
    if value is kind:
        raise refused("is a class", f"call it: {_called(value)}()", _called(value))
    must = f"must be a sky.{kind.__name__}"
    match kind.__name__, value:
        case "Worker", int(number) if number > 0 and number is not True:
            meant = f"concurrency={number}"
        case "Worker", "process" | "thread":
            meant = f"executor={value!r}"
        case "Image", [*packages] if packages and all(isinstance(each, str) for each in packages):
            meant = f"packages={packages!r}"
        case _, dict() if value and kind.model_fields.keys() >= value.keys():
            names = ", ".join(f"{each}=..." for each in value)
            raise refused(must, f"write {name}=sky.{kind.__name__}({names})", "{...}")  # it may have secrets in it
        case _:
            raise refused(must)
    raise refused(must, f"write {name}=sky.{kind.__name__}({meant})")


def _within_capacity(nodes: "Nodes", info: ValidationInfo) -> "Nodes":
    """Check that the provider has enough machines, if their number is fixed."""
    capacity = getattr(info.data.get("provider"), "capacity", None)
    most = max(nodes.count, nodes.max or 0)
    if capacity is not None and most > capacity:
        machines = counted(capacity, "machine")
        raise refused(f"the provider has {machines}", f"ask for at most {capacity}, or give it more", str(most))
    return nodes


_CALLS = ("launch", "reach", "find", "terminate")

_PROVIDER_SYNONYMS = {"sky.Local()": "local localhost", "sky.SSH(hosts=['...'])": "ssh", "sky.AWS()": "aws ec2 amazon"}
"""What to write for a provider, and names that users may try."""


def _provider(value: object) -> object:
    if isinstance(value, str):
        meant = next((right for right, names in _PROVIDER_SYNONYMS.items() if value.lower() in names.split()), "")
        if meant:
            raise refused("is a string, not a provider", f"write provider={meant}")
        raise refused("there is no such provider")
    missing = [name for name in _CALLS if not callable(getattr(value, name, None))]
    if isinstance(value, type | FunctionType) and (isinstance(value, FunctionType) or not missing):
        raise refused(f"is a {_kind(value)}, not a provider", f"call it: {_called(value)}()", _called(value))
    if "launch" in missing:
        raise refused("is not a provider")
    if missing:
        raise refused(f"is not a provider: it has no {listed(missing)}", f"give it the methods {listed(_CALLS)}")
    plain = [name for name in _CALLS if not inspect.iscoroutinefunction(getattr(value, name))]
    if plain:
        raise refused(f"{listed(plain)} must be asynchronous", f"define it with `async def {plain[0]}`")
    return value


def _plugins(value: object) -> tuple[object, ...]:
    from skyward.plugins.plugin import (
        Plugin,
    )  # not above: plugins must not be imported with this module

    if isinstance(value, Plugin):
        raise refused("must be a list", "put it in a list: plugins=[...]", f"{type(value).__name__}(...)")
    match value:
        case type() | FunctionType() | ModuleType():
            raise refused(
                "must be a list", f"call it and put it in a list: plugins=[{_called(value)}()]", _called(value)
            )
        case list() | tuple():
            plugins = tuple(value)
        case _:
            raise refused("must be a list")
    for plugin in plugins:
        if isinstance(plugin, type | FunctionType | MethodType | BuiltinFunctionType | ModuleType):
            name = _called(plugin)
            shown = f"[{name}]" if len(plugins) == 1 else "[...]"
            raise refused(f"{name} is a {_kind(plugin)}, not a plugin", f"call it: {name}()", shown)
        if not isinstance(plugin, Plugin):
            raise refused(f"{plugin!r} is not a plugin")
    return plugins


def _kind(value: object) -> str:
    return "class" if isinstance(value, type) else "module" if isinstance(value, ModuleType) else "function"


def _called(value: Any) -> str:
    """Return the public name of a class, function or module, such as `sky.plugins.joblib`."""
    name: str = value.__name__.rpartition(".")[2]
    home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or ""
    if home.startswith("skyward.plugins"):
        return f"sky.plugins.{name}"
    return f"sky.{name}" if home.startswith("skyward.") else name


# ---------------------------------------------------------------- models


class Worker(StrictModel):
    """How a node runs tasks: how many at once, each in its own process or in a thread.

    Parameters
    ----------
    concurrency
        Number of slots of a node, which is the number of tasks that it runs at once. `None`: one per CPU.
    executor
        `"process"`: each slot is a process, so a crash costs one slot and a running task can be killed. `"thread"`:
        slots share one process, for tasks that mostly wait or that share a GPU; a running task cannot be killed.
    """

    synonyms: ClassVar[Mapping[str, str]] = {
        "concurrency": "slots n_jobs jobs workers max_workers n_workers num_workers processes cpus num_cpus cores",
        "executor": "backend kind type mode pool",
        "write executor='thread' with concurrency=...": "threads n_threads num_threads max_threads",
    }

    concurrency: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="give the number of tasks that one node runs at once (left out: one per CPU)",
        examples=["4"],
    )
    executor: Literal["process", "thread"] = Field(
        default="process", description="choose what a slot of a node is", examples=["'process'"]
    )

    _concurrency = field_validator("concurrency", mode="before")(_concurrency)


class Options(StrictModel):
    """Timeouts, retries and limits. The defaults are fine for most uses; times are in seconds.

    Parameters
    ----------
    lease
        Time after which a node that has not heard from your program shuts itself down, also while it is being started.
        At least 5, because a heartbeat is sent every 2 seconds.
    grace
        Time to wait for a silent node before its calls move to other nodes.
    retries
        Attempts after the first, when the slot or node that runs a call dies. A call that raises an exception is never
        retried.
    prefetch
        Batches queued on each node beyond the running ones, so that no slot waits for the network. `None`: as many as
        the node has slots, and more when batches are short compared with the round trip.
    start_timeout
        Time that a node may take from the request for its machine until it is ready.
    launch_attempts
        Number of times that a machine is requested before the pool gives up; once work has begun, with longer and
        longer pauses. Errors that would occur on any machine, such as a `preload` that raises, are not retried.
        Launches refused while a spot machine is being reclaimed do not count.
    blob_threshold
        Size in bytes from which an array or `bytes` in the arguments of a call is sent to each node once, identified by
        its content, and mapped read-only into the slots. `None` sends everything with every call.
    budget
        Dollars that the pool's machines may cost in total. When they are spent, the machines are terminated, and the
        calls under way raise `BudgetExceeded`, which has the results so far. No machine is launched whose price is not
        known.
    max_hourly
        Dollars per hour that the machines may cost together. No machine is launched that would exceed it.
    record
        Where the events of the run are saved: `True` for `~/.local/state/skyward/runs`, which keeps the newest 100
        runs; another folder; or `False` to keep them only in memory.
    dashboard
        Whether the run can be watched in a browser on this machine. The link is logged, and is also an event.
    console
        What is shown of the run on standard error. `"auto"`: in a terminal or a notebook, lines that change and
        disappear at the end; elsewhere, only what machines cost, and starts that take long. `"plain"`: lines that stay,
        every ten seconds and when something changes. `"off"`: nothing.
    console_raw
        Whether control sequences in the output of tasks are written to the terminal. If not, they are shown as
        `\\x1b[2J`, except for colors.
    blob_store
        Bytes of such large buffers that a node keeps; buffers that no queued call needs make room for others. `None`:
        half of the memory that is free when the node starts.
    """

    synonyms: ClassVar[Mapping[str, str]] = {
        "retries": "retry max_retries attempts max_attempts tries",
        "lease": "ttl heartbeat heartbeat_timeout idle_timeout",
        "start_timeout": "boot_timeout startup_timeout launch_timeout ready_timeout",
        "launch_attempts": "launch_retries",
        "budget": "cost max_cost limit max_budget dollars money spend price",
        "max_hourly": "max_price hourly hourly_budget max_hourly_cost price_limit",
        "record": "records log_dir runs record_dir",
        "dashboard": "ui web browser live",
        "console": "verbose progress quiet output log logging show",
        "write it where the call is made: f.options(timeout=...)": "timeout task_timeout call_timeout",
    }

    lease: float = Field(
        default=300.0,
        ge=5,
        description="give the seconds after which an abandoned node shuts itself down",
        examples=["300"],
    )
    grace: float = Field(
        default=30.0, ge=0, description="give the seconds that a silent node is waited for", examples=["30"]
    )
    retries: int = Field(
        default=2, ge=0, le=MAX_COUNT, description="give the number of attempts after the first", examples=["2"]
    )
    prefetch: int | None = Field(
        default=None,
        ge=0,
        le=MAX_COUNT,
        description="give the number of batches queued on each node (left out: one per slot or more)",
        examples=["10"],
    )
    start_timeout: float = Field(
        default=120.0, gt=0, description="give the seconds that a node may take to start", examples=["120"]
    )
    launch_attempts: int = Field(
        default=3,
        ge=1,
        le=MAX_COUNT,
        description="give the number of times that a machine is requested before giving up",
        examples=["3"],
    )

    blob_threshold: int | None = Field(
        default=1 << 20,
        ge=1,
        description="give the bytes from which a buffer is sent once per node (None: never)",
        examples=["1 << 20"],
    )
    blob_store: int | None = Field(
        default=None,
        ge=1,
        description="give the bytes of large buffers that a node keeps (left out: half of its free memory)",
        examples=["2 << 30"],
    )

    budget: float | None = Field(
        default=None, gt=0, description="give the dollars that machines may cost in total", examples=["2.50"]
    )
    max_hourly: float | None = Field(
        default=None, gt=0, description="give the dollars per hour that machines may cost together", examples=["0.50"]
    )
    record: bool | str | Path = Field(
        default=True, description="choose whether the events of a run are kept, or in which folder", examples=["'runs'"]
    )

    @field_validator("record", mode="before")
    @classmethod
    def _kept(cls, value: object) -> object:
        if not isinstance(value, bool | str | Path):
            raise refused("must be True, False or a folder")
        return value if isinstance(value, bool) else any_path(value)

    dashboard: bool = Field(
        default=False, description="choose whether the run can be watched in a browser", examples=["True"]
    )

    @field_validator("dashboard")
    @classmethod
    def _served(cls, value: bool) -> bool:
        if value:
            extras.require("dashboard", "starlette", "uvicorn")
        return value

    console: Literal["auto", "plain", "off"] = Field(
        default="auto", description="choose what is shown of the run", examples=["'plain'"]
    )
    console_raw: bool = Field(default=False, description="choose whether control sequences of tasks are written here")

    def records(self) -> Path | None:
        """Return the folder for the records of runs, or None."""
        from skyward.telemetry.event_log import usual  # not above: needed only here

        if isinstance(self.record, bool):
            return usual() if self.record else None
        return Path(self.record)

    _whole = field_validator("retries", "prefetch", "launch_attempts", "blob_threshold", "blob_store", mode="before")(
        as_integer
    )


_RECORDS: dict[str, type[StrictModel]] = {"worker": Worker, "image": Image, "options": Options}


class PoolSpec(StrictModel, title="Compute"):
    """The checked arguments of `Compute`. Only the provider has no default here: `api/compute.py` has it."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "nodes": "n machines instances n_nodes num_nodes n_machines instance_count size",
        "provider": "cloud backend",
        "plugins": "extensions adapters",
        **{
            f"it goes into {place}": words
            for place, words in {
                "worker: worker=sky.Worker(concurrency=...)": Worker.synonyms["concurrency"],
                "worker: worker=sky.Worker(executor='thread')": "threads n_threads num_threads",
                "image: image=sky.Image(packages=...)": "pip requirements dependencies",
                "provider: provider=sky.AWS(accelerator=...)": "accelerator accelerators gpu gpus num_gpus",
                "provider: provider=sky.AWS(instance_type=...)": "instance_type instance machine_type machine type",
                "provider: provider=sky.AWS(memory_gb=...)": "memory_gb memory mem ram",
                "provider: provider=sky.AWS(region=...)": "region zone location",
                "provider: provider=sky.AWS(spot=...)": "spot preemptible use_spot",
                "provider: provider=sky.SSH(hosts=[...])": "hosts host servers addresses",
                **{
                    f"options: options=sky.Options({name}=...)": words
                    for name, words in Options.synonyms.items()
                    if name.isidentifier()
                },
            }.items()
        },
        "write it where the call is made: f.options(timeout=...)": "timeout task_timeout call_timeout",
    }

    provider: Any = Field(description="give the provider of the machines", examples=["sky.Local()"])
    nodes: Nodes = Field(default=Nodes(count=1), description="give the number of machines", examples=["1"])
    worker: Worker = Field(
        default=Worker(), description="set how a node runs tasks", examples=["sky.Worker(concurrency=4)"]
    )
    image: Image = Field(
        default=Image(), description="set what a node needs", examples=["sky.Image(packages=['numpy'])"]
    )
    plugins: tuple[Any, ...] = Field(
        default=(), description="give a list of plugins", examples=["[sky.plugins.joblib()]"]
    )
    options: Options = Field(
        default=Options(), description="set timeouts and retries", examples=["sky.Options(retries=2)"]
    )

    _provider = field_validator("provider", mode="before")(_provider)
    _nodes = field_validator("nodes", mode="before")(as_nodes)
    _capacity = field_validator("nodes")(_within_capacity)
    _plugins = field_validator("plugins", mode="before")(_plugins)
    _records = field_validator("worker", "image", "options", mode="before")(_record)


def check(arguments: Mapping[str, object]) -> PoolSpec:
    """Return the checked arguments of `Compute`.

    Raises
    ------
    InvalidArgument
        An argument is invalid. The text is one line that says what to write instead.
    """
    given: dict[str, Any] = dict(arguments)
    return PoolSpec(**given)
