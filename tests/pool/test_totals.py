"""How many tasks a call has is told where it is known, from its beginning or once all have been taken."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import joblib
import pytest
from joblib import delayed
from rich.progress import track
from tqdm import tqdm

import skyward as sky
from skyward.events import BatchesArrived, TasksCounted
from tests import work


@pytest.fixture(scope="module")
def compute() -> Iterator[sky.Compute]:
    worker = sky.Worker(concurrency=2)
    with sky.Compute(worker=worker, plugins=[sky.plugins.joblib()], options=sky.Options(record=False)) as compute:
        yield compute


def given(count: int = 20) -> Iterator[int]:
    yield from range(count)


class Sized:
    def __len__(self) -> int:
        return 20

    def __iter__(self) -> Iterator[Any]:
        return (delayed(abs)(i) for i in given())


def parallel(iterable: Any, **options: Any) -> None:
    assert len(list(joblib.Parallel(n_jobs=-1, **options)(iterable))) == 20


def raises() -> None:
    with pytest.raises(LookupError):
        joblib.Parallel(n_jobs=-1, batch_size=1)(delayed(work.fail)("no") for _ in range(1000))


CALLS: dict[str, tuple[Callable[[sky.Compute], object], int]] = {
    "list": (lambda _: parallel([delayed(abs)(i) for i in range(20)]), 20),
    "generator": (lambda _: parallel(delayed(abs)(i) for i in range(20)), 20),
    "generator that is returned": (lambda _: parallel((delayed(abs)(i) for i in range(20)), return_as="generator"), 20),
    "sized": (lambda _: parallel(Sized()), 20),
    "bar around it": (lambda _: parallel(tqdm((delayed(abs)(i) for i in given()), total=20)), 20),
    "bar in it": (lambda _: parallel(delayed(abs)(i) for i in tqdm(given(), total=20)), 20),
    "loops": (lambda _: parallel(delayed(max)(i, j) for i in range(4) for j in range(5)), 20),
    "slice": (lambda _: parallel(delayed(abs)(i) for i in itertools.islice(range(90), 20)), 20),
    "track": (lambda _: parallel(delayed(abs)(i) for i in track(range(20), disable=True)), 20),
    "all at once": (lambda _: parallel((delayed(abs)(i) for i in given()), pre_dispatch="all"), -1),
    "not known": (lambda _: parallel((delayed(abs)(i) for i in given()), batch_size=1), -1),
    "filter": (lambda _: parallel(delayed(abs)(i) for i in range(40) if i % 2), -1),
    "map": (lambda compute: list(compute.map(abs, range(20), chunksize=3)), 20),
    "map of several": (lambda compute: list(compute.map(max, range(20), range(30))), 20),
    "map of what is not known": (lambda compute: list(compute.map(abs, given())), -1),
}


@pytest.mark.parametrize("kind", CALLS)
def test_how_many_tasks_there_are_is_told_first_or_when_it_is_known(compute: sky.Compute, kind: str) -> None:
    call, first = CALLS[kind]
    before = len(list(compute.events()))
    call(compute)
    events = list(compute.events())[before:]
    counted = [event for event in events if isinstance(event, TasksCounted)]
    (group,) = {event.group for event in counted}
    told = [event.tasks for event in counted]
    assert told[0] == first
    assert told[1:] == [20] * len(told[1:])
    assert [event.final for event in counted] == [False] * (len(counted) - 1) + [True]
    assert sum(event.tasks for event in events if isinstance(event, BatchesArrived) and event.group == group) == 20
    if kind in ("all at once", "not known"):  # also before its end
        assert len(told) == 3


def test_a_call_that_fails_has_no_more_tasks(compute: sky.Compute) -> None:
    raises()
    counted = [event for event in compute.events() if isinstance(event, TasksCounted)]
    assert (counted[-2].tasks, counted[-2].final, counted[-1].final) == (1000, False, True)
    assert counted[-1].tasks < 1000
