"""Classes by value, rebuilt from their parts.

cloudpickle builds a class by running the code of its metaclass and bases on an empty class, which fails if they take
arguments or inspect the class. Here that code does not run again, as its effects are in the attributes of the class.
Classes keep their slots, and enums keep their aliases and the attributes of their members.
"""

import threading
from abc import ABCMeta, _get_dump  # type: ignore[attr-defined]
from collections.abc import Mapping
from enum import Enum, EnumType, pickle_by_enum_name, pickle_by_global_name
from types import BuiltinFunctionType, GetSetDescriptorType, MemberDescriptorType, new_class
from typing import Any

from skyward.remote.serialization.identities import IDENTITIES, find_importable
from skyward.remote.serialization.namespace import own_classes

_HEAP_TYPE = 1 << 9
"""The flag of classes made at run time (`Py_TPFLAGS_HEAPTYPE`)."""

_ENUM_PARTS = {"_member_map_", "_value2member_map_", "_unhashable_values_"}
"""Attributes of an enum that are set when its members are rebuilt."""

_FLAG_PARTS = ("_flag_mask_", "_singles_mask_", "_all_bits_", "_inverted_", "_boundary_", "_member_type_")
"""Attributes by which an enum of flags combines its members."""

_new: set[int] = set()  # ids of classes that have no attributes yet; they are kept alive elsewhere
_lock = threading.Lock()


def is_dynamic(cls: type) -> bool:
    """Return whether a class must be sent by value, because a node cannot import it."""
    return bool(cls.__flags__ & _HEAP_TYPE) and find_importable(cls) is not cls


def reduce_class(cls: Any, *, result: bool) -> tuple[Any, ...]:
    """Reduce a class by value.

    In a `result`, the driver's own class is not changed by its copy. In a call, a class that the node has from an
    earlier call gets its current attributes.
    """
    attributes, body = _parts(cls)
    members = _members(cls) if isinstance(cls, EnumType) else ()
    build = type(cls), cls.__name__, cls.__bases__, body, members, IDENTITIES.name(cls)
    if _is_of_ctypes(cls) or _maker(type(cls)) not in (type, ABCMeta):
        _try_to_build(cls, body)
    values = _values(cls) if members else {}
    states = [(values[id(member)], vars(member)) for member in _unique(cls)]
    state = attributes, states, _registered(cls)
    return build_class, build, state, None, None, _fill_new if result else _fill


def build_class(
    meta: type, name: str, bases: tuple[type, ...], body: dict[str, Any], members: tuple[Any, ...], identity: str
) -> type:
    """Return the class of that identity. If there is none yet, build it without attributes."""
    own = own_classes()
    known: type | None = IDENTITIES.get(identity) if own is None else own.get(identity)
    if known is not None:
        return known
    built = cls = _create(meta, name, bases, body)
    if members:
        _add_members(cls, members)
    with _lock:
        if own is None:
            built = IDENTITIES.add(identity, cls)
        else:
            own[identity] = cls
            IDENTITIES.share(identity, cls)
        if built is cls:
            _new.add(id(cls))
    return built


def _is_of_ctypes(cls: type) -> bool:
    kind: type = type(cls)
    return any(each.__module__ == "_ctypes" for each in kind.__mro__)


def _try_to_build(cls: type, body: dict[str, Any]) -> None:
    """Raise TypeError here, not on the node, if the metaclass of an extension module cannot build the class.

    Classes of ctypes cannot be built, as the layout of their instances is not among their attributes.
    """
    try:
        if _is_of_ctypes(cls):
            raise TypeError("its layout is not among its attributes")
        _create(type(cls), cls.__name__, cls.__bases__, body)
    except Exception as error:
        raise TypeError(f"the class cannot be built again by {type(cls).__name__}: {error}") from error


def _create(meta: type, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    """Make a class without running Python code of its metaclass and bases.

    It is made with bases of the same layout without `__init_subclass__`, which are then replaced by its own.
    """
    quiet = tuple(dict.fromkeys(map(_without_code, bases)))
    try:
        cls: type = _maker(meta).__new__(meta, name, quiet, dict(body))
        if quiet != bases:
            cls.__bases__ = bases
    except TypeError:  # impossible for this metaclass or layout
        return new_class(name, bases, {"metaclass": meta}, lambda namespace: namespace.update(body))
    return cls


def _maker(meta: type) -> Any:
    """Return the nearest metaclass whose `__new__` is not Python code, or `ABCMeta`, whose code is harmless."""
    for each in meta.__mro__:
        if each is ABCMeta or ("__new__" in vars(each) and isinstance(vars(each)["__new__"], BuiltinFunctionType)):
            return each
    return type


def _without_code(base: type) -> type:
    """Return a base with the same layout, but without `__init_subclass__`."""
    if not any("__init_subclass__" in vars(each) for each in base.__mro__ if each is not object):
        return base
    bases = tuple(dict.fromkeys(map(_without_code, base.__bases__)))
    if len(bases) > 1:
        bases = tuple(each for each in bases if each is not object)
    meta = type(base)
    twin: type = _maker(meta).__new__(meta, base.__name__, bases, {"__slots__": _slots(base)})
    return twin


def _slots(cls: type) -> tuple[str, ...]:
    """Return the names of a class's own slots: `__slots__` may be an exhausted iterator."""
    names = [name for name, each in vars(cls).items() if _is_slot(cls, each)]
    return (*names, *(name for name in ("__dict__", "__weakref__") if name in vars(cls)))


def _is_slot(cls: type, attribute: object) -> bool:
    return isinstance(attribute, MemberDescriptorType) and attribute.__objclass__ is cls


def _parts(cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the attributes that a class gets after it is built, and those with which it is built."""
    attributes = {
        "".join(name): value  # not interned, so that equal classes give equal bytes
        for name, value in vars(cls).items()
        if not _is_slot(cls, value) and name not in ("_abc_impl", "__annotate_func__", "__weakref__")
    }
    body: dict[str, Any] = {"__module__": attributes.pop("__module__", None), "__qualname__": cls.__qualname__}
    own = attributes.pop("__dict__", None)
    if own is not None and not isinstance(own, GetSetDescriptorType):
        body["__dict__"] = own
    if "__slots__" in attributes:
        body["__slots__"] = _slots(cls)
        if not isinstance(attributes["__slots__"], str | tuple | list | dict | set | frozenset):
            attributes["__slots__"] = body["__slots__"]
    if isinstance(cls, EnumType):
        gone = _ENUM_PARTS | set(cls._member_map_)
        attributes = {name: value for name, value in attributes.items() if name not in gone}
        body |= {name: attributes[name] for name in _FLAG_PARTS if name in attributes}
    return attributes, body


def _registered(cls: type) -> list[type]:
    """Return the classes that were registered with an abstract one."""
    if not isinstance(cls, ABCMeta):
        return []
    return [each for reference in _get_dump(cls)[0] if (each := reference()) is not None]


type _State = tuple[Mapping[str, Any], list[tuple[tuple[Any, ...], dict[str, Any]]], list[type]]
"""The attributes of a class, the values and attributes of each enum member, and the registered virtual subclasses."""


def _fill(cls: Any, state: _State) -> Any:
    """Give a class exactly the attributes that it had when it was pickled."""
    attributes, members, registered = state
    with _lock:
        is_new = id(cls) in _new
        _new.discard(id(cls))
    setter: Any = type if isinstance(cls, EnumType) else _maker(type(cls))
    if not is_new and not isinstance(cls, EnumType):
        for name, value in [*vars(cls).items()]:
            kept = name in attributes or name.startswith("__") or name == "_abc_impl"
            if not kept and not _is_slot(cls, value):
                setter.__delattr__(cls, name)
    for name, value in attributes.items():
        setter.__setattr__(cls, name, value)
    if "__firstlineno__" in attributes:  # setting `__module__` or this removes it in Python 3.13
        setter.__setattr__(cls, "__firstlineno__", attributes["__firstlineno__"])
    for member, (_, own) in zip(_unique(cls), members, strict=False):
        vars(member).update(own)
    if members:
        _set_values(cls, [values for values, _ in members])
    for each in registered:
        ABCMeta.register(cls, each)
    return cls


def _fill_new(cls: Any, state: _State) -> Any:
    """Give a class its attributes if it is new."""
    return _fill(cls, state) if id(cls) in _new else cls


# ---------------------------------------------------------------- enums


def reduce_member(member: Enum) -> tuple[Any, ...] | None:
    """Reduce a member of an enum to its name, as values may not be equal to their copies.

    None for combined flags, and if the enum defines how its members are pickled.
    """
    cls = type(member)
    if cls.__reduce_ex__ not in _PICKLED_AS_USUAL or cls._member_map_.get(member._name_) is not member:
        return None
    return member_of, (cls, member._name_)


_PICKLED_AS_USUAL = (Enum.__reduce_ex__, pickle_by_enum_name, pickle_by_global_name)


def member_of(cls: EnumType, name: str) -> Any:
    """Return the member of that name."""
    return cls._member_map_[name]


def _members(cls: Any) -> tuple[tuple[str, int, tuple[Any, ...], tuple[Any, ...]], ...]:
    """Return for each name, aliases included: the member's number, its values, and the arguments of its data type.

    A member may have several values, if the enum has registered others for it.
    """
    numbers: dict[int, int] = {}
    values = _values(cls)
    return tuple(
        (name, numbers.setdefault(id(member), len(numbers)), values[id(member)], _data(member))
        for name, member in cls._member_map_.items()
    )


def _values(cls: Any) -> dict[int, tuple[Any, ...]]:
    """Return the values of each member of an enum, by the member's id."""
    values: dict[int, tuple[Any, ...]] = {id(each): (each._value_,) for each in cls._member_map_.values()}
    for value, member in cls._value2member_map_.items():
        if value is not member._value_ and id(member) in values:
            values[id(member)] += (value,)
    return values


def _unique(cls: Any) -> list[Any]:
    """Return the members of an enum, without aliases; none for other classes."""
    return list({id(each): each for each in cls._member_map_.values()}.values()) if isinstance(cls, EnumType) else []


def _data(member: Any) -> tuple[Any, ...]:
    base: Any = _builtin_base(type(member))
    if base is object:
        return ()
    if hasattr(base, "__getnewargs__"):
        return tuple(base.__getnewargs__(member))
    return tuple(base.__reduce__(member)[1])


def _builtin_base(cls: type) -> type:
    return next(each for each in cls.__mro__ if not each.__flags__ & _HEAP_TYPE)


def _add_members(cls: Any, members: tuple[tuple[str, int, tuple[Any, ...], tuple[Any, ...]], ...]) -> None:
    """Make the members of an enum, which can be looked up by value. Their other attributes are set later."""
    by_name: dict[str, Any] = {}
    made: dict[int, Any] = {}
    for name, number, values, data in members:
        if number not in made:
            made[number] = member = _builtin_base(cls).__new__(cls, *data)
            vars(member).update(_value_=values[0], _name_=name, __objclass__=cls, _sort_order_=number)
        by_name[name] = made[number]
        type.__setattr__(cls, name, made[number])
    type.__setattr__(cls, "_member_map_", by_name)
    type.__setattr__(cls, "_value2member_map_", {})
    type.__setattr__(cls, "__new__", Enum.__new__)
    _set_values(cls, list({number: values for _, number, values, _ in members}.values()))


def _set_values(cls: Any, values: list[tuple[Any, ...]]) -> None:
    """Set the values by which the members of an enum are found. Combined flags are still found."""
    members = _unique(cls)
    named = set(map(id, members))
    by_value = {value: each for value, each in cls._value2member_map_.items() if id(each) not in named}
    unhashable: list[Any] = []
    for member, (_, *others) in zip(members, values, strict=False):
        own = member._value_  # not the first of `values`: a pickled NaN is another object
        try:
            by_value.update(dict.fromkeys((own, *others), member))
        except TypeError:
            unhashable.append(own)
    type.__setattr__(cls, "_value2member_map_", by_value)
    type.__setattr__(cls, "_unhashable_values_", unhashable)
