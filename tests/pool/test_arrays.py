"""What tasks on nodes compute with is what was handed over: memory maps, subclasses and types of arrays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib import Parallel, delayed, dump, load

import skyward as sky
from skyward.actors.driver import Driver
from skyward.remote.serialization import read_only
from tests import kit
from tests.kit import Apart
from tests.unit.test_arrays import KINDS, told


@pytest.fixture(params=[sky.Local, Apart], ids=["shared memory", "chunks"], scope="module")
def compute(request: pytest.FixtureRequest) -> Iterator[sky.Compute]:
    plugins = [sky.plugins.joblib()]
    with sky.Compute(provider=request.param(), nodes=2, worker=sky.Worker(concurrency=2), plugins=plugins) as compute:
        yield compute


def fill(out: Any, index: int) -> None:
    out[index] = index + 1


def test_tasks_fill_a_memory_map(compute: sky.Compute, tmp_path: Path) -> None:
    out = np.memmap(tmp_path / "out", "i8", "w+", shape=(40, 3))
    Parallel(n_jobs=-1)(delayed(fill)(out, index) for index in range(40))

    assert out.tolist() == [[index + 1] * 3 for index in range(40)]


def test_tasks_fill_what_joblib_has_loaded(compute: sky.Compute, tmp_path: Path) -> None:
    dump(np.zeros(40), tmp_path / "out")
    out = load(tmp_path / "out", mmap_mode="r+")
    Parallel(n_jobs=-1)(delayed(fill)(out[::-1], index) for index in range(40))

    assert out.tolist() == list(range(40, 0, -1))


def test_a_memory_map_that_is_read_cannot_be_written(compute: sky.Compute, tmp_path: Path) -> None:
    np.ones(1 << 18).tofile(tmp_path / "data")
    array = np.memmap(tmp_path / "data", "f8", "r")

    with pytest.raises(ValueError, match="read-only") as mapped:
        compute.submit(fill, array, 0).result(kit.SOON)
    assert read_only.SHARED not in mapped.value.__notes__  # the program has opened it so


def test_whoever_writes_into_a_shared_array_is_told_what_to_do(compute: sky.Compute) -> None:
    large = np.ones(1 << 18)
    with pytest.raises(ValueError, match="read-only") as told:
        compute.submit(fill, large, 0).result(kit.SOON)
    assert read_only.SHARED in told.value.__notes__
    with pytest.raises(ValueError, match="read-only") as told:
        Parallel(n_jobs=-1)(delayed(fill)(large, index) for index in range(4))
    assert read_only.SHARED in told.value.__notes__

    Parallel(n_jobs=-1, mmap_mode="c")(delayed(fill)(large, index) for index in range(4))  # as it says
    assert large.all()


def test_every_kind_of_array_arrives_as_it_is_and_comes_home_so(compute: sky.Compute) -> None:
    futures = {kind: compute.submit(look_and_return, array) for kind, array in KINDS.items()}
    for kind, future in futures.items():
        there, back = future.result(kit.SOON)
        assert there == told(KINDS[kind]) == told(back), kind


def look_and_return(array: Any) -> tuple[Any, Any]:
    return told(array), array


@pytest.mark.parametrize("compute", [Apart], indirect=True)
def test_a_memory_map_that_nodes_do_not_reach_goes_to_them_or_is_refused(
    compute: sky.Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Driver, "reaches", lambda driver, token: False)
    np.arange(1 << 18).tofile(tmp_path / "data")
    read, write = (np.memmap(tmp_path / "data", "i8", mode) for mode in ("r", "r+"))

    assert compute.submit(np.sum, read).result(kit.SOON) == read.sum()
    with pytest.raises(sky.NotPortable, match=r"task 0 \(fill\) .* args\[0\] \(numpy.memmap\): it is a writable"):
        Parallel(n_jobs=-1)(delayed(fill)(write, index) for index in range(4))
