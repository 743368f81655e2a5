import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from skyward.config.spec import Image, Nodes, Options, PoolSpec, Worker, check
from skyward.config.validation import StrictModel
from skyward.errors import InvalidArgument
from skyward.plugins.plugin import Plugin


class Provider:
    async def launch(self, order: object) -> None: ...
    async def reach(self, instance: object) -> None: ...
    async def find(self, pool: str) -> None: ...
    async def terminate(self, instance: object) -> None: ...


class WithoutFind(Provider):
    find = None  # type: ignore[assignment]


class Blocking(Provider):
    def reach(self, instance: object) -> None: ...  # type: ignore[override]


class Recorder(Plugin):
    def __init__(self, name: str = "") -> None:
        self.name = name


def recorder(name: str = "") -> Recorder:
    return Recorder(name)


def joblib() -> Plugin:
    return Plugin()


joblib.__module__ = "skyward.plugins.joblib"

PROVIDER = Provider()


def refused(make: Callable[..., object], **given: Any) -> str:
    """The text of the refusal, which is always one line without pydantic's own words."""
    with pytest.raises(InvalidArgument) as raised:
        make(**given)
    text = str(raised.value)
    assert "\n" not in text
    assert "pydantic" not in text
    assert "input_value" not in text
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None or raised.value.__suppress_context__
    return text


def compute(**given: object) -> PoolSpec:
    return check({"provider": PROVIDER, **given})


# ---------------------------------------------------------------- what is right


def test_a_compute_has_defaults_for_all_but_its_provider() -> None:
    blueprint = compute()
    assert blueprint.provider is PROVIDER
    assert blueprint == PoolSpec(
        provider=PROVIDER, nodes=Nodes(count=1), worker=Worker(), image=Image(), plugins=(), options=Options()
    )


def test_what_is_given_is_what_is_there() -> None:
    plugins = [Recorder("a"), Recorder("b")]
    given = {"nodes": 3, "worker": Worker(concurrency=4), "image": Image(packages=["numpy"]), "plugins": plugins}
    blueprint = compute(**given, options=Options(retries=0))
    assert (blueprint.nodes.count, blueprint.worker.concurrency, blueprint.options.retries) == (3, 4, 0)
    assert blueprint.image is given["image"]
    assert list(blueprint.plugins) == plugins


def test_the_defaults_of_a_worker() -> None:
    assert (Worker().concurrency, Worker().executor) == (None, "process")


def test_the_defaults_of_the_options() -> None:
    assert Options().model_dump() == {
        "lease": 300.0,
        "grace": 30.0,
        "retries": 2,
        "prefetch": None,
        "start_timeout": 120.0,
        "launch_attempts": 3,
        "blob_threshold": 1 << 20,
        "blob_store": None,
        "budget": None,
        "max_hourly": None,
        "record": True,
        "dashboard": False,
        "console": "auto",
        "console_raw": False,
    }


def test_zero_is_fine_where_nothing_is_wanted() -> None:
    options = Options(grace=0, retries=0, prefetch=0)
    assert (options.grace, options.retries, options.prefetch) == (0.0, 0, 0)


@pytest.mark.parametrize("nodes", [1, 10_000, np.int64(3), np.uint8(3)])
def test_a_number_of_nodes_may_come_from_numpy(nodes: int) -> None:
    assert compute(nodes=nodes).nodes == Nodes(count=int(nodes))
    assert type(compute(nodes=nodes).nodes.count) is int


def test_a_concurrency_may_come_from_numpy() -> None:
    given: Any = np.int32(4)
    assert Worker(concurrency=given).concurrency == 4


def test_lists_become_tuples() -> None:
    image = Image(packages=["numpy>=2"], preload=["numpy.linalg"])
    assert (image.packages, image.preload) == (("numpy>=2",), ("numpy.linalg",))


@pytest.mark.parametrize(
    "package", ["numpy", "numpy >= 2", "scipy[dev]~=1.0", "git+https://host/x.git@v1", "/wheels/x.whl"]
)
def test_a_package_is_written_as_for_pip(package: str) -> None:
    assert Image(packages=[package]).packages == (package,)


def test_the_environment_is_a_copy() -> None:
    env = {"LOG_LEVEL": "debug", "EMPTY": "", "_x1": "a=b c"}
    image = Image(env=env)
    env["LATER"] = "no"
    assert image.env == {"LOG_LEVEL": "debug", "EMPTY": "", "_x1": "a=b c"}


# ---------------------------------------------------------------- copies


def test_packages_are_added_each_once_and_in_order() -> None:
    image = Image(packages=["numpy"])
    assert image.with_packages("joblib", "numpy", "joblib").packages == ("numpy", "joblib")
    assert image.packages == ("numpy",)


def test_modules_to_preload_are_added_each_once_and_in_order() -> None:
    assert Image(preload=["numpy"]).with_preload("joblib", "numpy").preload == ("numpy", "joblib")


def test_a_copy_keeps_the_rest() -> None:
    image = Image(packages=["numpy"], preload=["numpy"], env={"A": "b"})
    assert image.with_packages("x").with_preload("y") == Image(
        packages=["numpy", "x"], preload=["numpy", "y"], env={"A": "b"}
    )


def test_a_copy_is_checked_as_well() -> None:
    assert "'-x' is an option" in refused(lambda: Image().with_packages("-x"))


@pytest.mark.parametrize("record", [Worker(concurrency=2), Image(env={"A": "b"}), Options(retries=0)], ids=repr)
def test_a_record_survives_pickle_and_copy(record: StrictModel) -> None:
    assert pickle.loads(pickle.dumps(record)) == copy.deepcopy(record) == record


@pytest.mark.parametrize("record", [Worker(), Image(), Options()], ids=repr)
def test_a_record_does_not_change(record: StrictModel) -> None:
    name = next(iter(type(record).model_fields))
    text = refused(lambda: setattr(record, name, None))
    assert text == f"{type(record).__name__} is immutable; make another one with the {name} that you want"


# ---------------------------------------------------------------- names

ARGUMENTS = "provider, nodes, worker, image, plugins and options"


@pytest.mark.parametrize(
    ("make", "given", "text"),
    [
        (compute, {"node": 3}, "Compute has no argument 'node'; did you mean 'nodes'?"),
        (compute, {"Provider": 3}, "Compute has no argument 'Provider'; did you mean 'provider'?"),
        (Worker, {"concurency": 4}, "Worker has no argument 'concurency'; did you mean 'concurrency'?"),
        (Image, {"package": ["x"]}, "Image has no argument 'package'; did you mean 'packages'?"),
        (Options, {"retry": 1}, "Options has no argument 'retry'; did you mean 'retries'?"),
        (Worker, {"zzz": 4}, "Worker has no argument 'zzz'; it takes concurrency and executor"),
        (compute, {"zzz": 4}, f"Compute has no argument 'zzz'; it takes {ARGUMENTS}"),
        (
            compute,
            {"retry": 2},
            "Compute has no argument 'retry'; it goes into options: options=sky.Options(retries=...)",
        ),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    make: Callable[..., object], given: Mapping[str, object], text: str
) -> None:
    assert refused(make, **given) == text


@pytest.mark.parametrize(
    ("name", "place"),
    [("concurrency", "worker=sky.Worker"), ("env", "image=sky.Image"), ("lease", "options=sky.Options")],
)
def test_a_name_in_the_wrong_place_is_sent_to_the_right_one(name: str, place: str) -> None:
    argument = place.partition("=")[0]
    text = refused(compute, **{name: 3})
    assert text == f"Compute has no argument {name!r}; it goes into {argument}: {place}({name}=...)"


def test_a_wrong_name_is_told_before_a_wrong_value() -> None:
    assert refused(compute, nodes=0, node=3).startswith("Compute has no argument 'node'")


def test_a_compute_without_a_provider_says_so() -> None:
    text = refused(check, arguments={})
    assert text == "Compute needs provider; give the provider of the machines, for example provider=sky.Local()"


def test_a_value_without_a_name_is_refused() -> None:
    make: Any = Worker
    assert refused(lambda: make(4)) == "Worker takes keyword arguments only, for example concurrency=4"


# ---------------------------------------------------------------- values

SLOTS = "give the number of tasks that one node runs at once (left out: one per CPU), for example concurrency=4"
VARIABLES = "use letters, digits and _, not starting with a digit"
TEXTS = "give names and strings, for example env={'LOG_LEVEL': 'debug'}"
PACKAGES = "give packages as pip writes them, for example packages=['numpy>=2']"
NOT_ALL = "leave it out for one task per CPU"
EXECUTOR = "choose what a slot of a node is, for example executor='process'"
MODULES = "write it as in `import`, for example ['sklearn']"
IMAGE = "set what a node needs, for example image=sky.Image(packages=['numpy'])"
WORKER = "set how a node runs tasks, for example worker=sky.Worker(concurrency=4)"
PROVIDERS = "give the provider of the machines, for example provider=sky.Local()"
OPTIONS = "set timeouts and retries, for example options=sky.Options(retries=2)"
LEASE = "give the seconds after which an abandoned node shuts itself down, for example lease=300"


@pytest.mark.parametrize(
    ("make", "given", "text"),
    [
        (Worker, {"concurrency": 0}, f"concurrency=0: must be at least 1; {SLOTS}"),
        (Worker, {"concurrency": -2}, f"concurrency=-2: must be at least 1; {SLOTS}"),
        (Worker, {"concurrency": 2.5}, f"concurrency=2.5: must be a whole number; {SLOTS}"),
        (Worker, {"concurrency": False}, f"concurrency=False: must be a whole number; {SLOTS}"),
        (
            Worker,
            {"concurrency": -1},
            f"concurrency=-1: -1 does not mean 'all' here; {NOT_ALL}",
        ),
        (Worker, {"executor": "threads"}, "executor='threads': must be 'process' or 'thread'; did you mean 'thread'?"),
        (Worker, {"executor": "Process"}, "executor='Process': must be 'process' or 'thread'; did you mean 'process'?"),
        (
            Worker,
            {"executor": "fork"},
            f"executor='fork': must be 'process' or 'thread'; {EXECUTOR}",
        ),
        (Image, {"packages": "numpy"}, "packages='numpy': must be a list; put it in a list: ['numpy']"),
        (Image, {"packages": {"numpy"}}, f"packages={{'numpy'}}: must be a list; {PACKAGES}"),
        (Image, {"packages": ["x", 3]}, f"packages=['x', 3]: 3 is not a string; {PACKAGES}"),
        (Image, {"packages": [" "]}, f"packages=[' ']: ' ' is not the name of a package; {PACKAGES}"),
        (Image, {"packages": ["x\ny"]}, f"packages=['x\\ny']: 'x\\ny' is not the name of a package; {PACKAGES}"),
        (Image, {"packages": ["--pre"]}, f"packages=['--pre']: '--pre' is an option, not a package; {PACKAGES}"),
        (
            Image,
            {"preload": ["scikit-learn"]},
            f"preload=['scikit-learn']: 'scikit-learn' is not the name of a module; {MODULES}",
        ),
        (Image, {"env": {"A B": "x"}}, f"env={{'A B': ...}}: 'A B' is not the name of a variable; {VARIABLES}"),
        (Image, {"env": {3: "x"}}, f"env={{3: ...}}: 3 is not the name of a variable; {VARIABLES}"),
        (Image, {"env": {"A": 3}}, "env={'A': <int>}: the value of A is not a string; quote it: env={'A': '3'}"),
        (Image, {"env": {"A": None}}, f"env={{'A': <NoneType>}}: the value of A is not a string; {TEXTS}"),
        (Image, {"env": {"A": "\0"}}, "env={'A': ...}: the value of A contains a NUL character; leave it out"),
        (Image, {"env": ["A=b"]}, f"env=['A=b']: must be a dictionary of strings; {TEXTS}"),
        (Options, {"lease": 0}, f"lease=0: must be at least 5; {LEASE}"),
        (Options, {"lease": "5m"}, f"lease='5m': must be a number; {LEASE}"),
        (Options, {"lease": "60"}, "lease='60': must be a number; write lease=60"),
        (Options, {"retries": 2.0}, "retries=2.0: must be a whole number; write retries=2"),
        (Options, {"lease": True}, f"lease=True: must be a number; {LEASE}"),
        (Options, {"lease": float("inf")}, f"lease=inf: must be a finite number; {LEASE}"),
    ],
)
def test_a_wrong_value_is_answered_with_the_fix(
    make: Callable[..., object], given: Mapping[str, object], text: str
) -> None:
    assert refused(make, **given) == text


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("grace", -0.1, "must be at least 0"),
        ("retries", -1, "must be at least 0"),
        ("retries", 1.5, "must be a whole number"),
        ("retries", 2**63, "must be at most 1000000000"),
        ("prefetch", -1, "must be at least 0"),
        ("start_timeout", 0, "must be more than 0"),
        ("start_timeout", float("nan"), "must be a finite number"),
        ("launch_attempts", 0, "must be at least 1"),
    ],
)
def test_a_wrong_option_is_named(name: str, value: float, problem: str) -> None:
    text = refused(Options, **{name: value})
    assert text.startswith(f"{name}={value}: {problem}; ")
    assert f", for example {name}=" in text


def test_a_refusal_does_not_show_the_other_variables() -> None:
    assert "hunter2" not in refused(Image, env={"TOKEN": "hunter2", "A B": "hunter2"})


# ---------------------------------------------------------------- what should have been made or called first


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"worker": Worker}, "worker=sky.Worker: is a class; call it: sky.Worker()"),
        ({"worker": 8}, "worker=8: must be a sky.Worker; write worker=sky.Worker(concurrency=8)"),
        ({"worker": "thread"}, "worker='thread': must be a sky.Worker; write worker=sky.Worker(executor='thread')"),
        ({"worker": object}, f"worker=<class 'object'>: must be a sky.Worker; {WORKER}"),
        ({"image": {"env": {"TOKEN": "x"}}}, "image={...}: must be a sky.Image; write image=sky.Image(env=...)"),
        ({"image": ["numpy"]}, "image=['numpy']: must be a sky.Image; write image=sky.Image(packages=['numpy'])"),
        ({"image": "numpy"}, f"image='numpy': must be a sky.Image; {IMAGE}"),
        (
            {"options": None},
            f"options=None: must be a sky.Options; {OPTIONS}",
        ),
        ({"provider": "aws"}, "provider='aws': is a string, not a provider; write provider=sky.AWS()"),
        ({"provider": "Local"}, "provider='Local': is a string, not a provider; write provider=sky.Local()"),
        ({"provider": "ssh"}, "provider='ssh': is a string, not a provider; write provider=sky.SSH(hosts=['...'])"),
        ({"provider": "gcp"}, f"provider='gcp': there is no such provider; {PROVIDERS}"),
        ({"provider": object}, f"provider=<class 'object'>: is not a provider; {PROVIDERS}"),
        ({"provider": Provider}, "provider=Provider: is a class, not a provider; call it: Provider()"),
        ({"provider": recorder}, "provider=recorder: is a function, not a provider; call it: recorder()"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_answered_with_the_fix(given: Mapping[str, object], text: str) -> None:
    assert refused(compute, **given) == text


def test_a_provider_of_ours_is_called_as_the_user_knows_it() -> None:
    class Local(Provider): ...

    Local.__module__ = "skyward.providers.local"
    assert refused(compute, provider=Local).endswith("call it: sky.Local()")


def test_a_provider_must_have_all_methods() -> None:
    text = refused(compute, provider=WithoutFind())
    assert text.endswith("is not a provider: it has no find; give it the methods launch, reach, find and terminate")


def test_the_methods_of_a_provider_must_be_asynchronous() -> None:
    text = refused(compute, provider=Blocking())
    assert text.endswith("reach must be asynchronous; define it with `async def reach`")


@pytest.mark.parametrize(
    ("plugins", "text"),
    [
        (
            [joblib],
            "[sky.plugins.joblib]: sky.plugins.joblib is a function, not a plugin; call it: sky.plugins.joblib()",
        ),
        ([Recorder], "[Recorder]: Recorder is a class, not a plugin; call it: Recorder()"),
        ((recorder, Recorder()), "[...]: recorder is a function, not a plugin; call it: recorder()"),
        ([sys], "[sys]: sys is a module, not a plugin; call it: sys()"),
        (Recorder("x"), "Recorder(...): must be a list; put it in a list: plugins=[...]"),
        (joblib, "sky.plugins.joblib: must be a list; call it and put it in a list: plugins=[sky.plugins.joblib()]"),
        (["x"], "['x']: 'x' is not a plugin; give a list of plugins, for example plugins=[sky.plugins.joblib()]"),
        (None, "None: must be a list; give a list of plugins, for example plugins=[sky.plugins.joblib()]"),
    ],
)
def test_wrong_plugins_are_answered_with_the_fix(plugins: object, text: str) -> None:
    assert refused(compute, plugins=plugins) == f"plugins={text}"


def test_the_module_of_a_plugin_is_called_as_the_user_knows_it() -> None:
    import skyward.plugins.plugin

    assert refused(compute, plugins=[skyward.plugins.plugin]).endswith("call it: sky.plugins.plugin()")


# ---------------------------------------------------------------- what is loaded


def test_importing_loads_no_plugin_and_no_provider() -> None:
    program = (
        "import sys, skyward.config.spec\n"
        "sys.exit(any(name.startswith(('skyward.plugins', 'skyward.providers')) for name in sys.modules))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
