import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import pytest

from skyward.calls import task_groups
from skyward.calls.completion import Answer, CompletionThread, GroupState, PendingCall
from skyward.calls.task_groups import TaskGroup, results_in_order
from skyward.errors import BatchLost, InvalidArgument, NoCompute, NotPortable, PoolFailed, RemoteError
from skyward.remote.call_options import CallOptions
from skyward.remote.future import Future
from skyward.remote.protocol import Outcome
from skyward.remote.serialization.packer import Packed
from tests.cluster import Cluster


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


def silent(batch: int = 1) -> Future[Any]:
    return Future(batch, lambda _: None)


# ---------------------------------------------------------------- the completion


def test_outcomes_are_delivered_in_the_order_they_came() -> None:
    completion, seen = CompletionThread("test"), []
    state = GroupState(1, None, completion)
    ended = threading.Event()
    for number in range(100):
        future = silent(number)
        future.add_done_callback(lambda done: seen.append(done.batch))  # type: ignore[attr-defined]
        completion.put([(PendingCall(future, Packed(b"", {}), CallOptions(), state), LookupError())])
    future.add_done_callback(lambda _: ended.set())
    assert ended.wait(60)
    completion.close()

    assert seen == list(range(100))


def test_callbacks_run_in_the_thread_of_the_delivery(cluster: Cluster, group: TaskGroup) -> None:
    name: futures.Future[str] = futures.Future()
    future = group.submit(double, 1)
    future.add_done_callback(lambda _: name.set_result(threading.current_thread().name))
    cluster.end(future)

    assert name.result(60) == "results-1"


def test_a_delivery_that_is_closed_delivers_what_came_before() -> None:
    completion, future = CompletionThread("test"), silent()
    completion.put([(PendingCall(future, Packed(b"", {}), CallOptions(), GroupState(1, None, completion)), KeyError())])
    completion.close()

    assert isinstance(future.exception(5), KeyError)


class Ending:
    """Ends whatever opens it."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def test_a_result_that_ends_whatever_opens_it_is_an_answer(cluster: Cluster, group: TaskGroup) -> None:
    future = group.submit(Ending)
    cluster.end(future)

    with pytest.raises(RemoteError, match=r"the result of the task, when it was opened, called sys\.exit\(3\)"):
        future.result(60)


def test_a_map_whose_time_is_over_says_which_task_it_waited_for(cluster: Cluster, group: TaskGroup) -> None:
    done, late = group.submit(list, (1, 2)), group.submit(list, (3,))
    cluster.end(done)
    done.result(60)
    results = results_in_order(group, [done, late], 0.5, time.monotonic())

    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(TimeoutError, match=rf"^map\(timeout=0\.5\): task 2, call {late.batch}, did not finish"):
        next(results)
    assert late.cancelled()


def test_results_that_cannot_be_kept_are_an_answer(cluster: Cluster) -> None:
    cluster.has_budget = True
    with TaskGroup(cluster, holds=lambda _: 1) as group:
        future = group.submit(double, 1)
        cluster.end(future)

        assert isinstance(future.exception(5), TypeError)


def test_a_callback_that_fails_does_not_stop_the_delivery(
    cluster: Cluster, group: TaskGroup, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ValueError("a bug in a callback")

    first, second = group.submit(double, 1), group.submit(double, 2)
    first.add_done_callback(fail)
    cluster.end(first)
    cluster.end(second)

    assert second.result(60) == 4
    assert "a bug in a callback" in caplog.text


def test_a_group_that_nobody_closes_gives_its_thread_back_when_it_is_dropped(cluster: Cluster) -> None:
    future = TaskGroup(cluster).submit(double, 1)
    assert not cluster.completion_threads.came_back.is_set()
    cluster.end(future)
    assert future.result(60) == 2
    del future

    assert cluster.completion_threads.came_back.wait(60)


def test_a_group_that_is_closed_takes_no_call(cluster: Cluster) -> None:
    group = TaskGroup(cluster)
    group.close()
    for call in (group.submit, group.post):
        with pytest.raises(NoCompute, match="closed"):
            _ = call(double, 1)
    with pytest.raises(NoCompute, match="closed"):
        group.reject(KeyError())
    assert cluster.completion_threads.back == 1


# ---------------------------------------------------------------- what an outcome becomes


def test_a_call_returns_its_value_and_says_where_it_ran_and_how_long(cluster: Cluster, group: TaskGroup) -> None:
    future = group.submit(double, 21)
    cluster.end(future)

    assert future.result(60) == 42
    assert (future.duration, future.node, future.slot) == (7.0, 5, 3)


def test_a_call_raises_what_it_raised(cluster: Cluster, group: TaskGroup) -> None:
    future = group.submit(int, "x")
    cluster.end(future)

    with pytest.raises(ValueError, match="invalid literal"):
        future.result(60)


def test_a_call_that_overran_names_its_limit(cluster: Cluster) -> None:
    group = TaskGroup(cluster, terms=CallOptions(timeout=2.5))
    future = group.submit(double, 1)
    entry = cluster.entries[future.batch]
    entry.group.completion.put([(entry, Answer(Outcome(future.batch, "overdue", b"", 0.0, 0), 0))])

    with pytest.raises(TimeoutError, match=r"double\(1\) ran for more than 2\.5 s"):
        future.result(60)
    group.close()


def test_an_error_of_the_pool_is_raised_as_it_is(cluster: Cluster, group: TaskGroup) -> None:
    future, failed = group.submit(double, 1), PoolFailed("it failed")
    entry = cluster.entries[future.batch]
    entry.group.completion.put([(entry, failed)])

    assert future.exception(5) is failed


def test_a_lost_call_says_which_it_was(cluster: Cluster, group: TaskGroup) -> None:
    future = group.submit(double, 1)
    entry = cluster.entries[future.batch]
    entry.group.completion.put([(entry, BatchLost.after(["a", "b"]))])

    lost = future.exception(5)
    assert isinstance(lost, BatchLost)
    assert lost.causes == ("a", "b")
    assert "running double(1) died" in str(lost)


def test_an_outcome_that_comes_too_late_is_dropped(cluster: Cluster, group: TaskGroup) -> None:
    first, second = group.submit(double, 1), group.submit(double, 2)
    first.cancel()
    cluster.end(first)
    cluster.end(second)

    assert second.result(60) == 4
    assert first.cancelled()


# ---------------------------------------------------------------- the group


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2", 2**70])
def test_a_limit_that_is_no_count_is_refused(cluster: Cluster, limit: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"limit={limit!r}: must be"):
        TaskGroup(cluster, limit=limit)


def test_a_closed_group_takes_no_calls(cluster: Cluster) -> None:
    with TaskGroup(cluster) as group:
        pass
    with pytest.raises(NoCompute, match="this group is closed"):
        group.submit(double, 1)


def test_calls_carry_number_limit_and_terms_of_their_group(cluster: Cluster) -> None:
    group = TaskGroup(cluster, limit=3, terms=CallOptions(retries=1))
    entry = cluster.entries[group.submit(double, 1).batch]
    group.cancel()
    group.close()

    assert (entry.group.number, entry.group.limit, entry.terms) == (1, 3, CallOptions(retries=1))


def test_a_limit_and_a_node_do_not_go_together(cluster: Cluster) -> None:
    with pytest.raises(InvalidArgument, match="leave one of them out"):
        TaskGroup(cluster, limit=3, terms=CallOptions(node=1))


def test_a_callback_that_would_leave_the_program_does_not_end_the_delivery(
    cluster: Cluster, group: TaskGroup, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = group.submit(double, 1), group.submit(double, 2)
    first.add_done_callback(lambda _: sys.exit(3))
    cluster.end(first)
    cluster.end(second)

    assert second.result(60) == 4
    assert "a done-callback failed" in caplog.text


def test_a_call_that_the_pool_refuses_is_not_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(entries: list[PendingCall]) -> None:
        raise PoolFailed("over")

    monkeypatch.setattr(cluster, "send", refuse)
    with TaskGroup(cluster) as group, pytest.raises(PoolFailed):
        group.submit(double, 1)


def test_a_group_pickles_a_function_once(cluster: Cluster, group: TaskGroup) -> None:
    fn = lambda x: x  # noqa: E731 - one that nodes cannot import
    entries = [cluster.entries[group.submit(fn, number).batch] for number in range(5)]

    assert len({name for entry in entries for name in entry.packed.functions}) == 1


def test_what_cannot_travel_is_refused_at_once_and_is_no_call(cluster: Cluster, group: TaskGroup) -> None:
    with pytest.raises(NotPortable, match=r"args\[0\]"):
        group.submit(double, threading.Lock())  # type: ignore[arg-type]
    assert not cluster.entries


def test_what_is_too_large_is_refused_at_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_groups, "MAX_CALL_BYTES", 1 << 20)
    group = TaskGroup(cluster, blob_threshold=math.inf)

    with pytest.raises(InvalidArgument, match="3 MiB; one call carries at most 1 MiB"):
        group.submit(len, bytes(3 << 20))
    assert not cluster.entries
    group.close()


@pytest.mark.parametrize("large", [bytes(3 << 20), ["text" * 100_000] * 2 + list(range(600_000))])
def test_what_is_large_travels_beside_the_call(cluster: Cluster, group: TaskGroup, large: Any) -> None:
    futures = [group.submit(len, large) for _ in range(2)]
    first, second = (cluster.entries[future.batch].packed for future in futures)
    for future in futures:
        cluster.end(future)

    assert [future.result(60) for future in futures] == [len(large)] * 2
    assert first.blobs == second.blobs != ()
    assert len(first.payload) < 1000


def test_cancel_stops_what_has_not_ended(cluster: Cluster, group: TaskGroup) -> None:
    ended, *others = [group.submit(double, number) for number in range(4)]
    cluster.end(ended)
    ended.result(60)
    group.cancel()

    assert [future.cancelled() for future in others] == [True] * 3
    assert sorted(cluster.forgotten) == [future.batch for future in others]


def test_a_group_takes_calls_after_it_was_cancelled(cluster: Cluster, group: TaskGroup) -> None:
    group.submit(double, 1)
    group.cancel()
    future = group.submit(double, 2)
    cluster.end(future)

    assert future.result(60) == 4


def test_one_call_that_is_cancelled_is_forgotten_alone(cluster: Cluster, group: TaskGroup) -> None:
    first, second = group.submit(double, 1), group.submit(double, 2)
    first.cancel()

    assert cluster.forgotten == [first.batch]
    assert not second.done()


def test_a_group_lets_go_once(cluster: Cluster) -> None:
    group = TaskGroup(cluster)
    group.close()
    group.close()

    assert cluster.completion_threads.back == 1


def test_a_group_lets_go_when_its_last_call_is_cancelled(cluster: Cluster) -> None:
    group = TaskGroup(cluster)
    future = group.submit(double, 1)
    group.close()
    future.cancel()

    assert cluster.completion_threads.back == 1


def test_leaving_a_group_waits_for_its_calls(cluster: Cluster) -> None:
    with TaskGroup(cluster) as group:
        future = group.submit(double, 1)
        threading.Timer(0.01, cluster.end, [future]).start()

    assert future.result(0) == 2
    assert cluster.completion_threads.came_back.wait(60)


def leave_by_an_exception(cluster: Cluster, submitted: list[Future[Any]]) -> None:
    with TaskGroup(cluster) as group:
        submitted.append(group.submit(double, 1))
        raise LookupError


def test_leaving_a_group_by_an_exception_cancels_its_calls(cluster: Cluster) -> None:
    submitted: list[Future[Any]] = []

    with pytest.raises(LookupError):
        leave_by_an_exception(cluster, submitted)
    assert submitted[0].cancelled()
    assert cluster.completion_threads.back == 1


def many(submit: Callable[[], Future[Any]]) -> list[Future[Any]]:
    return [submit() for _ in range(100)]


def test_several_threads_submit_at_once(cluster: Cluster, group: TaskGroup) -> None:
    with futures.ThreadPoolExecutor(4) as threads:
        submitted = [each for made in threads.map(many, [lambda: group.submit(double, 1)] * 4) for each in made]

    assert len({future.batch for future in submitted}) == len(cluster.entries) == 400


def test_how_many_tasks_a_group_has_is_told_until_it_is_closed(cluster: Cluster) -> None:
    group = TaskGroup(cluster, holds=lambda x: 3)
    number = group._state.number
    group.count(None)
    group.count(12)
    cluster.end(group.submit(double, 1))
    group.close()
    group.close()
    group.count(7)

    assert cluster.counted == [(number, -1, False), (number, 12, False), (number, 3, True)]


def test_of_a_group_that_is_not_counted_nothing_is_told(cluster: Cluster, group: TaskGroup) -> None:
    cluster.end(group.submit(double, 1))
    group.close()

    assert cluster.counted == []


def test_a_count_that_is_invalid_is_refused(group: TaskGroup) -> None:
    with pytest.raises(InvalidArgument, match="tasks=-1"):
        group.count(-1)
