"""What an error says: what happened, to which task, where, in which attempt, and what to do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from joblib import Parallel, delayed

import skyward as sky
from tests import work


@pytest.fixture(scope="module")
def compute() -> Iterator[sky.Compute]:
    with sky.Compute(worker=sky.Worker(concurrency=2), plugins=[sky.plugins.joblib()]) as opened:
        yield opened


def notes(error: BaseException) -> str:
    return "\n".join(error.__notes__)


def test_an_exception_says_which_call_raised_it_and_where(compute: sky.Compute) -> None:
    with pytest.raises(LookupError, match="broken") as told:
        compute.submit(work.fail, "broken").result()
    first, second = told.value.__notes__
    assert first == "It was raised by fail('broken')."
    assert second.startswith("That was on node 0, slot ")

    with pytest.raises(LookupError, match="broken") as told:
        list(compute.map(work.fail, ["broken", "other"], chunksize=2))
    assert "It was raised by fail('broken')." in notes(told.value)

    with pytest.raises(ValueError, match="broken") as raised:
        Parallel(n_jobs=-1)(delayed(work.fail_if)(number, number == 5) for number in range(8))
    assert "It was raised by task 5, fail_if(5, True)." in notes(raised.value)


def test_a_later_attempt_is_said(compute: sky.Compute, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken") as told:
        compute.submit(work.die_once_and_fail, tmp_path / "mark").result()
    assert "attempt 2." in notes(told.value)


def test_a_lost_call_is_shown(compute: sky.Compute) -> None:
    with pytest.raises(sky.BatchLost, match=r"the slot or node running die\(\) died in all of its 3 attempts"):
        compute.submit(work.die).result()
    with pytest.raises(sky.BatchLost, match=r"running task 0, die_by\(9\) died"):
        Parallel(n_jobs=-1)(delayed(work.die_by)(9) for _ in range(1))


def test_of_a_lost_batch_it_is_said_what_was_in_it(compute: sky.Compute) -> None:
    with pytest.raises(sky.BatchLost, match=r"running tasks \d to \d \(the first is die_by\(9\)\) died") as told:
        Parallel(n_jobs=-1, batch_size=2)(delayed(work.die_by)(9) for _ in range(4))
    assert "Which of the 2 tasks ended the process is not known." in str(told.value)
    assert "SIGKILL is sent by somebody, or by the system when memory runs out" in str(told.value)

    with pytest.raises(sky.BatchLost, match=r"running die_by\(9\) and 2 more died") as lost:
        list(compute.map(work.die_by, [9] * 3, chunksize=3))
    assert lost.value.tasks == 3

    with pytest.raises(sky.BatchLost, match=r"running die, tasks 0 to 1 died"):
        list(compute.map(work.die, [bytes(1 << 20)] * 2, chunksize=2))


def test_calls_that_cannot_be_are_refused_in_the_callers_words(compute: sky.Compute) -> None:
    with pytest.raises(TypeError, match=r"write delayed\(f\)\(x\), not f\(x\)"):
        Parallel(n_jobs=-1)(work.square(number) for number in range(3))
    with pytest.raises(sky.InvalidArgument, match=r"^node=7: the pool has node 0 only$"):
        sky.remote(work.square).options(node=7).remote(1).result()
    with pytest.raises(sky.InvalidArgument, match=r"^@sky.remote: 3 is not a function; write `@sky.remote` above a"):
        sky.remote(3)  # type: ignore[call-overload]


def test_a_call_that_takes_too_long_is_shown_with_its_place(compute: sky.Compute) -> None:
    quick = sky.remote(work.sleep).options(timeout=0.1)
    with pytest.raises(
        TimeoutError, match=r"sleep\(600\) ran for more than 0.1 s on slot \d of node 0 and was stopped"
    ):
        quick.remote(600).result()
