"""What is pickled by value beside functions, and that no name is pickled that nodes do not have."""

import ctypes
import enum
import functools
import operator
import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

from skyward.environment.user_modules import UserModules
from skyward.errors import NotPortable
from skyward.remote.serialization.identities import Identities
from skyward.remote.serialization.packer import Packer
from skyward.remote.serialization.pickler import by_value, result_by_value

TEXT = """
import functools
class Sentinel:
    def __reduce__(self): return "NOTHING"
NOTHING = Sentinel()
class Config: scale = 1
@functools.cache
def cached(x): return x
"""


@pytest.fixture
def registered() -> Iterator[Any]:
    """A module below a package that is registered to be pickled by value."""
    parent, module = types.ModuleType("own_parent"), types.ModuleType("own_parent.below")
    sys.modules |= {"own_parent": parent, "own_parent.below": module}
    exec(TEXT, vars(module))
    cloudpickle.register_pickle_by_value(parent)
    yield module
    cloudpickle.unregister_pickle_by_value(parent)
    del sys.modules["own_parent"], sys.modules["own_parent.below"]


def test_a_name_in_a_module_that_goes_by_value_is_refused(registered: Any) -> None:
    with pytest.raises(NotPortable, match=r"args\[0\]\[1\].*the name 'NOTHING' in own_parent.below") as caught:
        Packer().pack(len, ([1, registered.NOTHING],), {})

    assert caught.value.path == "args[0][1]"


def test_nothing_of_a_module_that_goes_by_value_is_looked_up_in_it(registered: Any) -> None:
    data = by_value([registered.Config, registered.Config(), registered.cached])
    del sys.modules["own_parent.below"]
    cls, instance, cached = pickle.loads(data)
    sys.modules["own_parent.below"] = registered

    assert type(instance) is cls
    assert cached(3) == 3


def test_a_class_that_comes_home_is_left_as_it_is(registered: Any) -> None:
    data = result_by_value(registered.Config)
    registered.Config.scale = 2

    assert pickle.loads(data) is registered.Config
    assert registered.Config.scale == 2


def test_a_class_that_is_sent_again_has_the_attributes_that_it_has_now(registered: Any) -> None:
    data = by_value(registered.Config)
    registered.Config.scale, registered.Config.left_by_a_task = 2, 1

    assert pickle.loads(data).scale == 1
    assert not hasattr(registered.Config, "left_by_a_task")


def test_a_cached_function_that_is_sent_again_has_an_empty_cache(registered: Any) -> None:
    data = by_value(registered.cached)
    first = pickle.loads(data)
    first(1)

    assert pickle.loads(data).cache_info().currsize == 0
    assert pickle.loads(result_by_value(first)) is not registered.cached


def test_a_class_that_the_metaclass_of_an_extension_module_does_not_build_again_is_refused_at_once() -> None:
    class Number(ctypes._SimpleCData):  # type: ignore[type-arg]
        _type_ = "i"

    class Pair(ctypes.Structure):
        _fields_ = (("first", ctypes.c_int),)

    for kind in (Number, Pair):
        with pytest.raises(NotPortable, match="cannot be built again by PyC"):
            Packer().pack(len, (kind,), {})


def test_what_can_be_imported_goes_by_its_name() -> None:
    cached = functools.lru_cache(len)
    assert pickle.loads(by_value(functools.lru_cache)) is functools.lru_cache
    assert pickle.loads(by_value(Identities)) is Identities
    assert pickle.loads(by_value(cached))("abc") == 3


def test_the_module_of_what_goes_by_its_name_is_bundled(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_cached.py").write_text(TEXT + "type Alias = int\n")
    monkeypatch.syspath_prepend(tmp_path)
    own = __import__("own_cached")
    for value in (own.cached, own.NOTHING, own.Alias):
        packed = Packer(bundles=UserModules().needed).pack(id, (value,), {})
        assert [name.split(":")[1] for name in packed.modules] == ["own_cached"]
    del sys.modules["own_cached"]


def test_identities_are_forgotten_with_their_objects() -> None:
    class Thing:
        pass

    identities = Identities()
    thing = Thing()
    name = identities.name(thing)

    assert identities.name(thing) == name
    assert identities.add(name, Thing()) is thing
    del thing
    assert identities.get(name) is None
    assert identities._names == {}


# ---------------------------------------------------------------- members of enums


class Switch(enum.Enum):
    """An enum of a module, with a value that equals nothing but itself."""

    ON = enum.member(functools.partial(max))
    OFF = enum.member(functools.partial(min))


class Moved(enum.Enum):
    """An enum that defines how its members are pickled."""

    OLD = 1
    NEW = 2

    def __reduce_ex__(self, protocol: Any) -> Any:
        return getattr, (Moved, "NEW")


def test_a_member_is_pickled_by_its_name() -> None:
    members = [Switch.ON, Switch.OFF]
    assert all(map(operator.is_, pickle.loads(by_value(members)), members))
    assert all(map(operator.is_, pickle.loads(result_by_value(members)), members))


def test_an_enum_may_define_how_its_members_are_pickled() -> None:
    assert pickle.loads(by_value(Moved.OLD)) is Moved.NEW
