"""The modules that a node imports to unpickle a call or a function."""

import dis
from dataclasses import dataclass, field
from functools import lru_cache
from opcode import opmap
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

from skyward.remote.function import Remote

_IMPORT_NAME = opmap["IMPORT_NAME"]


@dataclass(slots=True)
class Modules:
    """Names of modules that a node imports to unpickle and run something.

    Attributes
    ----------
    referred
        The modules of the functions and classes in it.
    inner
        The modules that its functions may import when they run, and possibly other names. None: not collected.
    """

    referred: set[str] = field(default_factory=set)
    inner: set[str] | None = None

    def note(self, obj: object) -> None:
        """Add the modules that a node imports to find an object."""
        if isinstance(obj, (FunctionType, type, BuiltinFunctionType, Remote)):
            self.referred.add(str(obj.__module__))
            if self.inner is not None and isinstance(code := getattr(obj, "__code__", None), CodeType):
                _note_imports(code, self.inner)
        elif isinstance(obj, ModuleType):
            self.referred.add(obj.__name__)
        else:
            self.referred.add(type(obj).__module__)

    def add(self, other: "Modules") -> None:
        """Add the modules of `other`."""
        self.referred |= other.referred
        if self.inner is not None and other.inner is not None:
            self.inner |= other.inner


def _note_imports(code: CodeType, modules: set[str]) -> None:
    """Add the modules that a function may import when it runs, and possibly other names."""
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
    """Return the absolute imports at the very beginning of a function or module.

    Later imports may depend on the code before them, such as code that sets environment variables.
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
