"""Every error of Skyward, in one small tree, grouped by who can act on it. Standard library only: nodes load it too.

```
SkywardError
├── InvalidArgument    an argument is invalid             → the text says what to write     (ValueError)
├── NoCompute          no block is open                   → open one                        (RuntimeError)
├── MissingExtra       a library is not installed         → the text says how to install it (ImportError)
├── NotPortable        cannot be pickled, was not sent    → names the argument or global    (TypeError)
├── ProvisioningError  no machine                         → change shape, region, credentials
│   ├── NoCapacity
│   ├── QuotaExceeded
│   └── Denied
├── NodeError          a machine, but no node on it       → see the log that it has
│   ├── Unreachable
│   └── BootFailed
├── BudgetExceeded     the budget is spent                → it has the results so far
├── BatchLost          retries used up                    → it says how each attempt died
├── PoolFailed         the pool itself broke              → report it
├── RemoteError        could not keep its type            → it has type name and text
└── Leaked             something outlived the pool        → terminate the instances that it names

RemoteTraceback        not raised: the `__cause__` of every exception from a node
```

An exception of user code is raised with its own type, never wrapped, with a `RemoteTraceback` as its cause. Every class
here survives `pickle` and `copy` with its text and its attributes: a node sends some of them, and joblib passes them
on.
"""

from __future__ import annotations

import difflib
import errno
import reprlib
import resource
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

SHOWN_LOG_LINES = 20  # of a boot log in the text of an error; the error carries all of it

short_repr = reprlib.Repr(maxstring=60, maxother=60).repr
"""The `repr` of a value, never long; one that fails is left out."""


class SkywardError(Exception):
    """Base class of the errors that Skyward itself raises; `except SkywardError` never catches an exception of user
    code."""


class InvalidArgument(SkywardError, ValueError):
    """An argument is invalid; the text names the argument, the value and the fix."""

    @classmethod
    def of(cls, argument: str, value: object, problem: str, fix: str) -> Self:
        """Return an error whose text is one line: `nodes=0: must be at least 1; give the number of machines`."""
        return cls(f"{argument}={_shown(value)}: {problem}; {fix}")

    @classmethod
    def unknown(cls, owner: str, name: str, names: Sequence[str], synonyms: Mapping[str, str]) -> Self:
        """Return the error for an argument that `owner` does not have; it names the one that was probably meant.

        `synonyms` maps a name to the words that others use for it. Instead of a name it may have the text to write.
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
    """A library of one of Skyward's extras is not installed; the text says how to install it."""


class NotPortable(SkywardError, TypeError):
    """A function or an argument cannot be pickled, so it was not sent.

    `path` leads to the part that cannot be pickled, for example `args[0].conn`; it is empty if there is no single such
    part.
    """

    def __init__(self, text: str, path: str = "") -> None:
        super().__init__(text)
        self.path = path


class ProvisioningError(SkywardError):
    """The provider did not launch a machine."""


class NoCapacity(ProvisioningError):
    """The provider has no capacity for such a machine at the moment."""


class QuotaExceeded(ProvisioningError):
    """The quota of the account does not allow more of these machines."""


class Denied(ProvisioningError):
    """The credentials are missing, wrong, or not allowed to do this."""


class NodeError(SkywardError):
    """There is a machine, but no node on it.

    `log` is the output of the machine while it booted, as far as it was received. If `final` is true, another attempt
    would fail as well.
    """

    def __init__(self, text: str, log: str = "", *, final: bool = False) -> None:
        super().__init__(text)
        self.log = log
        self.final = final

    def __str__(self) -> str:
        text = super().__str__()
        if not (lines := self.log.strip().splitlines()):
            return text
        return "\n".join([text, f"--- last lines of its log ({len(lines)} in all) ---", *lines[-SHOWN_LOG_LINES:]])


class Unreachable(NodeError):
    """The machine does not answer."""


class BootFailed(NodeError):
    """The machine answers, but the node on it did not start."""


class BatchLost(SkywardError):
    """The slot or node that ran a call died in every attempt; `causes` has the cause of death of each attempt.

    `tasks` is the number of tasks that the call held: more than one for a batch of `Parallel` or a chunk of `map`.
    """

    def __init__(self, text: str, causes: Iterable[str] = (), tasks: int = 1) -> None:
        super().__init__(text)
        self.causes: tuple[str, ...] = tuple(causes)
        self.tasks = tasks

    @classmethod
    def after(cls, causes: Iterable[str], call: str = "this call", tasks: int = 1) -> Self:
        """Return the error for a call after these causes; its text lists how each attempt died."""
        ended = tuple(causes)
        times = "its only attempt" if len(ended) == 1 else f"all of its {len(ended)} attempts"
        return cls(f"the slot or node running {call} died in {times}", ended, tasks)

    def __str__(self) -> str:
        attempts = (f"  attempt {number}: {cause}" for number, cause in enumerate(self.causes, 1))
        return "\n".join([super().__str__(), *attempts, *self._advice()])

    def _advice(self) -> Iterator[str]:
        """Yield what the causes leave open: which task of several it was, and whether memory ran out."""
        if self.tasks > 1 and any("exit code" in cause or "killed by signal" in cause for cause in self.causes):
            yield (
                f"Which of the {self.tasks} tasks ended the process is not known. To see it, run them one at a time: "
                "Parallel(batch_size=1), or map(chunksize=1)."
            )
        if any(cause.endswith("(SIGKILL)") for cause in self.causes):
            smaller = ", smaller batches" if self.tasks > 1 else ""
            yield (
                "SIGKILL is sent by somebody, or by the system when memory runs out (see `dmesg`). Against that, use "
                f"fewer slots (concurrency=){smaller}, or machines with more memory."
            )


class BudgetExceeded(SkywardError):
    """Machines would cost, or have cost, more than `Options(budget=, max_hourly=)` allows; running machines are
    terminated.

    `results` has the results so far of the call that it interrupted (`Parallel`, `map`, a `TaskGroup`), by the index of
    the task. It is empty for a single `submit`, and if nothing had begun.
    """

    def __init__(self, text: str, results: Mapping[int, Any] | None = None) -> None:
        super().__init__(text)
        self.results: dict[int, Any] = dict(results or {})


class PoolFailed(SkywardError):
    """The pool itself broke, not your code and not a machine; everything that it had started was shut down."""


class RemoteError(SkywardError):
    """Replaces a remote exception that could not be sent with its own type, or that would exit the caller's program.

    `type_name` is the type that it had there, `text` its text; its traceback is the `__cause__`, as always.
    """

    def __init__(self, type_name: str, text: str = "") -> None:
        super().__init__(type_name, text)
        self.type_name = type_name
        self.text = text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


class Leaked(SkywardError):
    """Something outlived the pool and could not be terminated; the text names it, `instances` has its ids at the
    provider."""

    def __init__(self, text: str, instances: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.instances: tuple[str, ...] = tuple(instances)


class RemoteTraceback(Exception):
    """The `__cause__` of an exception from a node; `str()` of it is the traceback as it was printed there."""

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
    """Return the type and the text of an error; for a limit of the machine, also the limit and what to do."""
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
                "machine (pids.max, kernel.pid_max) may be lower; raise the limit, or use fewer slots (concurrency=)"
            )
        case errno.ENOMEM:
            return "this machine has no memory left: use fewer slots (concurrency=), or stop other programs"
        case _:
            return ""


def _limit(which: int) -> str:
    soft, _ = resource.getrlimit(which)
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
