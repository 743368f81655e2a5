"""`mmap_mode=` and `max_nbytes=` of joblib: what tasks may do with large arrays, with loky as the reference."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from joblib import Parallel, delayed, parallel_config

import skyward as sky
from skyward.actors.driver import Driver
from tests.kit import Apart

LARGE = np.zeros(1 << 18)
SMALL = np.zeros(8)


@pytest.fixture(params=[sky.Local, Apart], ids=["shared memory", "chunks"], scope="module", autouse=True)
def compute(request: pytest.FixtureRequest) -> Iterator[sky.Compute]:
    worker = sky.Worker(concurrency=2)
    with sky.Compute(provider=request.param(), nodes=2, worker=worker, plugins=[sky.plugins.joblib()]) as compute:
        yield compute


def add(array: Any) -> tuple[bool, float]:
    """Say whether an array can be written, and what is in it once one was added."""
    if array.flags.writeable:
        array.flat[0] += 1
    return array.flags.writeable, float(array.flat[0])


READ, OWN = (False, 0.0), (True, 1.0)
CASES: list[tuple[dict[str, Any], Any, tuple[bool, float]]] = [
    ({}, LARGE, READ),
    ({"mmap_mode": "r"}, LARGE, READ),
    ({"mmap_mode": "c"}, LARGE, OWN),
    ({"max_nbytes": None}, LARGE, OWN),
    ({"max_nbytes": None, "mmap_mode": "r+"}, LARGE, OWN),
    ({"max_nbytes": "8M"}, LARGE, OWN),
    ({"max_nbytes": 10}, SMALL, READ),
    ({"max_nbytes": 10, "mmap_mode": "c"}, SMALL, OWN),
    ({}, SMALL, OWN),
    ({"mmap_mode": "r+"}, SMALL, OWN),
]


@pytest.mark.parametrize(("how", "array", "found"), CASES, ids=lambda each: str(each)[:12])
def test_tasks_may_write_as_in_loky(how: dict[str, Any], array: Any, found: tuple[bool, float]) -> None:
    assert Parallel(n_jobs=2, **how)(delayed(add)(array) for _ in range(3)) == [found] * 3
    assert not array.any()


@pytest.mark.parametrize(("how", "found"), [({"mmap_mode": "c"}, OWN), ({"max_nbytes": "8M"}, OWN)])
def test_so_they_may_where_it_is_configured(how: dict[str, Any], found: tuple[bool, float]) -> None:
    with parallel_config(**how):
        assert Parallel(n_jobs=2)(delayed(add)(LARGE) for _ in range(3)) == [found] * 3


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("compute", [sky.Local], indirect=True)
@pytest.mark.parametrize(
    ("how", "array", "found"), [CASES[0], CASES[2], CASES[4], CASES[8]], ids=lambda each: str(each)[:12]
)
def test_that_is_what_loky_does(how: dict[str, Any], array: Any, found: tuple[bool, float]) -> None:
    assert Parallel(n_jobs=2, backend="loky", **how)(delayed(add)(array) for _ in range(3)) == [found] * 3


def test_without_a_mode_each_task_has_its_own() -> None:
    assert Parallel(n_jobs=2, mmap_mode=None)(delayed(add)(LARGE) for _ in range(3)) == [OWN] * 3


@pytest.mark.parametrize("mode", ["r+", "w+"])
@pytest.mark.parametrize("wrap", [np.asarray, np.ma.array, np.flip], ids=["plain", "masked", "backwards"])
def test_tasks_write_into_one_copy(mode: str, wrap: Any) -> None:
    large = wrap(LARGE.copy())
    one_by_one = Parallel(n_jobs=2, mmap_mode=mode, pre_dispatch=1, batch_size=1)
    found = one_by_one(delayed(add)(large) for _ in range(5))

    assert found == [(True, float(number)) for number in range(1, 6)]
    assert not large.any()
    assert Parallel(n_jobs=2, mmap_mode=mode)(delayed(add)(large) for _ in range(1)) == [OWN]


def test_arrays_that_nobody_else_holds_are_written_as_well() -> None:
    made = (delayed(add)(np.full(1 << 18, float(number))) for number in range(20))

    assert Parallel(n_jobs=2, mmap_mode="r+")(made) == [(True, number + 1.0) for number in range(20)]


def test_one_copy_for_tasks_on_other_machines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "reaches", lambda driver, token: False)

    with pytest.raises(
        sky.NotPortable, match=r'args\[0\] .* mmap_mode="r\+" .* other machines cannot share. Use .*"c"'
    ):
        Parallel(n_jobs=2, mmap_mode="r+")(delayed(add)(LARGE) for _ in range(3))


def test_a_mode_that_joblib_does_not_have_is_refused() -> None:
    with pytest.raises(sky.InvalidArgument, match="mmap_mode='x'"):
        Parallel(n_jobs=2, mmap_mode="x")(delayed(add)(LARGE) for _ in range(3))


def test_a_keyword_that_the_backend_does_not_know_is_a_warning() -> None:
    with pytest.warns(UserWarning, match="does not know initializer="):
        Parallel(n_jobs=2, initializer=print)(delayed(add)(SMALL) for _ in range(2))
    with (
        parallel_config(backend="skyward", scatter=[1]),
        pytest.warns(UserWarning, match="does not know scatter=, speed="),
    ):
        Parallel(n_jobs=2, speed=1)(delayed(add)(SMALL) for _ in range(2))


def test_what_joblib_itself_gives_is_no_warning(tmp_path: Any) -> None:
    found = Parallel(n_jobs=2, temp_folder=str(tmp_path), prefer="processes")(delayed(add)(LARGE) for _ in range(2))

    assert found == [READ] * 2
    assert not list(tmp_path.iterdir())
