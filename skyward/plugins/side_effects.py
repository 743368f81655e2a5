"""What the code of a function says about its use."""

import dis
import functools
import inspect
import types
from collections import deque
from collections.abc import Callable
from typing import Any

_MUTABLE_TYPES = (list, dict, set, bytearray, deque)
_RETURNS = {"RETURN_VALUE", "RETURN_CONST", "RETURN_GENERATOR"}


def returns_nothing(function: Callable[..., Any]) -> bool:
    """Say whether a function returns None on all its paths, so that it is called only for its side effects.

    The same is said of a method of a list, dict or set, such as `results.append`, and of `array.__setitem__`. The
    answer is a matter of the function's own code, not of what it calls: when in doubt it is no.
    """
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    if isinstance(function, types.BuiltinMethodType | types.MethodWrapperType):
        return isinstance(function.__self__, _MUTABLE_TYPES) or function.__name__ in ("__setitem__", "__delitem__")
    if not isinstance(function, types.FunctionType | types.MethodType):
        function = type(function).__call__
    plain = getattr(function, "__func__", function)
    # functions that Cython has compiled have a `__code__` too, which says nothing of what they return
    return isinstance(plain, types.FunctionType) and _returns_none(plain.__code__)


def _returns_none(code: types.CodeType) -> bool:
    before = None
    for instruction in dis.get_instructions(code):
        if instruction.opname in _RETURNS:
            constant = before if instruction.opname == "RETURN_VALUE" else instruction
            if constant is None or constant.argval is not None or "CONST" not in constant.opname:
                return False
        before = instruction
    return True
