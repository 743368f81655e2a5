"""Scenarios with data: large values that all tasks share, large results, a search by scikit-learn."""

import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import tasks
from bench.backends import BACKENDS, Pool
from bench.figures import Figures
from bench.plan import Plan

SHARED = 80_000_000
"""Bytes of the array that every task of `shared` is given."""

ARGUMENT_BYTES = 100_000_000
"""Size of the array that is an argument of every task of `array` and `memmap`."""

HELD_BYTES = 64_000_000
"""Size of the array that the function of `closure`, `variable` or `method` refers to."""

RESULT = 1 << 20
"""Bytes of each result of `results`."""


def shared(pool: Pool, plan: Plan) -> Figures:
    """Every task is given the same large array, which the pool has never seen before."""
    numpy, joblib = import_module("numpy"), import_module("joblib")
    array = numpy.random.default_rng().random(SHARED // 8)
    look = tasks.travelling(tasks.item, by_value=plan.by_value)
    began = time.perf_counter()
    answers = pool.parallel((joblib.delayed(look)(array, index) for index in range(plan.tasks)), plan.batch_size)
    elapsed = time.perf_counter() - began
    assert answers == [float(array[index]) for index in range(plan.tasks)]
    return {"elapsed_s": elapsed}


def array(pool: Pool, plan: Plan) -> Figures:
    """Every task is given the same plain array."""
    values = _values(ARGUMENT_BYTES)
    return _items(pool, plan, tasks.travelling(tasks.item, by_value=plan.by_value), (values,), values)


def memmap(pool: Pool, plan: Plan) -> Figures:
    """Every task is given the same array, mapped from a file to be read."""
    numpy = import_module("numpy")
    values = _values(ARGUMENT_BYTES)
    with tempfile.TemporaryDirectory(prefix="skyward-bench-") as folder:
        file = Path(folder) / "values"
        values.tofile(file)
        mapped = numpy.memmap(file, dtype=values.dtype, mode="r")
        return _items(pool, plan, tasks.travelling(tasks.item, by_value=plan.by_value), (mapped,), values)


def closure(pool: Pool, plan: Plan) -> Figures:
    """Every task is a closure over the same array."""
    values = _values(HELD_BYTES)
    return _items(pool, plan, tasks.travelling(tasks.closure_over(values), by_value=True), (), values)


def variable(pool: Pool, plan: Plan) -> Figures:
    """Every task reads the same array from a global variable of the user's script."""
    values = _values(HELD_BYTES)
    return _items(pool, plan, tasks.reading_global(values), (), values)


def method(pool: Pool, plan: Plan) -> Figures:
    """Every task is a method of the same object of the user's script, which holds an array."""
    values = _values(HELD_BYTES)
    return _items(pool, plan, tasks.bound_method(values), (), values)


def _values(size: int) -> Any:
    return import_module("numpy").random.default_rng().random(size // 8)


def _items(pool: Pool, plan: Plan, look: Callable[..., float], first: tuple[Any, ...], values: Any) -> Figures:
    """Measure one `Parallel` of tasks that return one item each."""
    delayed = import_module("joblib").delayed(look)
    began = time.perf_counter()
    answers = pool.parallel((delayed(*first, index) for index in range(plan.tasks)), plan.batch_size)
    elapsed = time.perf_counter() - began
    assert answers == values[: plan.tasks].tolist()
    return {"elapsed_s": elapsed}


def results(pool: Pool, plan: Plan) -> Figures:
    """Every task returns a large array."""
    joblib = import_module("joblib")
    fill = tasks.travelling(tasks.fill, by_value=plan.by_value)
    began = time.perf_counter()
    answers = pool.parallel((joblib.delayed(fill)(x, RESULT // 8) for x in range(plan.tasks)), plan.batch_size)
    elapsed = time.perf_counter() - began
    assert [float(each[-1]) for each in answers] == list(map(float, range(plan.tasks)))
    return {"elapsed_s": elapsed, "mb_per_s": plan.tasks * RESULT / 1e6 / elapsed}


def search(_pool: Pool, plan: Plan) -> Figures:
    """Scikit-learn's randomized search over support vector machines on its digits, through joblib's configuration."""
    joblib, numpy = import_module("joblib"), import_module("numpy")
    inputs, labels = import_module("sklearn.datasets").load_digits(return_X_y=True)
    choices = {"C": numpy.logspace(-1, 2, 20), "gamma": numpy.logspace(-4, -2, 20)}
    machine: Any = import_module("sklearn.svm").SVC()
    search: Any = import_module("sklearn.model_selection").RandomizedSearchCV
    found = search(machine, choices, n_iter=plan.tasks, cv=3, random_state=0)
    with joblib.parallel_config(backend=plan.backend, n_jobs=plan.shape.slots):
        began = time.perf_counter()
        found.fit(inputs[:600], labels[:600])
        elapsed = time.perf_counter() - began
    assert found.best_score_ > 0.9
    return {"elapsed_s": elapsed}


def first_search(plan: Plan) -> Figures:
    """Time scikit-learn's grid search on workers that have not run or imported anything: the first one, and a second.

    Starting a pool is not in it, except where the first call does that.
    """
    inputs, labels = import_module("sklearn.datasets").load_digits(return_X_y=True)
    machine: Any = import_module("sklearn.svm").SVC()
    search: Any = import_module("sklearn.model_selection").GridSearchCV
    seconds: list[float] = []
    with (
        BACKENDS[plan.backend].open(plan),
        import_module("joblib").parallel_config(backend=plan.backend, n_jobs=plan.shape.slots),
    ):
        for _ in range(2):
            found = search(machine, {"C": [1.0, 10.0], "gamma": [0.001]}, cv=plan.tasks)
            began = time.perf_counter()
            found.fit(inputs[:300], labels[:300])
            seconds.append(time.perf_counter() - began)
            assert found.best_score_ > 0.9
    return {"first_s": seconds[0], "second_s": seconds[1]}
