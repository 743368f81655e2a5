"""Every error of Skyward, in one small tree cut by who can act on it. Standard library only: nodes load it too.

```
SkywardError
├── InvalidArgument    what was written cannot be meant   → the text says what to write     (ValueError)
├── NoCompute          no block is open                   → open one                        (RuntimeError)
├── MissingExtra       a library is not installed         → the text says how to install it (ImportError)
├── NotPortable        cannot be pickled, was not sent    → names the argument or global    (TypeError)
├── ProvisioningError  no machine                         → change shape, region, credentials
│   ├── NoCapacity
│   ├── QuotaExceeded
│   └── Denied
├── NodeError          a machine, but no node on it       → look at the log that it carries
│   ├── Unreachable
│   └── BootFailed
├── BudgetExceeded     the money is used up               → it carries the results so far
├── BatchLost          retries used up                    → it carries how each attempt died
├── PoolFailed         the pool itself broke              → report it
├── RemoteError        came home, but not as itself       → it carries type name and text
└── Leaked             something outlived the pool        → end the instances that it names

RemoteTraceback        not raised: the `__cause__` of every exception that came home
```

An exception of user code is raised as itself, never wrapped, with a `RemoteTraceback` as its cause. Every class here
survives `pickle` and `copy` with its text and its facts: a node sends some of them, and joblib passes them on.
"""

from __future__ import annotations

import difflib
import errno
import importlib.util
import reprlib
import resource
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

__all__ = [
    "BatchLost",
    "BootFailed",
    "BudgetExceeded",
    "Denied",
    "InvalidArgument",
    "Leaked",
    "MissingExtra",
    "NoCapacity",
    "NoCompute",
    "NodeError",
    "NotPortable",
    "PoolFailed",
    "ProvisioningError",
    "QuotaExceeded",
    "RemoteError",
    "RemoteTraceback",
    "SkywardError",
    "Unreachable",
]

LOG_LINES = 20  # of a boot log in the text of an error; the error carries all of it

short_repr = reprlib.Repr(maxstring=60, maxother=60).repr
"""The `repr` of a value, never long; one that fails is left out."""


class SkywardError(Exception):
    """Anything that Skyward itself raises; `except SkywardError` never catches an exception of user code."""


class InvalidArgument(SkywardError, ValueError):
    """What was given cannot be meant; the text names the argument, the value and the fix."""

    @classmethod
    def of(cls, argument: str, value: object, problem: str, fix: str) -> Self:
        """Build the one line that all of them have: `nodes=0: must be at least 1; give the number of machines`."""
        return cls(f"{argument}={_shown(value)}: {problem}; {fix}")

    @classmethod
    def unknown(cls, owner: str, name: str, names: Sequence[str], synonyms: Mapping[str, str]) -> Self:
        """Name the argument that was probably meant by one that `owner` does not have.

        `synonyms` has, for a name, the words that others use for it. Instead of a name it may have what to write.
        """
        words = name.lower().replace("-", "_")
        meant = next((right for right, wrong in synonyms.items() if words in wrong.split()), None)
        near = meant or next(iter(difflib.get_close_matches(words, names, n=1)), None)
        if near is None:
            return cls(f"{owner} has no argument {name!r}; it takes {listed(names)}")
        return cls(f"{owner} has no argument {name!r}; {f'did you mean {near!r}?' if near in names else near}")


class NoCompute(SkywardError, RuntimeError):
    """Something needs a pool and no `Compute` block is open."""

    def __init__(self, text: str = "") -> None:
        super().__init__(text or "no Compute block is open: run this inside `with sky.Compute(...):`")


class MissingExtra(SkywardError, ImportError):
    """A library that an extra of Skyward brings is not installed; the text says how to install it.

    It does not name the package: on the package index, that name is another project's.
    """

    @classmethod
    def of(cls, library: str, extra: str = "") -> Self:
        """Name the missing library and its extra, which is called like the library unless said otherwise."""
        return cls(f"{library} is not installed: {_adding(extra or library)}", name=library)

    @classmethod
    def check(cls, extra: str, *libraries: str) -> None:
        """Raise it if one of the libraries that the extra brings is not installed; none of them is imported."""
        for library in libraries:
            if importlib.util.find_spec(library) is None:
                raise cls.of(library, extra)


def _adding(extra: str) -> str:
    """Return the command that adds an extra to Skyward as it is installed: from a clone, git or a wheel."""
    import json
    from importlib import metadata
    from urllib.parse import unquote

    try:
        origin = metadata.distribution("skyward").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        origin = None
    match json.loads(origin or "{}"):
        case {"url": str(url), "dir_info": {"editable": True}}:
            return f"pip install -e '{unquote(url.removeprefix('file://'))}[{extra}]'"
        case {"url": str(url), "vcs_info": {"vcs": str(tool), "commit_id": str(commit)}}:
            return f"pip install 'skyward[{extra}] @ {tool}+{url}@{commit}'"
        case {"url": str(url)}:
            return f"pip install 'skyward[{extra}] @ {url}'"
        case _:
            return f"pip install -e '.[{extra}]' in the folder of Skyward's source"


class NotPortable(SkywardError, TypeError):
    """A function or an argument cannot be pickled, so it was not sent.

    `path` leads to the culprit, for example `args[0].conn`; it is empty where no single part is to blame.
    """

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text)
        self.path = path


class ProvisioningError(SkywardError):
    """There is no machine: the provider did not give one."""


class NoCapacity(ProvisioningError):
    """The provider has none of this shape left, here and now."""


class QuotaExceeded(ProvisioningError):
    """The account may not have more of this shape."""


class Denied(ProvisioningError):
    """The credentials are missing, wrong, or not allowed to do this."""


class NodeError(SkywardError):
    """There is a machine, but no node on it.

    `log` is what the machine said while booting, as far as it was heard. What is `final` would happen the next time as
    well.
    """

    def __init__(self, text: str, log: str = "", *, final: bool = False) -> None:
        super().__init__(text)
        self.log = log
        self.final = final

    def __str__(self) -> str:
        text = super().__str__()
        if not (lines := self.log.strip().splitlines()):
            return text
        return "\n".join([text, f"--- last lines of its log ({len(lines)} in all) ---", *lines[-LOG_LINES:]])


class Unreachable(NodeError):
    """The machine does not answer."""


class BootFailed(NodeError):
    """The machine answers, but the node on it did not start."""


class BatchLost(SkywardError):
    """The slot or the node running a call died in every attempt; `causes` says for each attempt how."""

    def __init__(self, text: str, causes: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.causes: tuple[str, ...] = tuple(causes)

    @classmethod
    def after(cls, causes: Iterable[str], call: str = "this call") -> Self:
        """Say how often a call was tried; how each attempt died follows in the text."""
        ended = tuple(causes)
        times = "its only attempt" if len(ended) == 1 else f"all of its {len(ended)} attempts"
        return cls(f"the slot or node running {call} died in {times}", ended)

    def __str__(self) -> str:
        attempts = (f"  attempt {number}: {cause}" for number, cause in enumerate(self.causes, 1))
        return "\n".join([super().__str__(), *attempts])


class BudgetExceeded(SkywardError):
    """Machines would cost, or have cost, more than `Options(budget=, max_hourly=)` allows; those that were there end.

    `results` has what the call that it interrupted (`Parallel`, `map`, a `TaskGroup`) had come to, by the index of the
    task in it. It is empty for a single `submit`, and where nothing had begun.
    """

    def __init__(self, text: str, results: Mapping[int, Any] | None = None) -> None:
        super().__init__(text)
        self.results: dict[int, Any] = dict(results or {})


class PoolFailed(SkywardError):
    """The pool itself broke, not your code and not a machine; everything that it had started was ended."""


class RemoteError(SkywardError):
    """Stands for a remote exception that could not be brought home as itself, or that would end the caller's program.

    `type_name` is the type it had there, `text` what it said; its traceback is the `__cause__`, as always.
    """

    def __init__(self, type_name: str, text: str = "") -> None:
        super().__init__(type_name, text)
        self.type_name = type_name
        self.text = text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


class Leaked(SkywardError):
    """Something outlived the pool and could not be ended; the text names it, `instances` are its ids there."""

    def __init__(self, text: str, instances: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.instances: tuple[str, ...] = tuple(instances)


class RemoteTraceback(Exception):
    """The `__cause__` of an exception that came home; `str()` of it is the traceback as it was printed there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return self.text


def listed(names: Iterable[str]) -> str:
    """Return names as a sentence has them: `a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _shown(value: object) -> str:
    """The value as the user wrote it, cut where it is long; a broken `__repr__` does not hide the real error."""
    try:
        path = getattr(type(value), "__fspath__", None)
        plain = value if path is None else path(value)
        text = " ".join(short_repr(plain).split())
    except Exception:  # noqa: BLE001 - this runs the user's own `__repr__`
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 100 else f"{text[:80]}...{text[-15:]}"


def explain(error: BaseException) -> str:
    """Return the type and the text of an error, and for a limit of the machine what the limit is and what to do."""
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    advice = _advice(error) if isinstance(error, OSError) else ""
    return f"{text} ({advice})" if advice else text


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EMFILE:
            return f"a process may have {_limit(resource.RLIMIT_NOFILE)} files open at once: raise `ulimit -n`"
        case errno.ENFILE:
            return "this machine has too many open files: raise the sysctl fs.file-max, or close programs"
        case errno.ENOSPC | errno.EDQUOT:
            where = f" for {error.filename}" if error.filename else ""
            return f"the disk or the quota{where} is full: free some space, or set TMPDIR to a folder that has some"
        case errno.EAGAIN:
            most = _limit(resource.RLIMIT_NPROC)
            return (
                f"no more processes can be started: `ulimit -u` is {most}, and the limits of the container or the "
                "machine (pids.max, kernel.pid_max) may be lower; raise the limit, or give fewer slots (concurrency=)"
            )
        case errno.ENOMEM:
            return "this machine has no memory left: give fewer slots (concurrency=), or end other programs"
        case _:
            return ""


def _limit(which: int) -> str:
    soft, _ = resource.getrlimit(which)
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
