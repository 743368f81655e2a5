"""Members of a script's enums: each arrives as the member of the enum as it arrives, and comes home as itself."""

# mypy: ignore-errors
# A script as its author may have left it: what counts is that it runs.

import enum
import functools
from collections.abc import Callable
from typing import Any

from tests.kinds.report import case, given, report, same_at_home


class Plain:
    def __init__(self, x: int) -> None:
        self.x = x


class Operation(enum.Enum):
    PARSE = enum.member(functools.partial(int, base=2))
    ADD = enum.member(lambda x: x + 1)
    ADD_TWO = enum.member(lambda x: Operation.ADD(Operation.ADD(x)))

    def __call__(self, x: Any) -> Any:
        return self.value(x)


class Item(enum.Enum):
    ONE = Plain(1)
    TWO = Plain(2)
    NOT_A_NUMBER = float("nan")
    LIST = [Plain(3)]  # noqa: RUF012
    ALSO_LIST = LIST


class Mixed(Plain, enum.Enum):
    ONE = 1
    TWO = 2


class Pair(tuple, enum.Enum):  # noqa: SLOT001
    ONE = (Plain, 1)


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()
    RUN = enum.auto()
    ALL = READ | WRITE | RUN

    def is_usual(self) -> bool:
        return self in USUAL


USUAL = Access.READ | Access.RUN


class Bits(enum.IntFlag):
    LOW = 1
    HIGH = 2


class ByName(enum.Enum):
    ONE = Plain(1)
    __reduce_ex__ = enum.pickle_by_enum_name


class ByGlobalName(enum.Enum):
    ONE = Plain(1)
    __reduce_ex__ = enum.pickle_by_global_name


class Own(enum.Enum):
    ONE = Plain(1)

    def __reduce_ex__(self, protocol: int) -> Any:
        return getattr, (Own, "ONE")


MEMBERS = (
    Operation.PARSE,
    Operation.ADD,
    Operation.ADD_TWO,
    *Item,
    Item.ALSO_LIST,
    *Mixed,
    *Pair,
    Access.READ,
    Access.ALL,
    USUAL,
    Access(0),
    Bits.LOW,
    Bits.LOW | Bits.HIGH,
    ByName.ONE,
    ByGlobalName.ONE,
)


def is_itself(member: enum.Enum) -> bool:
    kind = type(member)
    return kind(member.value) is member and (member.name not in kind.__members__ or kind[member.name] is member)


@given(*MEMBERS)
def members_in_arguments(*members: enum.Enum) -> Any:
    assert all(map(is_itself, members))
    assert members[0] is Operation.PARSE
    return members


@same_at_home
def members_of_the_script() -> Any:
    assert all(map(is_itself, MEMBERS))
    return MEMBERS


@given({Item.ONE: [Operation.ADD]}, Operation.ADD_TWO)
def members_in_containers(table: dict[Item, list[Callable[[int], int]]], add: Operation) -> Any:
    return table[Item.ONE][0](1), add(1), *table, Operation(Operation.ADD.value)


@case
def values_of_members() -> Any:
    return Operation.PARSE("101"), Item.TWO.value.x, Item.LIST.value[0].x, Mixed.TWO.x, Pair.ONE[1], len(Operation)


@case
def flags_in_methods() -> Any:
    return [each.is_usual() for each in (Access.READ, Access.WRITE, Access.RUN)]


@given(Own.ONE)
def own_pickling(one: Own) -> Any:
    return one, one is Own.ONE


if __name__ == "__main__":
    report(kept=(Operation, Item, Access))
