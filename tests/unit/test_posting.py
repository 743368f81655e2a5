"""Calls that are packed by the thread of their group: what joblib's lock must not wait for."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures

import pytest

from skyward.calls.task_groups import TaskGroup
from skyward.errors import NotPortable
from tests.cluster import Cluster


class Packing:
    """Says in which thread it is pickled."""

    def __init__(self, also: Callable[[], object] = lambda: None) -> None:
        self.thread: futures.Future[str] = futures.Future()
        self.also = also

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        self.also()
        self.thread.set_result(threading.current_thread().name)
        return int, (0,)


class Held:
    """Keeps the thread of a group busy for the length of a block."""

    def __init__(self, group: TaskGroup) -> None:
        self._completion_thread, self._free = group._state.completion, threading.Event()

    def __enter__(self) -> None:
        self._completion_thread.do(self._wait)

    def __exit__(self, *_: object) -> None:
        self._free.set()

    def _wait(self) -> None:
        self._free.wait(60)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def group(cluster: Cluster) -> Iterator[TaskGroup]:
    group = TaskGroup(cluster)
    yield group
    group.cancel()
    group.close()


def double(x: int) -> int:
    return 2 * x


def test_a_posted_call_is_packed_and_sent_by_the_thread_of_the_group(cluster: Cluster, group: TaskGroup) -> None:
    packer = Packing()
    future = group.post(double, packer)  # type: ignore[arg-type]

    assert packer.thread.result(60) == "results-1"
    group.cancel()
    assert future.cancelled()


def test_a_posted_call_gives_its_result(cluster: Cluster, group: TaskGroup) -> None:
    future = group.post(double, 4)
    assert cluster.sent.wait(60)
    cluster.end(future)

    assert future.result(60) == 8


def test_a_group_is_busy_until_its_calls_have_ended(cluster: Cluster, group: TaskGroup) -> None:
    before, over = group.busy, threading.Event()
    future = group.post(double, 4)
    future.add_done_callback(lambda _: over.set())
    meanwhile = group.busy
    assert cluster.sent.wait(60)
    cluster.end(future)
    assert over.wait(60)

    assert (before, meanwhile, group.busy) == (False, True, False)


def test_a_posted_call_that_cannot_be_sent_fails_in_the_thread_of_the_group(group: TaskGroup) -> None:
    name: futures.Future[str] = futures.Future()
    with Held(group):
        future = group.post(double, threading.Lock())  # type: ignore[arg-type]
        future.add_done_callback(lambda _: name.set_result(threading.current_thread().name))

    assert isinstance(future.exception(5), NotPortable)
    assert name.result(60) == "results-1"


def test_a_posted_call_that_is_cancelled_first_is_never_sent(cluster: Cluster, group: TaskGroup) -> None:
    with Held(group):
        future = group.post(double, 1)
        group.cancel()
        last = group.post(double, 2)
    assert cluster.sent.wait(60)

    assert future.cancelled()
    assert list(cluster.entries) == [last.batch]


def test_a_posted_call_that_is_cancelled_while_it_is_sent_is_forgotten(cluster: Cluster, group: TaskGroup) -> None:
    packer = Packing(also=group.cancel)
    future = group.post(double, packer)  # type: ignore[arg-type]
    packer.thread.result(60)
    assert cluster.sent.wait(60)
    assert futures.wait([group.post(double, threading.Lock())], 5).done  # type: ignore[arg-type]

    assert cluster.forgotten[-1] == future.batch


def test_results_are_given_before_more_calls_are_packed(cluster: Cluster, group: TaskGroup) -> None:
    first = group.submit(double, 1)
    packed: list[bool] = []
    with Held(group):
        waiting = Packing(also=lambda: packed.append(first.done()))
        group.post(double, waiting)  # type: ignore[arg-type]
        cluster.end(first)

    waiting.thread.result(60)
    assert packed == [True]


def test_a_rejected_call_fails_in_the_thread_of_the_group(group: TaskGroup) -> None:
    name: futures.Future[str] = futures.Future()
    with Held(group):
        future = group.reject(LookupError("no"))
        future.add_done_callback(lambda _: name.set_result(threading.current_thread().name))

    assert isinstance(future.exception(5), LookupError)
    assert name.result(60) == "results-1"


def test_a_group_that_is_closed_waits_for_its_rejected_calls(group: TaskGroup) -> None:
    with Held(group):
        future = group.reject(LookupError("no"))
        group.close()

    assert isinstance(future.exception(5), LookupError)
