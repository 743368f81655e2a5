"""Every public argument is given wrong values, and each refusal is read as a new user would."""

import re
from collections.abc import Callable
from typing import Any

import pytest

import skyward as sky
from skyward.config.spec import PoolSpec
from skyward.config.validation import StrictModel

VALUES: list[Any] = [
    *(None, True, 0, -1, 3, 1.5, float("nan"), float("inf"), 10**12),
    *("", " ", "x", "3", "\0", b"x"),
    *([], ["x"], [3], [None], [""], (10, 2), {"x"}, range(3), {}, {"a": 1}, {"a": "b"}, {1: 2}),
    *(object, len),
]
"""What somebody may give by mistake, or in the hope that it will do."""

NUMBER = {3}
TEXT = {"x", "3"}
TEXTS = {"[]", "['x']"}
NAMES = {"{}", "{'a': 'b'}"}

ACCEPTED: dict[type[StrictModel], dict[str, set[Any]]] = {
    PoolSpec: {
        "provider": {None},
        "nodes": NUMBER,
        "worker": {None},
        "image": {None},
        "plugins": {"[]"},
        "options": {None},
    },
    sky.Worker: {"concurrency": {None, *NUMBER}, "executor": set()},
    sky.Nodes: {"count": NUMBER, "min": {None, *NUMBER}, "max": {None, *NUMBER}, "start": {None}},
    sky.Options: {
        "lease": {10**12},
        "grace": {0, 3, 1.5, 10**12},
        "retries": {0, 3},
        "prefetch": {None, 0, 3},
        "start_timeout": {3, 1.5, 10**12},
        "launch_attempts": NUMBER,
        "blob_threshold": {None, 3, 10**12},
        "blob_store": {None, 3, 10**12},
        "budget": {None, 3, 1.5, 10**12},
        "max_hourly": {None, 3, 1.5, 10**12},
        "record": {True, *TEXT},
        "dashboard": {True},
        "console": set(),
        "console_raw": {True},
    },
    sky.Image: {
        "packages": TEXTS,
        "preload": TEXTS,
        "env": NAMES,
        "index": {None},
        "python": {None, "x"},
        "apt": {"[]"},
        "shell": TEXTS,
        "files": NAMES,
    },
    sky.AWS: {
        "region": {None},
        "cpus": {None, 3, 10**12},
        "memory_gb": {None, 3, 1.5, 10**12},
        "architecture": {None},
        "accelerator": {None, *TEXT},
        "instance_type": {None},
        "image": {None},
        "user": TEXT,
        "spot": {True},
        "subnet": {*TEXT, *TEXTS},
        "security_groups": {*TEXT, *TEXTS},
        "allow": TEXT,
        "key": {None},
        "profile": {None, *TEXT},
        "role": {None, *TEXT},
        "volume_gb": {None, 3, 10**12},
        "tags": NAMES,
        "zones": {*TEXT, *TEXTS},
        "first_contact": {3, 1.5, 10**12},
        "max_lifetime": {3, 1.5, 10**12},
        "journal": {None, *TEXT},
    },
    sky.SSH: {
        "hosts": {"['x']"},
        "user": {None, *TEXT},
        "key": {None},
        "config": {None},
        "jump": {None, "", *TEXT},
        "slots": {None, 3, 10**12, "{}"},
    },
    sky.Local: {"folder": {None}},
}
"""Of those values the ones that are right, by argument; lists and dictionaries by how they look."""

OTHERS: dict[type[StrictModel], dict[str, Any]] = {sky.Nodes: {"count": 3}, sky.SSH: {"hosts": ["gpu-box"]}}
"""What a record needs besides the argument that is tried."""

PYDANTIC = re.compile(r"Value error|Input should|valid |instance of|pydantic|validation|NoneType'|frozenset")


def title(model: type[StrictModel]) -> str:
    return "Compute" if model is PoolSpec else model.__name__


def maker(model: type[StrictModel]) -> Callable[..., object]:
    return sky.Compute if model is PoolSpec else model


def is_in(value: Any, accepted: set[Any]) -> bool:
    if isinstance(value, list | dict):
        return repr(value) in accepted
    if isinstance(value, tuple | set | range | bytes) or callable(value):
        return False
    return any(value is each or (value == each and type(value) is type(each)) for each in accepted)


def test_no_argument_is_forgotten() -> None:
    assert {model: set(names) for model, names in ACCEPTED.items()} == {
        model: set(model.model_fields) for model in ACCEPTED
    }


@pytest.mark.parametrize(
    ("model", "name"),
    [pytest.param(model, name, id=f"{title(model)}.{name}") for model, names in ACCEPTED.items() for name in names],
)
def test_a_wrong_value_is_refused_in_one_line_with_the_argument_the_value_and_one_fix(
    model: type[StrictModel], name: str
) -> None:
    make, others = maker(model), OTHERS.get(model, {})
    for value in VALUES:
        given = {**others, name: value}
        if is_in(value, ACCEPTED[model][name]):
            make(**given)
            continue
        with pytest.raises(sky.InvalidArgument) as raised:
            make(**given)
        text = str(raised.value)
        assert re.fullmatch(rf"{name}=[^\n]+: [^\n;]+; [^\n;]+", text), text
        assert not PYDANTIC.search(text.partition(": ")[2]), text
        assert raised.value.__cause__ is None
        assert len(re.findall(rf"\b{name}=", text)) <= 2, text


@pytest.mark.parametrize("model", ACCEPTED, ids=title)
def test_every_word_that_others_use_leads_to_an_argument(model: type[StrictModel]) -> None:
    names = tuple(model.model_fields)
    words = [(right, word) for right, wrong in model.synonyms.items() for word in wrong.split()]
    assert not {word for _, word in words}.intersection(names)
    for right, word in words:
        with pytest.raises(sky.InvalidArgument) as raised:
            maker(model)(**{word: 1})
        expected = f"did you mean {right!r}?" if right in names else right
        assert str(raised.value) == f"{title(model)} has no argument {word!r}; {expected}"


@pytest.mark.parametrize("model", [model for model in ACCEPTED if model is not PoolSpec], ids=title)
def test_a_value_without_a_name_is_answered_with_the_form(model: type[StrictModel]) -> None:
    with pytest.raises(sky.InvalidArgument, match=rf"^{title(model)} takes keyword arguments only, for example \w+=\S"):
        model("x")


def test_the_fix_for_a_wrong_name_is_right() -> None:
    """What is written instead of a name is an argument of something else."""
    places = re.compile(r"sky\.(\w+)\((\w+)=")
    for model in ACCEPTED:
        for right in model.synonyms:
            for kind, argument in places.findall(right):
                other = PoolSpec if kind == "Compute" else getattr(sky, kind)
                assert argument in other.model_fields


# ---------------------------------------------------------------- what is no record


@sky.remote
def work() -> None: ...


options: Any = work.options  # a type checker would refuse the calls below
remote: Any = sky.remote
joblib: Any = sky.plugins.joblib
compute: Any = sky.Compute


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: options(retry=2), "options has no argument 'retry'; did you mean 'retries'?"),
        (lambda: options(zzz=2), "options has no argument 'zzz'; it takes timeout, node and retries"),
        (lambda: remote(retry=2), "remote has no argument 'retry'; did you mean 'retries'?"),
        (lambda: remote(time_limit=2), "remote has no argument 'time_limit'; did you mean 'timeout'?"),
        (lambda: joblib("loky"), 'joblib takes keyword arguments only, for example take=("loky",)'),
        (lambda: joblib(backend="loky"), "joblib has no argument 'backend'; did you mean 'take'?"),
        (
            lambda: joblib(n_jobs=2),
            "joblib has no argument 'n_jobs'; it is an argument of Parallel: Parallel(n_jobs=...)",
        ),
        (lambda: joblib(take="loky"), "take='loky': must be a tuple of names; write take=('loky',)"),
        (lambda: joblib(take=3), 'take=3: must be a tuple of names; write take=("loky",)'),
        (
            lambda: joblib(take=["dask"]),
            "take=['dask']: cannot take 'dask'; give \"loky\", \"multiprocessing\", or both",
        ),
        (lambda: compute(sky.Local()), "Compute takes keyword arguments only, for example provider=sky.Local()"),
    ],
)
def test_a_wrong_argument_of_what_is_no_record_is_explained_too(call: Any, text: str) -> None:
    with pytest.raises(sky.InvalidArgument) as raised:
        call()
    assert str(raised.value) == text
