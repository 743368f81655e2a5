import asyncio
import threading
from concurrent import futures
from typing import Any

import pytest

from skyward.remote import future as waits
from skyward.remote.future import Future, wait_for_all


def silent(batch: int = 1) -> Future[Any]:
    return Future(batch, lambda _: None)


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
    waiting.join(60)

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


def test_a_wait_begins_anew_until_there_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "WAIT_SLICE_S", 0.001)
    future = silent()
    threading.Timer(0.05, future.set_result, (3,)).start()
    assert future.result() == 3

    first, second = silent(), silent(2)
    threading.Timer(0.05, first.set_result, (3,)).start()
    threading.Timer(0.05, second.set_exception, (ValueError("no"),)).start()
    wait_for_all([first, second])
    assert (first.result(), str(second.exception())) == (3, "no")


def test_the_timeout_of_the_call_itself_is_no_reason_to_wait_on() -> None:
    future = silent()
    future.set_exception(TimeoutError("of the call"))
    with pytest.raises(TimeoutError, match="of the call"):
        future.result()
    with pytest.raises(TimeoutError):
        silent().result(0.001)


def test_the_first_that_fails_ends_a_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "WAIT_SLICE_S", 0.001)
    never, failed = silent(), silent(2)
    threading.Timer(0.05, failed.set_exception, (ValueError("no"),)).start()
    wait_for_all([never, failed], futures.FIRST_EXCEPTION)
    assert not never.done()
    cancelled = silent(3)
    cancelled.cancel()
    wait_for_all([never, cancelled], futures.FIRST_EXCEPTION)
    wait_for_all([])
