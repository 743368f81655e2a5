import contextlib
import enum
import functools
import operator
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, cast

import cloudpickle
import pytest

from skyward.errors import NotPortable
from skyward.plugins.plugin import Plugin
from skyward.remote.serialization import call_codec
from skyward.remote.serialization.packer import Packed, Packer


def double(x: int) -> int:
    return 2 * x


def identity(value: object) -> object:
    return value


STORY: list[str] = []


def during() -> None:
    STORY.append("during")


def call(fn: Callable[..., object], *args: object, **kwargs: object) -> Packed:
    return Packer().pack(fn, args, kwargs)


def run(fn: Callable[..., object], *args: object, **kwargs: object) -> tuple[object, BaseException | None]:
    """Pack a call, run it, and open its outcome."""
    packer = Packer(share=False)
    return call_codec.open_outcome(*call_codec.execute(packer.pack(fn, args, kwargs).payload))


def value_of(fn: Callable[..., object], *args: object, **kwargs: object) -> object:
    value, error = run(fn, *args, **kwargs)
    assert error is None
    return value


def error_of(fn: Callable[..., object], *args: object, **kwargs: object) -> BaseException:
    _, error = run(fn, *args, **kwargs)
    assert error is not None
    return error


ELSEWHERE = """
import pickle, sys, types
from skyward.remote.serialization import call_codec
sys.modules["__main__"] = types.ModuleType("__main__")
payload, functions = pickle.load(sys.stdin.buffer)
outcome = call_codec.execute(payload, call_codec.beside(functions, {}))
pickle.dump(outcome, sys.stdout.buffer)
"""


def elsewhere(fn: Callable[..., object], *args: object) -> tuple[object, BaseException | None]:
    """Run a call in another process, as a slot does: its `__main__` is empty."""
    packed = Packer().pack(fn, args, {})
    sent = pickle.dumps((packed.payload, packed.functions))
    environment = {"PYTHONPATH": ":".join(sys.path)}
    said = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], input=sent, capture_output=True, env=environment, check=True, timeout=150
    )
    return call_codec.open_outcome(*pickle.loads(said.stdout))


def of_main(text: str) -> dict[str, Any]:
    """What a script would hold that consists of this text."""
    script: dict[str, Any] = {"__name__": "__main__"}
    exec(textwrap.dedent(text), script)
    return script


# ---------------------------------------------------------------- packing


def test_a_function_of_a_module_travels_by_its_name() -> None:
    packed = call(double, 1)

    assert packed.functions == {}
    assert b"double" in packed.payload


def test_a_function_of_main_travels_beside_the_call() -> None:
    packer = Packer()
    packed = packer.pack(of_main("def half(x): return x / 2")["half"], (3,), {})

    assert len(packed.functions) == 1
    assert call_codec.open_outcome(*call_codec.execute(packed.payload, call_codec.beside(packed.functions, {}))) == (
        1.5,
        None,
    )


def test_a_function_that_travels_beside_is_pickled_once() -> None:
    packer, ballast = Packer(), bytes(10_000)
    fn = lambda x: (x, ballast)  # noqa: E731 - that is the point
    packed = [packer.pack(fn, (number,), {}) for number in range(3)]

    assert len({id(data) for each in packed for data in each.functions.values()}) == 1
    assert all(len(each.payload) < 1000 for each in packed)


def test_calls_name_only_the_functions_that_they_need() -> None:
    packer = Packer()
    first, second = lambda: 1, lambda: 2

    assert set(packer.pack(first, (), {}).functions).isdisjoint(packer.pack(second, (), {}).functions)
    assert packer.pack(double, (1,), {}).functions == {}


def test_a_function_given_as_an_argument_travels_beside_the_call_too() -> None:
    packer = Packer()
    packed = packer.pack(identity, ([lambda: 1, lambda: 2],), {})

    assert len(packed.functions) == 2


def test_what_a_closure_holds_is_read_when_it_is_first_met() -> None:
    packer = Packer()
    offset = 1

    def add(x: int) -> int:
        return x + offset

    packer.pack(add, (1,), {})
    offset = 100
    packed = packer.pack(add, (1,), {})

    assert call_codec.open_outcome(*call_codec.execute(packed.payload, call_codec.beside(packed.functions, {}))) == (
        2,
        None,
    )


def test_a_function_is_called_by_its_content() -> None:
    one, same, other = (call(of_main(f"def f(): return {number}")["f"]) for number in (1, 1, 2))

    assert one.functions == same.functions
    assert set(one.functions).isdisjoint(other.functions)


def test_a_packer_that_does_not_share_puts_everything_into_the_call() -> None:
    packer = Packer(share=False)
    packed = packer.pack(lambda x: x + 1, (1,), {})

    assert packed.functions == {}
    assert call_codec.open_outcome(*call_codec.execute(packed.payload)) == (2, None)


def test_a_function_keeps_its_name_though_others_come_and_go() -> None:
    packer = Packer()
    names = [packer.pack(lambda number=number: number, (), {}).functions for number in range(50)]

    assert len(set().union(*names)) == 50


def test_a_function_of_a_module_that_is_registered_by_value_travels_by_value() -> None:
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        assert len(call(double, 1).functions) == 1
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_a_function_that_hides_another_of_its_name_travels_by_value() -> None:
    hidden = types.FunctionType(double.__code__, globals(), "double")

    assert len(call(hidden, 1).functions) == 1


def test_what_cannot_travel_is_named_before_anything_is_sent() -> None:
    with pytest.raises(NotPortable) as refused:
        call(identity, {"guard": threading.Lock()})
    assert refused.value.path == 'args[0]["guard"]'


def test_a_payload_is_opened_by_execute_only() -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"skyward\.remote\.serialization\.loader"):
        pickle.loads(call(lambda: 1).payload)


class Unwilling:
    def __reduce__(self) -> Any:
        return refuse, ()


def refuse() -> None:
    raise LookupError("no")


def test_the_traceback_of_what_cannot_be_opened_begins_with_the_code_that_raised() -> None:
    error = error_of(len, Unwilling())
    frames = re.findall(r'File ".*/(\w+\.py)"', str(error.__cause__))
    assert isinstance(error, LookupError)
    assert frames == ["test_call_codec.py"]


# ---------------------------------------------------------------- values and hooks


def test_a_value_comes_home() -> None:
    assert value_of(double, 21) == 42


def test_keywords_travel() -> None:
    assert value_of(dict, a=1, b=2) == {"a": 1, "b": 2}


def test_a_value_of_a_class_that_cannot_be_imported_comes_home() -> None:
    made = value_of(lambda: type("Local", (), {"x": 3})())

    assert made.x == 3  # type: ignore[attr-defined]


def test_a_class_of_main_comes_home_as_the_same_class() -> None:
    script = of_main(
        """
        class Point:
            def __init__(self, x): self.x = x
        def move(point): return Point(point.x + 1)
        """
    )
    value, error = elsewhere(script["move"], script["Point"](1))

    assert error is None
    assert isinstance(value, script["Point"])
    assert value.x == 2


def test_an_exception_of_main_comes_home_as_the_same_class() -> None:
    script = of_main(
        """
        class Sad(Exception): pass
        def fail(text): raise Sad(text)
        """
    )
    _, error = elsewhere(script["fail"], "why")

    assert isinstance(error, script["Sad"])
    assert str(error) == "why"


def test_a_value_that_cannot_be_opened_here_says_that_the_call_returned() -> None:
    value, error = call_codec.open_outcome("returned", [b"cnowhere\nnothing\n."])

    assert value is None
    assert isinstance(error, ModuleNotFoundError)
    assert any("returned" in note for note in error.__notes__)


@pytest.mark.parametrize(
    ("made", "path"),
    [
        (lambda: threading.Lock(), "result: "),
        (lambda: {"a": [1, threading.Lock()]}, 'result["a"][1]: '),
        (lambda: (x for x in range(1)), "result: "),
    ],
)
def test_a_result_that_cannot_travel_is_named(made: Callable[[], object], path: str) -> None:
    error = error_of(made)

    assert isinstance(error, NotPortable)
    assert path in str(error)


def test_hooks_surround_the_call() -> None:
    @contextlib.contextmanager
    def around() -> Iterator[None]:
        STORY.append("before")
        yield
        STORY.append("after")

    STORY.clear()
    assert call_codec.execute(call(during).payload, around=around)[0] == "returned"
    assert STORY == ["before", "during", "after"]


def test_it_says_when_a_call_is_opened_and_is_about_to_run() -> None:
    STORY.clear()
    call_codec.execute(call(during).payload, opened=lambda: STORY.append("opened"))
    assert STORY == ["opened", "during"]


def test_a_call_that_cannot_be_opened_never_was() -> None:
    STORY.clear()
    assert call_codec.execute(b"cnowhere\nnothing\n.", opened=lambda: STORY.append("opened"))[0] == "raised"
    assert STORY == []


class Unlicensed(contextlib.nullcontext[None]):
    def __enter__(self) -> None:
        raise LookupError("no licence")


def test_what_a_hook_raises_is_what_the_call_raises() -> None:
    _, error = call_codec.open_outcome(*call_codec.execute(call(double, 1).payload, around=Unlicensed))

    assert isinstance(error, LookupError)


def test_a_hook_cannot_hide_what_a_call_raises() -> None:
    call = Packer().pack(int, ("x",), {})
    _, error = call_codec.open_outcome(
        *call_codec.execute(call.payload, around=lambda: contextlib.suppress(ValueError))
    )

    assert isinstance(error, ValueError)


class Holding(Plugin):
    def __init__(self, held: object) -> None:
        self.held = held


def test_plugins_travel() -> None:
    (hook,) = call_codec.load_hooks(call_codec.pack_hooks([Holding(7)]))

    assert hook.held == 7


def test_no_plugins_are_no_bytes() -> None:
    assert call_codec.pack_hooks([]) == b""
    assert call_codec.load_hooks(b"") == ()


def test_a_plugin_that_cannot_travel_is_named() -> None:
    with pytest.raises(NotPortable, match=r"args\[0\]\.held"):
        call_codec.pack_hooks([Holding(threading.Lock())])


class Switch(enum.Enum):
    """An enum with values that equal nothing but themselves."""

    ON = enum.member(functools.partial(max))
    OFF = enum.member(functools.partial(min))


def test_a_member_of_an_enum_comes_home_as_itself() -> None:
    members = [Switch.ON, Switch.OFF]
    assert all(map(operator.is_, cast(list[object], value_of(identity, members)), members))
