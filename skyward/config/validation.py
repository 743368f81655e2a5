"""Models that explain an invalid argument in one line: the argument, its value, what is wrong, and the fix.

Driver only: a node never imports pydantic.
"""

import difflib
import operator
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from skyward.errors import InvalidArgument


class StrictModel(
    BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
):
    """A frozen model whose constructor explains an invalid argument in one line. Providers derive from it, too.

    Each field has a `description`, which says what to do ("give a folder"), and one of `examples`, as source text.

    Attributes
    ----------
    synonyms
        For an argument, or for what to write instead, names that other tools use: `{"accelerator": "gpu gpus"}`.
    """

    synonyms: ClassVar[Mapping[str, str]] = {}

    def __init__(self, /, *unnamed: Any, **given: Any) -> None:
        if unnamed:
            name, field = next(iter(type(self).model_fields.items()))
            raise InvalidArgument(
                f"{_title(type(self))} takes keyword arguments only, for example {name}={_example(field)}"
            )
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise _explained(type(self), given, error) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise InvalidArgument(f"{_title(type(self))} is immutable; make another one with the {name} that you want")


def refused(problem: str, fix: str = "", shown: str = "") -> PydanticCustomError:
    """Return the error that a check raises.

    `fix` replaces the description of the field, and `shown` the value of the argument.
    """
    return PydanticCustomError("refused", "{problem}", {"problem": problem, "fix": fix, "shown": shown})


# ---------------------------------------------------------------- checks of several models


def _text(value: str) -> str:
    if not value.strip():
        raise refused("is empty")
    if not value.isprintable():
        raise refused("contains a control character")
    return value


def matching(pattern: str, problem: str) -> AfterValidator:
    """Return a check that a string matches a regular expression."""

    def check(value: str | None) -> str | None:
        if value is not None and not re.fullmatch(pattern, value):
            raise refused(problem)
        return value

    return AfterValidator(check)


def as_tuple(value: object) -> object:
    """Return a string, or a list of strings, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Text = Annotated[str, AfterValidator(_text)]
"""A string of one line that is not empty."""


def as_integer(value: object) -> object:
    """Convert NumPy's integers to int."""
    if isinstance(value, int) or not hasattr(value, "__index__"):
        return value
    return operator.index(value)


def existing_file(value: object) -> object:
    """Return the path of a file, which must exist, or None."""
    path = any_path(value)
    if path is not None and not os.path.exists(path):
        raise refused("there is no such file")
    if path is not None and os.path.isdir(path):
        raise refused("is a folder, not a file")
    return path


def existing_folder(value: object) -> object:
    """Return the path of a folder, which must exist, or None."""
    path = any_path(value)
    if path is not None and not os.path.isdir(path):
        raise refused("there is no such folder")
    return path


NO_HOME = "{} names no folder: there is no such user, or it has no home (HOME is not set)"
"""The problem of a path that begins with `~` or `~nobody`."""


def any_path(value: object) -> Path | None:
    """Return a path, which need not exist, or None."""
    if value is None:
        return None
    if not isinstance(value, str | Path):
        raise refused("must be a path")
    _text(str(value))
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise refused(NO_HOME.format(Path(value).parts[0])) from None


# ---------------------------------------------------------------- errors of pydantic in one line


def _explained(model: type[StrictModel], given: Mapping[str, Any], error: ValidationError) -> InvalidArgument:
    """Return an error about the first problem; unknown names come before invalid values."""
    first = min(error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden")
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InvalidArgument):  # it is complete
        return InvalidArgument(str(cause))
    if not first["loc"]:
        return InvalidArgument(f"{_title(model)}: {_told('', first)['problem']}")
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return _unknown(model, name)
    field = model.model_fields[name]
    usual = f"{field.description}, for example {name}={_example(field)}"
    if first["type"] == "missing":
        return InvalidArgument(f"{_title(model)} needs {name}; {usual}")
    told = first["ctx"] if first["type"] == "refused" else _told(name, first)
    problem, fix, shown = told["problem"], told.get("fix") or usual, told.get("shown")
    if len(first["loc"]) > 1 and isinstance(given.get(name), list | tuple | Mapping):
        problem = f"{first['input']!r} {problem}"
    if shown:
        return InvalidArgument(f"{name}={shown}: {problem}; {fix}")
    return InvalidArgument.of(name, given.get(name, first["input"]), problem, fix)


def _title(model: type[StrictModel]) -> str:
    return model.model_config.get("title") or model.__name__


def _example(field: FieldInfo) -> str:
    return str((field.examples or ["..."])[0])


def _unknown(model: type[StrictModel], name: str) -> InvalidArgument:
    """Return an error that suggests what an unknown argument was meant to be."""
    for argument, field in model.model_fields.items():
        home = field.annotation
        if isinstance(home, type) and issubclass(home, StrictModel) and name in home.model_fields:
            right = f"it goes into {argument}: {argument}=sky.{home.__name__}({name}=...)"
            return InvalidArgument(f"{_title(model)} has no argument {name!r}; {right}")
    return InvalidArgument.unknown(_title(model), name, tuple(model.model_fields), model.synonyms)


_WORDS = {
    "bool_type": "must be True or False",
    "dict_type": "must be a dictionary",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_type": "must be a whole number",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "mapping_type": "must be a dictionary",
    "string_type": "must be a string",
    "tuple_type": "must be a list",
    "value_error": "{error}",
    "assertion_error": "{error}",
}


def _told(name: str, detail: ErrorDetails) -> dict[str, str]:
    """Reword an error of pydantic: the problem, and a fix if there is a better one than the field's description."""
    kind, context = detail["type"], detail.get("ctx", {})
    words = _WORDS.get(kind)
    problem = words.format(**context) if words else detail["msg"].replace("Input should", "must", 1)
    return {"problem": problem, "fix": _fix(name, kind, detail["input"], str(context.get("expected", "")))}


def _fix(name: str, kind: str, value: object, expected: str) -> str:
    match kind, value:
        case "literal_error", str(text):
            near = difflib.get_close_matches(text.lower(), re.findall(r"'([^']+)'", expected), n=1)
            return f"did you mean {near[0]!r}?" if near else ""
        case (("int_type" | "float_type"), (str() | float())):
            number = as_number(value)
            return "" if number is None or (kind == "int_type" and number % 1) else f"write {name}={number:.15g}"
        case _:
            return ""


def as_number(value: str | float) -> float | None:
    """Convert a string or number to float; None if that fails or the result is not finite."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < 1e15 else None  # whole numbers are exact up to about this
