"""Enums and data classes of a script."""

# mypy: ignore-errors
# A script as its author may have left it: what counts is that it runs.
# ruff: noqa: PIE796

import dataclasses
import enum
from typing import Any, ClassVar, Self

from tests.kinds.report import case, report


class Color(enum.Enum):
    RED = 1
    GREEN = "g"
    ALSO_RED = 1

    def shout(self) -> str:
        return self.name + "!"

    @property
    def next(self) -> "Color":
        return Color.GREEN

    @classmethod
    def parse(cls, text: str) -> "Color":
        return cls[text.upper()]


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()
    ALL = READ | WRITE


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    ONE = enum.auto()


class Planet(enum.Enum):
    EARTH = (5.9, 6.3)
    MARS = (6.4, 3.3)

    def __init__(self, mass: float, radius: float) -> None:
        self.mass, self.radius = mass, radius

    @property
    def density(self) -> float:
        return self.mass / self.radius


class Coin(bytes, enum.Enum):
    PENNY = (1, "penny")
    DIME = (10, "dime")

    label: str

    def __new__(cls, value: int, label: str) -> Self:
        made = bytes.__new__(cls, [value])
        made._value_ = value
        made.label = label
        return made


@case
def enums() -> Any:
    return (
        Color.RED.shout(),
        Color(1).next.name,
        Color.ALSO_RED is Color.RED,
        Color.parse("green").value,
        list(Color.__members__),
        (Access.READ | Access.WRITE) is Access.ALL,
        Access.ALL.name,
        Level.HIGH > Level.LOW,
        Word.ONE.upper(),
    )


class Answer(enum.Enum):
    YES = "yes"
    NO = "no"

    def __init__(self, text: str) -> None:
        self._value2member_map_[text.upper()] = self


@case
def members_of_enums() -> Any:
    return (
        [
            (len(each), [member.name for member in each], [member.name for member in reversed(each)])
            for each in (Color, Access, Level, Word, Planet, Coin)
        ],
        [each.name for each in Access.ALL],
        (len(Access.ALL), ~Access.READ, Access(0), Access.READ ^ Access.ALL),
        (Color.RED in Color, 1 in Color, "no such" in Color),
        (Answer("YES") is Answer.YES, Answer("no") is Answer.NO),
        [Level(each).name for each in sorted(Level, reverse=True)],
        {each.name: each.value for each in Word},
        (Color.RED.name, Color["ALSO_RED"].name, enum.unique(Level) is Level),
    )


@case
def enums_with_constructors() -> Any:
    return Planet.EARTH.density, Planet((6.4, 3.3)).name, Coin.DIME.label, Coin(1).label


class Plain:
    counted: ClassVar[int] = 0

    def __init__(self, a: int) -> None:
        self.a = a
        type(self).counted += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and self.a == other.a

    def __hash__(self) -> int:
        return self.a

    class Inner:
        value = 5

        class Deep:
            def get(self) -> int:
                return Plain.Inner.value


class Child(Plain):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(a)
        self.b = b

    @property
    def both(self) -> int:
        return self.a + self.b

    @both.setter
    def both(self, value: int) -> None:
        self.b = value - self.a


@case
def inheritance_and_nesting() -> Any:
    child = Child(1, 2)
    child.both = 10
    return child.b, child.both, Plain.Inner.Deep().get(), Plain.Inner.Deep.__qualname__, isinstance(child, Plain)


class Slots:
    __slots__ = ("__private", "x", "y")

    def __init__(self, x: int) -> None:
        self.x = x
        self.__private = 2 * x

    def get(self) -> int:
        return self.__private


class MoreSlots(Slots):
    __slots__ = ("z",)


@case
def slots() -> Any:
    more = MoreSlots(3)
    more.z = 4
    return more.get(), more.z, hasattr(more, "__dict__"), hasattr(more, "y")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Frozen:
    a: int
    tags: tuple[str, ...] = dataclasses.field(default_factory=tuple)


@dataclasses.dataclass
class Fields:
    a: int
    seed: dataclasses.InitVar[int]
    _: dataclasses.KW_ONLY
    items: list[int] = dataclasses.field(default_factory=list)
    kind: ClassVar[str] = "fields"
    derived: int = dataclasses.field(init=False, repr=False, compare=False, metadata={"unit": "m"})

    def __post_init__(self, seed: int) -> None:
        self.derived = self.a * seed


@dataclasses.dataclass(slots=True)
class Parent:
    a: int

    def twice(self) -> int:
        return 2 * self.a


@dataclasses.dataclass(slots=True)
class Heir(Parent):
    b: int = 3

    def twice(self) -> int:
        return Parent.twice(self) + self.b


@case
def dataclass_kinds() -> Any:
    frozen = ""
    try:
        Frozen(a=1).a = 3
    except dataclasses.FrozenInstanceError as error:
        frozen = str(error)
    fields = Fields(2, 5, items=[1])
    return (
        frozen,
        repr(Frozen(a=1, tags=("x",))),
        Frozen(a=1) < Frozen(a=2),
        dataclasses.asdict(fields),
        dataclasses.fields(Fields)[2].metadata["unit"],
        Fields(1, 1).items is not Fields(1, 1).items,
        dataclasses.replace(Frozen(a=1), a=4).a,
        Heir(4).twice(),
        Fields.kind,
        [each.name for each in dataclasses.fields(Fields)],
    )


if __name__ == "__main__":
    report()
