"""Which modules a node imports to open what it is sent."""

import dis
from dataclasses import dataclass, field
from functools import lru_cache
from opcode import opmap
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

from skyward.remote.function import Remote

_IMPORT_NAME = opmap["IMPORT_NAME"]


@dataclass(slots=True)
class Modules:
    """Names of modules that a node imports to open something.

    Attributes
    ----------
    referred
        Those of the functions and classes in it.
    inner
        What functions in it may import as they run; a few names too many do not matter. None if nobody wants to know.
    """

    referred: set[str] = field(default_factory=set)
    inner: set[str] | None = None

    def note(self, obj: object) -> None:
        """Note the modules that a node imports to find an object again."""
        if isinstance(obj, (FunctionType, type, BuiltinFunctionType, Remote)):
            self.referred.add(str(obj.__module__))
            if self.inner is not None and isinstance(code := getattr(obj, "__code__", None), CodeType):
                _note_imports(code, self.inner)
        elif isinstance(obj, ModuleType):
            self.referred.add(obj.__name__)
        else:
            self.referred.add(type(obj).__module__)

    def add(self, other: "Modules") -> None:
        """Note all that the other one does."""
        self.referred |= other.referred
        if self.inner is not None and other.inner is not None:
            self.inner |= other.inner


def _note_imports(code: CodeType, modules: set[str]) -> None:
    """Note what a function imports as it runs; a few names too many do not matter."""
    if _IMPORT_NAME in code.co_code[::2]:
        modules.update(code.co_names)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            _note_imports(const, modules)


_PLAIN_OPCODES = {
    *("RESUME", "NOP", "CACHE", "EXTENDED_ARG", "MAKE_CELL", "COPY_FREE_VARS", "POP_TOP", "SWAP", "LOAD_CONST"),
    *("LOAD_SMALL_INT", "IMPORT_NAME", "IMPORT_FROM", "STORE_NAME", "STORE_FAST", "STORE_DEREF", "STORE_GLOBAL"),
}
"""Instructions of imports, docstrings and constants."""


@lru_cache(1024)
def first_imports(code: CodeType) -> tuple[str, ...]:
    """Return the absolute imports with which a function or module begins, before it does anything else.

    What it does may be what a later import depends on, such as setting a variable of the environment.
    """
    found: list[str] = []
    constants: list[object] = []
    for step in dis.get_instructions(code):
        if step.opname not in _PLAIN_OPCODES:
            break
        if step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            constants.append(step.argval)
        elif step.opname == "IMPORT_NAME":
            level, _ = constants[-2:]
            if level:
                break
            found.append(str(step.argval))
    return tuple(found)
