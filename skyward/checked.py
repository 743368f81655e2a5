"""Records that explain a wrong argument in one line: the argument, its value, what is wrong, what to write instead.

Driver only: a node never imports pydantic.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from skyward.errors import InvalidArgument


class Checked(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True):
    """A frozen record whose constructor explains a wrong argument in one line; providers derive from it, too.

    A field has a `description`, which says what to do ("give a folder"), and one of `examples`, as source text.
    """

    def __init__(self, /, *unnamed: Any, **given: Any) -> None:
        if unnamed:
            name, field = next(iter(type(self).model_fields.items()))
            raise InvalidArgument(f"{_title(type(self))} takes names only, for example {name}={_example(field)}")
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise _explained(type(self), error) from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise InvalidArgument(f"{_title(type(self))} cannot be changed; make another one with the {name} that you want")


def refused(problem: str, fix: str = "", shown: str = "") -> PydanticCustomError:
    """What a check raises: the problem; a fix, if the field's own will not do; what to show, if not the value."""
    return PydanticCustomError("refused", "{problem}", {"problem": problem, "fix": fix, "shown": shown})


# ---------------------------------------------------------------- from pydantic's errors to one line


def _explained(model: type[Checked], error: ValidationError) -> InvalidArgument:
    """One line for the first thing to mend; a misspelt name goes before a wrong value."""
    first = min(error.errors(include_url=False), key=lambda detail: detail["type"] != "extra_forbidden")
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return InvalidArgument(f"{_title(model)} has no argument {name!r}; {_instead(model, name)}")
    field = model.model_fields[name]
    usual = f"{field.description}, for example {name}={_example(field)}"
    if first["type"] == "missing":
        return InvalidArgument(f"{_title(model)} needs {name}; {usual}")
    told = first["ctx"] if first["type"] == "refused" else _told(first)
    problem, fix, shown = told["problem"], told.get("fix") or usual, told.get("shown")
    if shown:
        return InvalidArgument(f"{name}={shown}: {problem}; {fix}")
    return InvalidArgument.of(name, first["input"], problem, fix)


def _title(model: type[Checked]) -> str:
    return model.model_config.get("title") or model.__name__


def _example(field: FieldInfo) -> str:
    return str((field.examples or ["..."])[0])


def _instead(model: type[Checked], name: str) -> str:
    """What an unknown argument was probably meant to be."""
    for argument, field in model.model_fields.items():
        home = field.annotation
        if isinstance(home, type) and issubclass(home, Checked) and name in home.model_fields:
            return f"it goes into {argument}: {argument}=sky.{home.__name__}({name}=...)"
    names = list(model.model_fields)
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it takes {listed(names)}"


_WORDS = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
}


def _told(detail: ErrorDetails) -> dict[str, str]:
    """Pydantic's complaint in our words: a problem, and a fix where there is a better one than the field's."""
    kind, context = detail["type"], detail.get("ctx", {})
    words = _WORDS.get(kind)
    problem = words.format(**context) if words else detail["msg"].replace("Input should", "must", 1)
    choices = re.findall(r"'(\w+)'", context["expected"]) if kind == "literal_error" else []
    near = difflib.get_close_matches(str(detail["input"]).lower(), choices, n=1)
    return {"problem": problem, "fix": f"did you mean {near[0]!r}?" if near else ""}


def listed(names: Iterable[str]) -> str:
    """Return names as a sentence has them: `a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
