import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import pytest

from skyward import tasks
from skyward.errors import BatchLost, InvalidArgument, NotPortable
from skyward.remote import wire
from skyward.remote.function import Terms
from skyward.remote.future import Future
from skyward.remote.protocol import Outcome
from skyward.tasks import Delivery, Entry, GroupState, TaskGroup
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


# ---------------------------------------------------------------- the future


def test_a_future_that_is_cancelled_tells_the_cluster_once() -> None:
    told: list[int] = []
    future: Future[None] = Future(7, told.append)

    assert (future.cancel(), future.cancel()) == (True, True)
    assert told == [7]


def test_a_future_that_has_ended_cannot_be_cancelled() -> None:
    told: list[int] = []
    future: Future[int] = Future(7, told.append)
    future.set_result(1)

    assert not future.cancel()
    assert told == []


def test_who_waits_for_a_cancelled_future_is_told() -> None:
    future = silent()
    waiting = threading.Thread(target=futures.wait, args=([future],))
    waiting.start()
    future.cancel()
    waiting.join(5)

    assert not waiting.is_alive()
    with pytest.raises(futures.CancelledError):
        future.result(0)


def test_a_future_can_be_awaited() -> None:
    async def double_it() -> int:
        future: Future[int] = silent()
        asyncio.get_running_loop().call_soon(future.set_result, 21)
        return 2 * await future

    assert asyncio.run(double_it()) == 42


def test_an_await_that_is_cancelled_cancels_the_call() -> None:
    told: list[int] = []

    async def give_up() -> None:
        async with asyncio.timeout(0):
            await Future(7, told.append)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    assert told == [7]


def test_a_future_awaited_by_two_gives_both_the_value() -> None:
    async def twice() -> tuple[int, int]:
        future: Future[int] = silent()

        async def one() -> int:
            return await future

        asyncio.get_running_loop().call_soon(future.set_result, 1)
        first, second = await asyncio.gather(one(), one())
        return first, second

    assert asyncio.run(twice()) == (1, 1)


# ---------------------------------------------------------------- the delivery


def test_outcomes_are_delivered_in_the_order_they_came() -> None:
    delivery, seen = Delivery("test"), []
    state = GroupState(1, None, delivery)
    ended = threading.Event()
    for number in range(100):
        future = silent(number)
        future.add_done_callback(lambda done: seen.append(done.batch))  # type: ignore[attr-defined]
        delivery.put([(Entry(future, wire.Packed(b"", ()), {}, Terms(), state), LookupError(), None)])
    future.add_done_callback(lambda _: ended.set())
    assert ended.wait(5)
    delivery.close()

    assert seen == list(range(100))


def test_callbacks_run_in_the_thread_of_the_delivery(cluster: Cluster, group: TaskGroup) -> None:
    name: futures.Future[str] = futures.Future()
    future = group.submit(double, 1)
    future.add_done_callback(lambda _: name.set_result(threading.current_thread().name))
    cluster.end(future)

    assert name.result(5) == "skyward-results-1"


def test_a_delivery_that_is_closed_delivers_what_came_before() -> None:
    delivery, future = Delivery("test"), silent()
    delivery.put([(Entry(future, wire.Packed(b"", ()), {}, Terms(), GroupState(1, None, delivery)), KeyError(), None)])
    delivery.close()

    assert isinstance(future.exception(5), KeyError)


def test_a_callback_that_fails_does_not_stop_the_delivery(
    cluster: Cluster, group: TaskGroup, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ValueError("a bug in a callback")

    first, second = group.submit(double, 1), group.submit(double, 2)
    first.add_done_callback(fail)
    cluster.end(first)
    cluster.end(second)

    assert second.result(5) == 4
    assert "a bug in a callback" in caplog.text


# ---------------------------------------------------------------- what an outcome becomes


def test_a_call_returns_its_value_and_says_where_it_ran_and_how_long(cluster: Cluster, group: TaskGroup) -> None:
    future = group.submit(double, 21)
    cluster.end(future)

    assert future.result(5) == 42
    assert (future.duration, future.node, future.slot) == (7.0, 5, 3)


def test_a_call_raises_what_it_raised(cluster: Cluster, group: TaskGroup) -> None:
    future = group.submit(int, "x")
    cluster.end(future)

    with pytest.raises(ValueError, match="invalid literal"):
        future.result(5)


def test_a_call_that_overran_names_its_limit(cluster: Cluster) -> None:
    group = TaskGroup(cluster, terms=Terms(timeout=2.5))
    future = group.submit(double, 1)
    entry = cluster.entries[future.batch]
    entry.group.delivery.put([(entry, Outcome(future.batch, "overdue", b"", 0.0, 0), 0)])

    with pytest.raises(TimeoutError, match=r"2\.5 s"):
        future.result(5)
    group.close()


def test_an_error_of_the_pool_is_raised_as_it_is(cluster: Cluster, group: TaskGroup) -> None:
    future, lost = group.submit(double, 1), BatchLost.after(["a", "b"])
    entry = cluster.entries[future.batch]
    entry.group.delivery.put([(entry, lost, None)])

    assert future.exception(5) is lost


def test_an_outcome_that_comes_too_late_is_dropped(cluster: Cluster, group: TaskGroup) -> None:
    first, second = group.submit(double, 1), group.submit(double, 2)
    first.cancel()
    cluster.end(first)
    cluster.end(second)

    assert second.result(5) == 4
    assert first.cancelled()


# ---------------------------------------------------------------- the group


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(cluster: Cluster, limit: int) -> None:
    with pytest.raises(InvalidArgument, match=f"limit={limit}"):
        TaskGroup(cluster, limit=limit)


def test_calls_carry_number_limit_and_terms_of_their_group(cluster: Cluster) -> None:
    group = TaskGroup(cluster, limit=3, terms=Terms(node=1))
    entry = cluster.entries[group.submit(double, 1).batch]
    group.cancel()
    group.close()

    assert (entry.group.number, entry.group.limit, entry.terms) == (1, 3, Terms(node=1))


def test_a_group_pickles_a_function_once(cluster: Cluster, group: TaskGroup) -> None:
    fn = lambda x: x  # noqa: E731 - one that nodes cannot import
    entries = [cluster.entries[group.submit(fn, number).batch] for number in range(5)]

    assert len({name for entry in entries for name in entry.packed.functions}) == 1
    assert all(entry.functions is entries[0].functions for entry in entries)


def test_what_cannot_travel_is_refused_at_once_and_is_no_call(cluster: Cluster, group: TaskGroup) -> None:
    with pytest.raises(NotPortable, match=r"args\[0\]"):
        group.submit(double, threading.Lock())  # type: ignore[arg-type]
    assert not cluster.entries


def test_what_is_too_large_is_refused_at_once(
    cluster: Cluster, group: TaskGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "LARGEST", 1 << 20)

    with pytest.raises(InvalidArgument, match="3 MiB; one call carries at most 1 MiB"):
        group.submit(len, bytes(3 << 20))
    assert not cluster.entries


def test_cancel_stops_what_has_not_ended(cluster: Cluster, group: TaskGroup) -> None:
    ended, *others = [group.submit(double, number) for number in range(4)]
    cluster.end(ended)
    ended.result(5)
    group.cancel()

    assert [future.cancelled() for future in others] == [True] * 3
    assert sorted(cluster.forgotten) == [future.batch for future in others]


def test_a_group_takes_calls_after_it_was_cancelled(cluster: Cluster, group: TaskGroup) -> None:
    group.submit(double, 1)
    group.cancel()
    future = group.submit(double, 2)
    cluster.end(future)

    assert future.result(5) == 4


def test_one_call_that_is_cancelled_is_forgotten_alone(cluster: Cluster, group: TaskGroup) -> None:
    first, second = group.submit(double, 1), group.submit(double, 2)
    first.cancel()

    assert cluster.forgotten == [first.batch]
    assert not second.done()


def test_a_group_that_is_closed_keeps_its_functions_until_its_last_call_has_ended(
    cluster: Cluster, group: TaskGroup
) -> None:
    first, last = group.submit(lambda: 1), group.submit(lambda: 2)
    names = [name for entry in cluster.entries.values() for name in entry.packed.functions]
    group.close()
    cluster.end(first)
    first.result(5)

    assert cluster.drops == 0
    cluster.end(last)
    assert cluster.letting_go.wait(5)
    assert cluster.dropped == names


def test_a_group_lets_go_once(cluster: Cluster) -> None:
    group = TaskGroup(cluster)
    group.close()
    group.close()

    assert cluster.drops == 1


def test_a_group_lets_go_when_its_last_call_is_cancelled(cluster: Cluster) -> None:
    group = TaskGroup(cluster)
    future = group.submit(double, 1)
    group.close()
    future.cancel()

    assert cluster.drops == 1


def test_leaving_a_group_waits_for_its_calls(cluster: Cluster) -> None:
    with TaskGroup(cluster) as group:
        future = group.submit(double, 1)
        threading.Timer(0.01, cluster.end, [future]).start()

    assert future.result(0) == 2
    assert cluster.letting_go.wait(5)


def leave_by_an_exception(cluster: Cluster, submitted: list[Future[Any]]) -> None:
    with TaskGroup(cluster) as group:
        submitted.append(group.submit(double, 1))
        raise LookupError


def test_leaving_a_group_by_an_exception_cancels_its_calls(cluster: Cluster) -> None:
    submitted: list[Future[Any]] = []

    with pytest.raises(LookupError):
        leave_by_an_exception(cluster, submitted)
    assert submitted[0].cancelled()
    assert cluster.drops == 1


def many(submit: Callable[[], Future[Any]]) -> list[Future[Any]]:
    return [submit() for _ in range(100)]


def test_several_threads_submit_at_once(cluster: Cluster, group: TaskGroup) -> None:
    with futures.ThreadPoolExecutor(4) as threads:
        submitted = [each for made in threads.map(many, [lambda: group.submit(double, 1)] * 4) for each in made]

    assert len({future.batch for future in submitted}) == len(cluster.entries) == 400
