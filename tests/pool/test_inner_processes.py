"""Processes that a task of a script starts: they run the functions and classes of the script."""

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from joblib import Parallel, delayed

import skyward as sky
from tests.kit import SOON
from tests.slot import run_as_main

SCRIPT = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from joblib import Parallel, delayed

FORK = multiprocessing.get_context("fork")
FACTOR = 3
shared = None

class Point:
    def __init__(self, x):
        self.x = x
    def times(self, factor):
        return Point(self.x * factor)

class Scaled(Exception): ...

def scale(x):
    return x * FACTOR

def scale_point(point):
    return point.times(FACTOR)

def prepare(value):
    global shared
    shared = value

def with_shared(x):
    return shared + x

def fail(x):
    raise Scaled(x)

def joblib_multiprocessing(fn, values):
    return Parallel(n_jobs=2, backend="multiprocessing")(delayed(fn)(x) for x in values)

def joblib_loky(fn, values):
    return Parallel(n_jobs=2, backend="loky")(delayed(fn)(x) for x in values)

def pool(fn, values):
    with FORK.Pool(2) as pool:
        return pool.map(fn, values)

def executor(fn, values):
    with ProcessPoolExecutor(2, mp_context=FORK) as executor:
        return list(executor.map(fn, values))

def process(fn, values):
    queue = FORK.SimpleQueue()
    child = FORK.Process(target=lambda: queue.put([fn(x) for x in values]))
    child.start()
    found = queue.get()
    child.join()
    return found

def initialized(values):
    with FORK.Pool(1, initializer=prepare, initargs=(10,)) as pool:
        return pool.map(with_shared, values)

def failing(values):
    with FORK.Pool(1) as pool:
        try:
            pool.map(fail, values)
        except Scaled as error:
            return error.args

class Outer:
    class Inner:
        class Innermost:
            pass
        def __init__(self, x):
            self.x = x

Inner, Innermost = Outer.Inner, Outer.Inner.Innermost

def again(*values):
    import pickle
    return pickle.loads(pickle.dumps(values))

def again_by_name(x):
    function, point = again(scale, Point(x))
    return function is scale, type(point) is Point, point.x

def again_inside(x):
    inner, innermost = again(Inner(x), Innermost())
    return type(inner) is Inner, type(innermost) is Innermost, inner.x

def again_with_outer(x):
    inner, outer, innermost = again(Inner(x), Outer(), Innermost)
    return type(inner) is Outer.Inner, type(outer) is Outer, innermost is Outer.Inner.Innermost

def points(run, values):
    return [point.x for point in run(scale_point, [Point(x) for x in values])]
"""

KINDS = ["joblib_multiprocessing", "joblib_loky", "pool", "executor", "process"]


@pytest.fixture(scope="module")
def compute() -> Iterator[sky.Compute]:
    with sky.Compute(worker=sky.Worker(concurrency=1), plugins=[sky.plugins.joblib()]) as compute:
        yield compute


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Any:
    return run_as_main(monkeypatch, SCRIPT)


@pytest.mark.parametrize("kind", KINDS)
def test_processes_of_a_task_run_functions_of_the_script(compute: sky.Compute, main: Any, kind: str) -> None:
    run = getattr(main, kind)

    assert compute.submit(run, main.scale, [1, 2, 3]).result(SOON) == [3, 6, 9]
    assert list(compute.map(run, [main.scale] * 2, [[1], [2]])) == [[3], [6]]
    assert Parallel(n_jobs=2)(delayed(run)(main.scale, [x]) for x in range(2)) == [[0], [3]]


@pytest.mark.parametrize("kind", KINDS)
def test_processes_of_a_task_take_objects_of_the_script(compute: sky.Compute, main: Any, kind: str) -> None:
    run = getattr(main, kind)

    assert compute.submit(main.points, run, [1, 2]).result(SOON) == [3, 6]
    assert list(compute.map(main.points, [run] * 2, [[1], [2]])) == [[3], [6]]


def test_what_an_initializer_sets_the_functions_find(compute: sky.Compute, main: Any) -> None:
    assert compute.submit(main.initialized, [1, 2]).result(SOON) == [11, 12]
    assert main.shared is None


def test_an_error_of_the_script_is_itself_in_the_task(compute: sky.Compute, main: Any) -> None:
    assert compute.submit(main.failing, [7]).result(SOON) == (7,)


def test_main_is_that_of_the_batch_only(compute: sky.Compute, main: Any) -> None:
    compute.submit(main.pool, main.scale, [1]).result(SOON)
    assert compute.submit(names_in_main).result(SOON) == []


def names_in_main() -> list[str]:
    import __main__

    return [name for name in vars(__main__) if not name.startswith("__")]


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_a_task_pickles_what_its_script_defines(executor: Literal["process", "thread"], main: Any) -> None:
    with sky.Compute(worker=sky.Worker(concurrency=2, executor=executor)) as compute:
        calls = [(main.again_by_name, number) for number in range(4)] + [(main.again_inside, 5)]
        found = [future.result(SOON) for future in [compute.submit(fn, x) for fn, x in calls]]
        assert found == [*((True, True, number) for number in range(4)), (True, True, 5)]
        assert compute.submit(main.again_with_outer, 1).result(SOON) == (True, True, True)
        assert compute.submit(names_in_main).result(SOON) == []
