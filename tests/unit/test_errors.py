import copy
import errno
import os
import pickle
import resource
import subprocess
import sys
import traceback

import cloudpickle
import pytest

from skyward import errors
from skyward.errors import (
    BatchLost,
    BootFailed,
    InvalidArgument,
    Leaked,
    MissingExtra,
    NoCompute,
    NodeError,
    NotPortable,
    PoolFailed,
    ProvisioningError,
    RemoteError,
    RemoteTraceback,
    SkywardError,
    explain,
)

ALL = [getattr(errors, name) for name in errors.__all__]
SAMPLES: list[Exception] = [
    *(kind("it broke") for kind in ALL),
    InvalidArgument.of("nodes", 0, "must be at least 1", "give more"),
    NoCompute(),
    MissingExtra("joblib is not installed", name="joblib"),
    NotPortable("no", "args[0].conn"),
    NodeError("no", log="line 1\nline 2"),
    BootFailed("no", log="line 1\nline 2"),
    BatchLost.after(["killed", "node lost"], tasks=3),
    RemoteError("lib.Strange", "it broke"),
    Leaked("left: i-1, i-2", ["i-1", "i-2"]),
]


def facts(error: BaseException) -> tuple[object, ...]:
    return type(error), str(error), error.args, vars(error)


@pytest.mark.parametrize("error", SAMPLES, ids=repr)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickle(error: Exception, protocol: int) -> None:
    assert facts(pickle.loads(pickle.dumps(error, protocol))) == facts(error)


@pytest.mark.parametrize("error", SAMPLES, ids=repr)
def test_an_error_survives_cloudpickle_and_copy(error: Exception) -> None:
    assert facts(pickle.loads(cloudpickle.dumps(error))) == facts(error)
    assert facts(copy.deepcopy(error)) == facts(copy.copy(error)) == facts(error)


def test_a_note_travels_with_its_error() -> None:
    error = BatchLost.after(["killed"])
    error.add_note("on node 3")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["on node 3"]


def test_every_error_is_listed() -> None:
    defined = {
        name for name, found in vars(errors).items() if isinstance(found, type) and found.__module__ == errors.__name__
    }
    assert defined == set(errors.__all__)


def test_the_tree_of_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    parents: list[str] = []
    drawn = {}
    for line in errors.__doc__.splitlines():
        head, dash, rest = line.partition("── ")
        if not dash and line != "SkywardError":
            continue
        depth = 1 + head.count("│") if dash else 0
        name = rest.split()[0] if dash else line
        parents[depth:] = [name]
        drawn[name] = parents[depth - 1] if depth else "Exception"
    real = {kind.__name__: kind.__bases__[0].__name__ for kind in ALL if issubclass(kind, SkywardError)}
    assert drawn == real


@pytest.mark.parametrize(
    ("kind", "standard"),
    [(InvalidArgument, ValueError), (NoCompute, RuntimeError), (MissingExtra, ImportError), (NotPortable, TypeError)],
)
def test_an_error_that_python_has_a_name_for_is_caught_by_it(kind: type[Exception], standard: type[Exception]) -> None:
    assert issubclass(kind, standard)
    assert issubclass(kind, SkywardError)


def test_what_came_home_is_not_one_of_our_errors() -> None:
    assert not issubclass(RemoteTraceback, SkywardError)


def test_an_invalid_argument_says_name_value_problem_and_fix() -> None:
    error = InvalidArgument.of("nodes", 0, "must be at least 1", "give the number of machines")
    assert str(error) == "nodes=0: must be at least 1; give the number of machines"


def test_a_long_value_is_cut() -> None:
    assert len(str(InvalidArgument.of("x", ["word" * 50] * 100, "no", "yes"))) < 150


def test_a_value_on_many_lines_is_shown_on_one() -> None:
    class Table:
        def __repr__(self) -> str:
            return "a\n   b"

    assert str(InvalidArgument.of("x", Table(), "no", "yes")) == "x=a b: no; yes"


def test_a_value_without_a_repr_is_shown_by_its_type() -> None:
    class Broken(dict[str, int]):
        def __len__(self) -> int:
            raise RuntimeError

    Broken.__name__ = "dict"  # as reprlib tells containers apart
    assert str(InvalidArgument.of("x", Broken(), "no", "yes")) == "x=<dict>: no; yes"


def test_no_compute_says_what_to_do() -> None:
    assert "with sky.Compute(...)" in str(NoCompute())
    assert str(NoCompute("square.remote needs a pool")) == "square.remote needs a pool"


def test_not_portable_carries_the_path() -> None:
    assert NotPortable("no", "args[0].conn").path == "args[0].conn"
    assert NotPortable("no").path == ""


def test_a_lost_batch_says_how_each_attempt_died() -> None:
    error = BatchLost.after(["exit code 1", "node 2 lost"])
    assert error.causes == ("exit code 1", "node 2 lost")
    assert str(error).splitlines() == [
        "the slot or node running this call died in all of its 2 attempts",
        "  attempt 1: exit code 1",
        "  attempt 2: node 2 lost",
    ]


def test_a_batch_that_was_tried_once_says_so() -> None:
    assert str(BatchLost.after(["gone"])).startswith("the slot or node running this call died in its only attempt\n")


def test_of_a_lost_batch_it_is_told_what_is_not_known() -> None:
    which = "Which of the 4 tasks ended the process is not known."
    killed = BatchLost.after(["killed by signal 9 (SIGKILL)", "node 2 lost"], "tasks 0 to 3 (the first is f(0))", 4)
    first, *_, unknown, memory = str(killed).splitlines()
    assert first == "the slot or node running tasks 0 to 3 (the first is f(0)) died in all of its 2 attempts"
    assert (killed.tasks, unknown.startswith(which)) == (4, True)
    assert "memory runs out (see `dmesg`). Against that, use fewer slots (concurrency=), smaller batches, or" in memory
    assert which in str(BatchLost.after(["slot 0 of node 0: exit code 3"], tasks=4))
    assert which not in str(BatchLost.after(["node 2 lost"], tasks=4))

    assert "(concurrency=), or machines with" in str(BatchLost.after(["killed by signal 9 (SIGKILL)"]))
    told = "killed by signal 9 (SIGKILL) by the kernel, out of memory: it had 300 MiB; use fewer slots"
    for cause in (told, "exit code 3", "killed by signal 11 (SIGSEGV)"):
        assert str(BatchLost.after([cause])).splitlines()[1:] == [f"  attempt 1: {cause}"]


def test_a_failed_boot_shows_the_end_of_its_log_and_carries_all_of_it() -> None:
    log = "\n".join(f"line {number}" for number in range(100))
    error = BootFailed("node 3 did not start", log=log)
    shown = str(error).splitlines()
    assert shown[:2] == ["node 3 did not start", "--- last lines of its log (100 in all) ---"]
    assert (shown[2], shown[-1], error.log) == ("line 80", "line 99", log)


def test_a_failed_boot_without_a_log_is_its_text() -> None:
    assert str(BootFailed("node 3 did not start", log=" \n")) == "node 3 did not start"


def test_a_remote_error_shows_the_type_it_had() -> None:
    error = RemoteError("lib.Strange", "it broke")
    assert (str(error), error.type_name, error.text) == ("lib.Strange: it broke", "lib.Strange", "it broke")
    assert str(RemoteError("lib.Strange")) == "lib.Strange"


def test_a_leak_names_the_instances() -> None:
    assert Leaked("left: i-1", ["i-1"]).instances == ("i-1",)


def test_a_remote_traceback_is_printed_above_the_error() -> None:
    error = ValueError("bad")
    error.__cause__ = RemoteTraceback('Traceback (most recent call last):\n  File "task.py", line 3, in task\n')
    printed = "".join(traceback.format_exception(error))
    assert str(error.__cause__) in printed
    assert printed.endswith("ValueError: bad\n")


def test_provisioning_errors_and_node_errors_are_apart() -> None:
    assert not issubclass(NodeError, ProvisioningError)
    assert not issubclass(PoolFailed, NodeError)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EMFILE, "raise `ulimit -n`"),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "for /scratch is full"),
        (errno.EAGAIN, "`ulimit -u` is "),
        (errno.ENOMEM, "fewer slots"),
    ],
)
def test_an_error_of_the_operating_system_is_explained_with_what_to_do(number: int, advice: str) -> None:
    text = explain(OSError(number, os.strerror(number), "/scratch"))
    assert f"[Errno {number}] {os.strerror(number)}" in text
    assert advice in text


def test_other_errors_are_explained_by_their_type_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert explain(ValueError("bad")) == "ValueError: bad"
    assert explain(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert explain(OSError(errno.EPERM, "no")) == "PermissionError: [Errno 1] no"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert "may have unlimited files open" in explain(OSError(errno.EMFILE, "no"))
    assert "the disk or the quota is full" in explain(OSError(errno.ENOSPC, "no"))


def test_importing_errors_loads_the_standard_library_only() -> None:
    program = (
        "import sys, skyward.errors;"
        "names = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - {'skyward'};"
        "sys.exit(bool(names & {'casty', 'cloudpickle', 'pydantic', 'cryptography', 'joblib'}))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
