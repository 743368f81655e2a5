"""Classes of a script, with their metaclasses and bases."""

# mypy: ignore-errors
# A script as its author may have left it: what counts is that it runs.

import abc
import collections
import types
import warnings
from typing import Any, ClassVar

from tests.kinds.report import case, report


class Shape(abc.ABC):
    @property
    @abc.abstractmethod
    def area(self) -> float: ...

    @abc.abstractmethod
    def name(self) -> str: ...


class Square(Shape):
    def __init__(self, side: float) -> None:
        self.side = side

    @property
    def area(self) -> float:
        return self.side**2

    def name(self) -> str:
        return "square"


@Shape.register
class Virtual:
    pass


@case
def abstract_classes() -> Any:
    text = ""
    try:
        Shape()
    except TypeError as error:
        text = str(error)
    return text, Square(3).area, isinstance(Square(1), Shape), issubclass(Virtual, Shape)


class Registry(type):
    known: ClassVar[list[str]] = []

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any], *, tag: str, **options: Any) -> Any:
        made = super().__new__(mcs, name, bases, {**body, "tag": tag})
        mcs.known.append(name)
        return made

    def __init__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any], *, tag: str) -> None:
        super().__init__(name, bases, body)

    def __len__(cls) -> int:
        return len(cls.tag)

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{name} of {cls.tag}"


class Tagged(metaclass=Registry, tag="abc"):
    pass


class AlsoTagged(Tagged, tag="de"):
    pass


@case
def metaclasses() -> Any:
    return Tagged.tag, len(Tagged), AlsoTagged.tag, Tagged.color, Registry.known, type(AlsoTagged) is Registry


class Plugin:
    known: ClassVar[dict[str, type]] = {}
    made = 0
    size = 1

    def __init_subclass__(cls, *, title: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "run" not in vars(cls):
            raise TypeError(f"{cls.__name__} cannot run")
        Plugin.known[title] = cls
        Plugin.made += 1
        cls.title = title


class Runner(Plugin, title="runner"):
    def run(self) -> str:
        return f"{type(self).__name__} {self.title} {self.size}"


class Walker(Runner, title="walker"):
    __slots__ = ("pace",)

    def run(self) -> str:
        return super().run() + "!"


@case
def init_subclass() -> Any:
    return (
        Walker().run(),
        Plugin.made,
        sorted(Plugin.known),
        Plugin.known["walker"] is Walker,
        [each.__name__ for each in Plugin.__subclasses__()],
    )


@case
def init_subclass_of_one_alone() -> Any:
    return Walker().run()


class Slotted:
    __slots__ = ("a",)

    def __init_subclass__(cls, **options: Any) -> None:
        if not hasattr(cls, "needed"):
            raise TypeError("needed is needed")


class SlottedHeir(Slotted):
    __slots__ = ("b",)
    needed = 3


class OddError(ValueError):
    def __init_subclass__(cls) -> None:
        if not hasattr(cls, "code"):
            raise TypeError("no code")


class OddHeirError(OddError):
    code = 3


class Key(tuple[int, ...]):
    __slots__ = ()

    def __init_subclass__(cls, *, n: int) -> None:
        cls.n = n


class Key2(Key, n=2):
    __slots__ = ()


@case
def init_subclass_of_other_layouts() -> Any:
    made = SlottedHeir()
    made.b = 4
    return made.b, made.needed, hasattr(made, "__dict__"), OddHeirError("x").args, Key2((1, 2)), Key2.n


class Typed:
    """A descriptor that learns its name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = f"_{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else getattr(instance, self.name)

    def __set__(self, instance: Any, value: int) -> None:
        setattr(instance, self.name, int(value))


class Described:
    width = Typed()


@case
def descriptors() -> Any:
    described = Described()
    described.width = "4"
    return described.width, vars(described), Described.width.name


def make_local() -> tuple[type, type]:
    factor = 4

    class Local:
        def get(self) -> int:
            return factor

    class Sub(Local):
        def get(self) -> int:
            return super().get() + 1

    return Local, Sub


LOCAL, SUB = make_local()


@case
def local_classes() -> Any:
    return SUB().get(), LOCAL.__qualname__, issubclass(SUB, LOCAL)


class FailedError(Exception):
    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"failed {code}")
        self.code, self.hint = code, hint

    def __str__(self) -> str:
        return f"{self.code}: {self.hint}"


class OldWarning(DeprecationWarning):
    pass


@case
def exceptions() -> Any:
    try:
        raise FailedError(3, hint="again")
    except FailedError as error:
        return str(error), error.args


@case
def warning_categories() -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OldWarning)
        warnings.warn("old", OldWarning, stacklevel=1)
    return [each.category is OldWarning for each in caught]


class Mapping(collections.UserDict[str, int]):
    def __missing__(self, key: str) -> int:
        return len(key)


class Ints(list[int]):
    def total(self) -> int:
        return sum(self)


TABLE = collections.defaultdict(list, {"a": [1]})
LINE = collections.namedtuple("LINE", "a b")
SPACE = types.SimpleNamespace(a=1, b=[2])
PROXY = types.MappingProxyType({"a": 1})


@case
def containers() -> Any:
    TABLE["b"].append(2)
    return Mapping()["abc"], Ints([1, 2]).total(), dict(TABLE), LINE(1, 2).b, SPACE.b, PROXY["a"]


if __name__ == "__main__":
    report()
