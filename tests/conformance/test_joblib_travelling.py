"""What travels with a call of Parallel, what cannot, and that it is said which and why; never a hang."""

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import pytest
from joblib import Parallel, delayed

import skyward as sky
from tests import joblib_work, work
from tests.kit import SOON, Bell, until

pytestmark = pytest.mark.usefixtures("compute")


@pytest.fixture(scope="module")
def compute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sky.Compute]:
    """A pool whose nodes do not find what is put on the path here later."""
    with sky.Compute(nodes=1, worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]) as compute:
        yield compute


@pytest.fixture
def gift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package that is installed here, and on no node."""
    (tmp_path / "only_here.py").write_text("class OddWarning(UserWarning): ...\ndef double(x): return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("only_here")
    del sys.modules["only_here"]


def refused(*tasks: Any) -> sky.NotPortable:
    with pytest.raises(sky.NotPortable) as caught:
        Parallel(n_jobs=2, batch_size=1)(tasks)
    return caught.value


# ---------------------------------------------------------------- what cannot


def test_an_argument_that_cannot_be_pickled_is_named_with_its_task() -> None:
    error = refused(delayed(joblib_work.accept)(1), delayed(joblib_work.accept)(2, client=work.Box()))

    assert error.path == 'kwargs["client"]._lock'
    assert str(error).startswith('task 1 (accept) cannot be sent to a node: kwargs["client"]._lock (')


def test_a_batch_names_the_task_in_it() -> None:
    tasks = [
        delayed(joblib_work.accept)(x) if x != 7 else delayed(joblib_work.accept)(x, [work.Box()]) for x in range(20)
    ]
    with pytest.raises(sky.NotPortable, match=r"^task 7 \(accept\) cannot .* args\[1\]\[0\]\._lock") as caught:
        Parallel(n_jobs=2, batch_size=5)(tasks)

    assert caught.value.path == "args[1][0]._lock"


def test_a_late_argument_that_cannot_be_pickled_is_an_error_and_not_a_hang() -> None:
    tasks = (delayed(joblib_work.accept)(x if x < 60 else threading.Lock()) for x in range(99))
    with pytest.raises(sky.NotPortable, match=r"task 60 \(accept\) .* args\[0\] \(_thread.lock\)"):
        Parallel(n_jobs=2, batch_size=1)(tasks)


def test_a_function_that_cannot_be_pickled_is_named_with_what_it_holds() -> None:
    lock = threading.Lock()
    error = refused(delayed(lambda: lock)())

    assert error.path == "fn: closure variable 'lock'"
    assert str(error).startswith("task 0 (<lambda>) cannot be sent to a node: fn: closure variable 'lock' (")


def test_a_result_that_is_nested_too_deeply_is_named_with_its_task() -> None:
    tasks = [delayed(joblib_work.nested)(depth) for depth in (1, 20_000, 1)]
    with pytest.raises(sky.NotPortable) as caught:
        Parallel(n_jobs=2, batch_size=3)(tasks)

    assert caught.value.path == 'result["tree"]'
    assert str(caught.value) == (
        'the result of task 1 (nested) cannot be pickled: result["tree"] is nested too deeply. Return it flat.'
    )


def test_an_argument_that_is_nested_too_deeply_is_named_with_its_task() -> None:
    deep = joblib_work.nested(20_000)
    error = refused(delayed(joblib_work.accept)(1), delayed(joblib_work.accept)(2, deep))

    assert error.path == 'args[1]["tree"]'
    assert str(error).startswith('task 1 (accept) cannot be sent to a node: args[1]["tree"] is nested too deeply')


def test_a_module_on_a_path_that_was_added_in_the_block_is_named_with_that_path(gift: Any, tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        Parallel(n_jobs=2)(delayed(gift.double)(x) for x in range(4))

    assert any(f"finds 'only_here' in {str(tmp_path)!r}" in note for note in caught.value.__notes__)


def test_a_result_that_cannot_be_pickled_is_named_with_its_task() -> None:
    error = refused(delayed(work.square)(1), delayed(work.boxed)())

    assert error.path == 'result[1]["box"]._lock'
    assert str(error).startswith('the result of task 1 (boxed) cannot be pickled: result[1]["box"]._lock: ')


def test_an_exception_that_cannot_be_pickled_comes_as_far_as_it_can() -> None:
    with pytest.raises(work.BoxedError, match="the box is open") as caught:
        Parallel(n_jobs=2, batch_size=1)([delayed(work.square)(1), delayed(work.raise_boxed)()])

    raised_by, lost, _ = caught.value.__notes__
    assert raised_by == "It was raised by task 1, raise_boxed()."
    assert lost.startswith("exception.box._lock cannot be pickled")
    assert "work.py" in str(caught.value.__cause__)


def test_an_exception_that_takes_no_attribute_is_an_error_and_not_a_hang() -> None:
    with pytest.raises(sky.RemoteError, match=r"^tests\.work\.FrozenError: 7$") as caught:
        Parallel(n_jobs=2, batch_size=1)([delayed(work.square)(1), delayed(work.raise_frozen)()])

    assert caught.value.__cause__ == work.FrozenError(7)


def test_an_exception_names_the_task_that_raised_it() -> None:
    with pytest.raises(LookupError) as caught:
        Parallel(n_jobs=2, batch_size=4)([*[delayed(work.square)(x) for x in range(9)], delayed(work.fail)("no")])

    assert caught.value.args == ("no",)
    assert caught.value.__notes__[0] == "It was raised by task 9, fail('no')."


def test_a_module_that_a_node_lacks_is_named_with_the_node_and_what_to_do(gift: Any) -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        Parallel(n_jobs=2)(delayed(gift.double)(x) for x in range(4))

    assert caught.value.name == "only_here"
    text = str(caught.value)
    assert "Node 0" in text
    assert "no module 'only_here'" in text
    assert 'sky.Image(packages=["only_here"])' in text
    assert "cloudpickle.register_pickle_by_value(only_here)" in text


def test_a_module_that_a_task_itself_misses_is_named_with_the_node_and_what_to_do() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere_at_all'") as caught:
        Parallel(n_jobs=2)(delayed(__import__)("nowhere_at_all") for _ in range(2))

    assert any("Node 0" in note and "sky.Image(packages=" in note for note in caught.value.__notes__)


def test_an_import_error_for_another_reason_is_left_as_it_is() -> None:
    with pytest.raises(ImportError) as caught:
        Parallel(n_jobs=2)([delayed(joblib_work.from_os)(), delayed(work.square)(1)])

    raised_by, where = caught.value.__notes__
    assert raised_by == "It was raised by task 0, from_os()."
    assert where.startswith("That was on node ")


def test_joblibs_lock_is_free_while_an_argument_is_pickled_but_for_the_first_when_nobody_else_wants_it() -> None:
    call = Parallel(n_jobs=2, batch_size=1, pre_dispatch="all")
    asked = Asking(call)

    with Bell() as bell, futures.ThreadPoolExecutor(1) as other:
        ended = other.submit(call, (delayed(work.ring_with)(bell.port, asked) for _ in range(6)))
        until(lambda: len(asked.answers) == 6)  # before any of them ends
        for _ in range(6):
            bell.answer().release()
        assert ended.result(SOON) == [b"on"] * 6
    assert asked.answers == [False] + [True] * 5


class Asking:
    """Asks as it is pickled whether a lock is free for another thread."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.answers: list[bool] = []

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        with futures.ThreadPoolExecutor(1) as other:
            self.answers.append(other.submit(self.take).result(60))
        return int, (0,)

    def take(self) -> bool:
        if taken := self.call._lock.acquire(timeout=2):
            self.call._lock.release()
        return bool(taken)


# ---------------------------------------------------------------- warnings


def test_a_filter_for_a_category_that_a_node_lacks_matches_nothing_there(gift: Any) -> None:
    filters = [("error", gift.OddWarning), ("ignore", Warning)]
    with warnings.catch_warnings():
        for action, kind in reversed(filters):
            warnings.simplefilter(action, kind)
        before = list(warnings.filters)
        found = Parallel(n_jobs=2)(delayed(joblib_work.warned_under)(filters) for _ in range(2))
        assert warnings.filters == before

    assert found == [[("error", "only_here.OddWarning"), ("ignore", "builtins.Warning")]] * 2


def test_a_category_that_a_node_has_is_itself() -> None:
    kinds = [DeprecationWarning, work.OldWarning, UserWarning]

    assert Parallel(n_jobs=2)(delayed(joblib_work.mine)(kinds) for _ in range(2)) == [[False, True, False]] * 2


def test_a_category_of_ones_own_travels_by_value() -> None:
    class MyWarning(UserWarning): ...

    assert Parallel(n_jobs=2)(delayed(lambda: MyWarning.__mro__[1].__name__)() for _ in range(2)) == ["UserWarning"] * 2


# ---------------------------------------------------------------- what can


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(joblib_work.Multiplier(3).times, id="a bound method"),
        pytest.param(joblib_work.Multiplier(3), id="an object"),
        pytest.param(partial(joblib_work.Multiplier.times, joblib_work.Multiplier(3)), id="a partial"),
        pytest.param(lambda x: 3 * x, id="a lambda"),
        pytest.param(joblib_work.closure(3), id="a closure"),
        pytest.param((3).__mul__, id="a method of C"),
    ],
)
def test_any_callable_travels(function: Callable[[int], int]) -> None:
    assert Parallel(n_jobs=2)(delayed(function)(x) for x in range(5)) == [0, 3, 6, 9, 12]


MAIN = """
import skyward as sky
from joblib import Parallel, delayed

class Point:
    def __init__(self, x): self.x = x

factor = 3

def scale(point): return Point(factor * point.x)

if __name__ == "__main__":
    with sky.Compute(worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]):
        print([point.x for point in Parallel(n_jobs=2)(delayed(scale)(Point(x)) for x in range(3))])
        factor = 5
        print([point.x for point in Parallel(n_jobs=2)(delayed(scale)(Point(x)) for x in range(3))])
"""


def test_functions_and_classes_of_main_travel_as_they_are_when_the_call_begins(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(MAIN)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    ran = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        capture_output=True,
        text=True,
        timeout=SOON,
        check=True,
        env=environment,
    )

    assert ran.stdout == "[0, 3, 6]\n[0, 5, 10]\n"


def test_memory_works_inside_tasks_and_for_tasks(tmp_path: Path) -> None:
    memory = joblib.Memory(tmp_path, verbose=0)
    noted = memory.cache(joblib_work.note_square)
    for _ in range(2):
        assert Parallel(n_jobs=2)(delayed(noted)(tmp_path / "lines", x) for x in range(3)) == [0, 1, 4]
        assert Parallel(n_jobs=2)(delayed(joblib_work.cached)(tmp_path, x) for x in range(3, 5)) == [9, 16]

    assert sorted((tmp_path / "lines").read_text().split()) == ["0", "1", "2", "3", "4"]
