"""What the reader of docstrings does not find by itself: the constructors of our records, and the function `remote`."""

import ast
from dataclasses import replace
from typing import Any

from griffe import (
    Alias,
    Attribute,
    Class,
    Expr,
    ExprCall,
    ExprKeyword,
    ExprSubscript,
    ExprTuple,
    Extension,
    Function,
    ObjectNode,
    Parameter,
    ParameterKind,
    Parameters,
)


class Signatures(Extension):
    """Give each class that derives from `StrictModel` the constructor that its fields make."""

    def on_alias_instance(self, *, node: ast.AST | ObjectNode, alias: Alias, agent: Any, **_: Any) -> None:
        """Leave `skyward.remote` to the package: the function of that name would lead to itself."""
        if alias.path == "skyward.remote":
            agent.current.del_member("remote")

    def on_function_instance(self, *, node: ast.AST | ObjectNode, func: Function, agent: Any, **_: Any) -> None:
        """Leave out what is taken only for an error that says what to write instead."""
        func.parameters = Parameters(*(each for each in func.parameters if each.name not in ("unnamed", "unknown")))

    def on_class_members(self, *, node: ast.AST | ObjectNode, cls: Class, agent: Any, **_: Any) -> None:
        """Make a constructor out of the fields, where none is written out for type checkers."""
        if not any(str(base) == "StrictModel" for base in cls.bases) or is_written_out(cls.members.get("__init__")):
            return
        fields = [field for field in cls.members.values() if isinstance(field, Attribute) and is_public(field)]
        init = Function("__init__", parameters=Parameters(*map(parameter, fields)), returns="None")
        cls.set_member("__init__", init)


def is_public(field: Attribute) -> bool:
    """Whether an attribute of a class is one of its fields."""
    return "instance-attribute" in field.labels and field.annotation is not None and not field.name.startswith("_")


def is_written_out(init: Any) -> bool:
    """Whether a constructor names what it takes."""
    return init is not None and all(each.kind is not ParameterKind.var_keyword for each in init.parameters)


def parameter(field: Attribute) -> Parameter:
    """Return the argument of the constructor for a field."""
    kind = None if field.annotation is None else unchecked(field.annotation)
    return Parameter(field.name, annotation=kind, kind=ParameterKind.keyword_only, default=default(field.value))


def unchecked(kind: str | Expr) -> str | Expr:
    """Return a type without the checks of its values: `Sequence[str]` for `Sequence[Annotated[str, ...]]`."""
    if not isinstance(kind, ExprSubscript):
        return kind
    if str(kind.left) == "Annotated" and isinstance(kind.slice, ExprTuple):
        return unchecked(kind.slice.elements[0])
    return replace(kind, slice=unchecked(kind.slice))


def default(value: str | Expr | None) -> str | Expr | None:
    """Return what a field is when it is left out; None where it cannot be."""
    if not isinstance(value, ExprCall):
        return value
    given = {each.name: each.value for each in value.arguments if isinstance(each, ExprKeyword)}
    return given.get("default", f"{given['default_factory']}()" if "default_factory" in given else None)
