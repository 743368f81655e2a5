"""A plugin for pytest that has joblib's own tests run on a pool: `make conformance`.

joblib's tests are parametrised over backends. This adds ours to every list that names a process backend, keeps the
cases that have it, and drops those of `NOT_OURS`. The pool is the same for all: 2 nodes with 2 slots each.
"""

import fnmatch
import threading
from dataclasses import replace

import pytest

import skyward as sky
from skyward.plugins.joblib_backend import SkywardBackend
from skyward.plugins.joblib_names import SHARED_MEMORY, Names
from skyward.plugins.joblib_node import BACKEND_NAME

SUITE = "joblib.test.test_parallel"
BACKENDS = {"backend", "outer_backend", "inner_backend"}

IN_ANOTHER = "names our backend in a worker process of another one, which has no pool"
NOT_OURS = {
    "test_initializer_*": "initializer= is how loky starts its processes; ours are there before the call",
    "test_auto_memmap_on_arrays_from_generator*": "asks for loky's own memory maps, by their type",
    "test_memmapping_leaks*": "looks for loky's memory maps in temp_folder=",
    "test_error_capture*": "compares loky's executors before and after an error, by attributes of theirs",
    "test_parallel_with_interactively_defined_functions*": "names a backend in a new process, outside any pool",
    "test_parallel_with_unpicklable_functions_in_args*": "names a backend in a new process, outside any pool",
    "test_nested_loop[[]loky-skyward]": IN_ANOTHER,
    "test_nested_loop[[]multiprocessing-skyward]": IN_ANOTHER,
    "test_nested_loop[[]back_compat_backend-skyward]": IN_ANOTHER,
    "test_backend_nesting_level[[]*-skyward-loky]": IN_ANOTHER,
    "test_backend_nesting_level[[]*-skyward-multiprocessing]": IN_ANOTHER,
}
"""Cases that are dropped, by pattern, and why."""

FAILING = {
    "test_dispatch_multiprocessing[[]skyward]": "passes a proxy of a multiprocessing.Manager, which admits only the "
    "children of the process that made it",
}
"""Cases that fail, by pattern, and why."""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Open the pool before joblib's module is imported, which reads the table of backends. It is not the default there.

    What `parallel_config` sets holds in the thread that set it: not in the one that runs the tests.
    """
    image = sky.Image(preload=[SUITE])
    compute = sky.Compute(nodes=2, worker=sky.Worker(concurrency=2), image=image, plugins=[sky.plugins.joblib()])
    outside = Names.now()
    opening = threading.Thread(target=compute.__enter__)
    opening.start()
    opening.join()
    replace(outside, backends={SHARED_MEMORY: None}).set()  # nor is its name for threads one to test
    session.config.add_cleanup(lambda: compute.__exit__(None, None, None))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Add our name where a list of backends has one that runs tasks in other processes."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        names, values = mark.args[:2]
        if names in BACKENDS and isinstance(values, list) and {"loky", "threading"} & {*map(str, values)}:
            if BACKEND_NAME not in values:
                values.append(BACKEND_NAME)
        elif names == "backend, error":
            values[:] = [*(each for each in values if each[0] != BACKEND_NAME), (BACKEND_NAME, False)]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the cases with our backend that are ours to pass."""
    with_it = [item for item in items if _has_it(item)]
    patterns = {*NOT_OURS, *FAILING}
    if len(items) > 500 and (idle := {each for each in patterns if not fnmatch.filter(map(_name, with_it), each)}):
        raise pytest.UsageError(f"joblib has no such tests: {sorted(idle)}")
    kept = [item for item in with_it if not _reason(item, NOT_OURS)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    for item in kept:
        if reason := _reason(item, FAILING):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    items[:] = kept


def _has_it(item: pytest.Item) -> bool:
    values = getattr(item, "callspec", None) and item.callspec.params.values()  # type: ignore[attr-defined]
    return any(each == BACKEND_NAME or isinstance(each, SkywardBackend) for each in values or ())


def _name(item: pytest.Item) -> str:
    return item.name


def _reason(item: pytest.Item, table: dict[str, str]) -> str | None:
    return next((reason for pattern, reason in table.items() if fnmatch.fnmatch(item.name, pattern)), None)
