"""Every message of ours arrives as it was sent: casty serializes them all, by their declared types.

Casty 0.30.2 cuts a dataclass to the class that a field declares, rounds an integer in a `float` field beyond 2**53,
and holds integers of 64 bits. So each type that an actor takes, or answers with, goes through casty and back with
generated values, at the bounds of what the code may put there.
"""

import asyncio
import contextlib
import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeAliasType, get_args, get_origin

import pytest
from casty import ActorSystem, Askable, Context, Ref, Runtime, actor
from hypothesis import given, settings
from hypothesis import strategies as st

import skyward
from skyward.actors import routing, scaling, supervisor
from skyward.remote.node import scheduler, slot_state
from skyward.remote.protocol import Freight, Request

ACTORS = {
    "gateway": Request,
    "store": Freight,
    "agent": scheduler.SchedulerEvent,
    "slot": slot_state.SlotEvent,
    "router": routing.RoutingEvent,
    "provisioner": scaling.ScalingEvent,
    "supervisor": supervisor.SupervisorMessage,
}
"""What each actor of ours takes."""

PLAIN: dict[object, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    NoneType: st.none(),
    str: st.text(max_size=9),
    bytes: st.binary(max_size=9),
}


def members(alias: object) -> Iterator[type]:
    """The dataclasses of a union."""
    match alias:
        case TypeAliasType():
            yield from members(alias.__value__)
        case UnionType():
            for each in get_args(alias):
                yield from members(each)
        case type():
            yield alias
        case _:
            raise AssertionError(f"{alias!r} is no message")


def answers(kind: type) -> Iterator[type]:
    """What a message of this type is answered with."""
    for base in getattr(kind, "__orig_bases__", ()):
        if get_origin(base) is Askable:
            yield from (each for each in get_args(base) if each is not NoneType)


def has_reference(kind: type) -> bool:
    """Whether it holds a reference to an actor, which only an actor system can make."""
    return any(get_origin(hint) is Ref for name, hint in hints(kind).items() if name != "reply_to")


def hints(kind: type) -> dict[str, Any]:
    found = typing.get_type_hints(kind)
    return {name: hint for name, hint in found.items() if not name.startswith("_")}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Generate what a field of this declared type may hold."""
    kind, parts = get_origin(hint), get_args(hint)
    if isinstance(hint, TypeAliasType):
        return values(hint.__value__)
    if kind is UnionType or kind is typing.Union:
        return st.one_of(*map(values, parts))
    if kind is Literal:
        return st.sampled_from(parts)
    if kind is tuple and parts[-1] is ...:
        return st.lists(values(parts[0]), max_size=3).map(tuple)
    if kind is tuple:
        return st.tuples(*map(values, parts))
    if kind is frozenset:
        return st.frozensets(values(parts[0]), max_size=3)
    if kind is Mapping:
        return st.dictionaries(values(parts[0]), values(parts[1]), max_size=3)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return st.builds(hint, **{name: values(each) for name, each in hints(hint).items() if name != "reply_to"})
    return PLAIN[hint]


def classes(hint: Any) -> Iterator[type]:
    """The dataclasses that a declared type names."""
    if isinstance(hint, TypeAliasType):
        yield from classes(hint.__value__)
    for part in get_args(hint):
        yield from classes(part)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
        for each in hints(hint).values():
            yield from classes(each)


TAKEN = {
    f"{name}-{kind.__qualname__}": kind
    for name, union in ACTORS.items()
    for kind in members(union)
    if not has_reference(kind)
}
ANSWERS = {kind.__qualname__: kind for taken in list(TAKEN.values()) for kind in answers(taken)}


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="module")
def system(runner: asyncio.Runner) -> Iterator[ActorSystem]:
    started = ActorSystem(runtime=Runtime(threads=1))
    opened = contextlib.AsyncExitStack()

    async def start() -> None:
        await opened.enter_async_context(started)

    runner.run(start())
    yield started
    runner.run(opened.aclose())


def mirror(kind: type, name: str) -> tuple[Any, Any]:
    """Return an actor that answers with the message it gets, and the type to ask it with."""

    @dataclasses.dataclass(frozen=True)
    class Show(Askable[kind]):  # type: ignore[valid-type]
        value: kind  # type: ignore[valid-type]

    async def body(ctx: Context[int, Show]) -> None:
        async for message in ctx.inbox:
            message.reply_to.tell(message.value)

    body.__qualname__ = f"mirror_{name}"  # what casty knows an actor by
    return actor(initial=0)(body), Show


@pytest.mark.parametrize("name", [*TAKEN, *ANSWERS])
def test_a_message_arrives_as_it_was_sent(name: str, runner: asyncio.Runner, system: ActorSystem) -> None:
    kind = (TAKEN | ANSWERS)[name]
    body, show = mirror(kind, name)
    ref = system.ref(body, "mirror")

    @settings(max_examples=30)
    @given(values(kind))
    def arrives(sent: object) -> None:
        async def there_and_back() -> object:
            return await ref.ask(show(sent))

        assert runner.run(there_and_back()) == sent

    arrives()


def test_the_actors_of_ours_are_all_here() -> None:
    assert len(ACTORS) == sum(
        len(re.findall(r"^ *@actor\(", path.read_text(), re.MULTILINE))
        for path in Path(skyward.__file__).parent.rglob("*.py")
    )


@pytest.mark.parametrize("name", [*TAKEN, *ANSWERS])
def test_no_field_is_declared_as_the_base_of_what_it_holds(name: str) -> None:
    """Casty cuts an instance of a subclass to the declared class."""
    declared = {each for hint in hints((TAKEN | ANSWERS)[name]).values() for each in classes(hint)}

    assert not [each for each in declared if each.__subclasses__()]
