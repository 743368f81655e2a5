"""What a script writes into annotations."""

# mypy: ignore-errors
# A script as its author may have left it: what counts is that it runs.
# ruff: noqa: F821, PLC0105, UP045, UP046, UP047

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, Concatenate, NamedTuple, NewType, Protocol, TypedDict

from tests.kinds.report import case, report

type Pair = tuple[int, int]
type Tree = int | list[Tree]
type Nested[T] = T | list[Nested[T]]
type Forward = NotDefinedAnywhere
UserId = NewType("UserId", int)
OldT = typing.TypeVar("OldT", bound="Series", covariant=True)
OldP = typing.ParamSpec("OldP")
OldTs = typing.TypeVarTuple("OldTs")
Handler = Callable[Concatenate[int, OldP], OldT]


def annotated(x: Pair, y: Tree, z: Nested[int], u: UserId, h: Handler[OldP, OldT], *rest: *OldTs) -> Forward:
    return x, y, z, u


@case
def annotations() -> Any:
    hints = {name: str(hint) for name, hint in annotated.__annotations__.items()}
    return annotated((1, 2), [1, [2]], [3], UserId(4), None), hints


@case
def aliases() -> Any:
    params = Nested.__type_params__
    lazy = ""
    try:
        _ = Forward.__value__
    except NameError as error:
        lazy = str(error)
    inner = Nested.__value__.__args__
    return (
        Pair.__value__ == tuple[int, int],
        Pair.__name__,
        Tree.__value__.__args__[1].__args__[0] is Tree,
        inner[0] is params[0],
        str(Nested[int]),
        lazy,
        Pair.__module__,
    )


@case
def new_types() -> Any:
    return UserId(3), UserId.__name__, UserId.__supertype__, UserId.__module__, repr(UserId)


@case
def type_variables() -> Any:
    return (
        [each.__name__ for each in (OldT, OldP, OldTs)],
        str(OldT),
        OldT.__bound__,
        OldT.__covariant__,
        str(OldP.args),
        OldP.args.__origin__ is OldP,
        str(Handler),
    )


@dataclasses.dataclass
class Annotated:
    pair: Pair
    who: UserId
    tree: Tree = 0
    hook: Callable[OldP, int] | None = None


class Point(NamedTuple):
    x: int
    y: UserId = UserId(0)

    def norm(self) -> int:
        return self.x + self.y


class Movie(TypedDict, total=False):
    title: typing.Required[str]
    year: UserId
    pair: Pair


@case
def annotated_classes() -> Any:
    movie: Movie = {"title": "x", "year": UserId(3)}
    return (
        repr(Annotated((1, 2), UserId(3))),
        Point(1, UserId(2)).norm(),
        Point(1)._asdict(),
        movie,
        sorted(Movie.__required_keys__),
        Annotated.__dataclass_fields__["pair"].type is Pair,
        Annotated.__dataclass_fields__["who"].type is UserId,
    )


class Sized(Protocol):
    size: int

    def grow(self, by: int) -> int: ...


@typing.runtime_checkable
class Named(Protocol):
    name: str


class Thing:
    size = 1
    name = "thing"

    def grow(self, by: int) -> int:
        return self.size + by


def grown(sized: Sized) -> int:
    return sized.grow(2)


@case
def protocols() -> Any:
    return grown(Thing()), isinstance(Thing(), Named), isinstance(3, Named)


class Box[T: "Box[Any] | int"]:
    def __init__(self, value: T) -> None:
        self.value = value

    def map[U](self, fn: Callable[[T], U]) -> "Box[U]":
        return type(self)(fn(self.value))


class IntBox(Box[int]):
    def doubled(self) -> int:
        return 2 * self.value


class Both(typing.Generic[OldT]):
    pass


@case
def generic_classes() -> Any:
    made = IntBox(4).map(lambda x: x + 1)
    return (
        made.value,
        type(made).__name__,
        IntBox(3).doubled(),
        str(Box[int]),
        [each.__name__ for each in Box.__type_params__],
        str(Both[int]),
        typing.get_args(IntBox.__orig_bases__[0]),
    )


class Ordered[T: Ordered]:
    def less(self, other: T) -> bool:
        return id(self) != id(other)


@case
def a_bound_that_names_its_own_class() -> Any:
    return Ordered().less(Ordered()), Ordered.__type_params__[0].__bound__ is Ordered


SPECIAL = [typing.Any, typing.Literal["a", 3], typing.Optional[int], typing.Annotated[int, "x"], typing.ClassVar[int]]


@case
def special_forms() -> Any:
    return SPECIAL, typing.Never, typing.Self


if __name__ == "__main__":
    report()
