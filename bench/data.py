"""Scenarios with data: an array that all tasks share, large results, a search by scikit-learn."""

import time
from importlib import import_module
from typing import Any

from bench import tasks
from bench.backends import Pool
from bench.figures import Figures
from bench.plan import Plan

SHARED = 80_000_000
"""Bytes of the array that every task of `shared` is given."""

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
