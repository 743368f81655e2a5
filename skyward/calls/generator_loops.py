"""Read the loops of a generator expression from its bytecode, without running it."""

import dis
from collections.abc import Sequence
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any

_ALWAYS = frozenset(["JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"])
_ENDS = frozenset(["RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE"])
_JUMPS = frozenset([*dis.hasjrel, *dis.hasjabs])
_TARGETS = frozenset(["STORE_DEREF", "STORE_FAST", "STORE_FAST_STORE_FAST", "UNPACK_SEQUENCE"])
_NAMED = frozenset(["CALL", "LOAD_CONST", "LOAD_DEREF", "LOAD_GLOBAL", "PUSH_NULL"])
"""The instructions of a loop over a name, a constant or a `range` of those."""

type _Steps = Sequence[dis.Instruction]


def inner_iterables(frame: FrameType) -> list[Any] | None:
    """Return the iterables of the inner loops of a generator expression, outermost first.

    None unless it yields exactly one item per iteration of the innermost loop, and no loop depends on an outer one.
    """
    inner = _loops(frame.f_code)
    return None if inner is None else [_evaluated(steps, frame) for steps in inner]


def _evaluated(steps: _Steps, frame: FrameType) -> Any:
    """Return the value of an expression of names, constants and `range`."""
    stack: list[Any] = []
    for step in steps:
        match step.opname:
            case "LOAD_CONST":
                stack.append(step.argval)
            case "LOAD_DEREF":
                stack.append(frame.f_locals[step.argval])
            case "LOAD_GLOBAL":
                known = frame.f_globals if step.argval in frame.f_globals else frame.f_builtins
                stack.append(known[step.argval])
            case "CALL":
                place = len(stack) - step.argval
                function, arguments = stack[place - 1], stack[place:]
                if function is not range or any(type(each) is not int for each in arguments):
                    return None
                stack[place - 1 :] = [range(*arguments)]
            case _:
                pass
    return stack[-1]


@lru_cache(maxsize=256)
def _loops(code: CodeType) -> tuple[_Steps, ...] | None:
    """Return the instructions that evaluate the iterable of each inner loop, or None as in `inner_iterables`."""
    steps = list(dis.get_instructions(code))
    loop = next(place for place, step in enumerate(steps) if step.opname == "FOR_ITER")
    inner = []
    while (begin := _after(steps, loop + 1, _TARGETS)) < (end := _after(steps, begin, _NAMED)):
        if [step.opname for step in steps[end : end + 2]] != ["GET_ITER", "FOR_ITER"]:
            break
        inner.append(steps[begin:end])
        loop = end + 1
    return tuple(inner) if _yields_once(steps, loop) else None


def _after(steps: _Steps, place: int, names: frozenset[str]) -> int:
    while steps[place].opname in names:
        place += 1
    return place


def _yields_once(steps: _Steps, loop: int) -> bool:
    """Whether every path through one iteration of a loop yields exactly one item."""
    places = {step.offset: place for place, step in enumerate(steps)}
    paths, seen = [(loop + 1, 0)], set[tuple[int, int]]()
    while paths:
        place, yielded = path = paths.pop()
        if path in seen:
            continue
        seen.add(path)
        step = steps[place]
        if place == loop:
            if yielded != 1:
                return False
            continue
        if step.opname in _ENDS or yielded > 1:
            return False
        yielded += step.opname == "YIELD_VALUE"
        if step.opcode in _JUMPS:
            paths.append((places[step.argval], yielded))
        if step.opname not in _ALWAYS:
            paths.append((place + 1, yielded))
    return True
