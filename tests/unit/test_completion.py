"""Threads that answer calls are used again."""

import threading

from skyward.calls import completion
from skyward.calls.completion import CompletionThread, CompletionThreads


def done(lent: CompletionThread) -> None:
    """Wait until it has done what it was given."""
    idle = threading.Event()
    lent.do(idle.set)
    assert idle.wait(5)


def test_one_that_was_given_back_is_lent_again() -> None:
    deliveries = CompletionThreads("test")
    first, second = deliveries.lend(), deliveries.lend()
    assert first is not second
    deliveries.give_back(first)
    done(first)

    assert deliveries.lend() is first
    first.close()
    second.close()


def test_one_that_is_busy_is_not_lent() -> None:
    deliveries, gate, waited = CompletionThreads("test"), threading.Event(), list[bool]()
    busy = deliveries.lend()
    busy.do(lambda: waited.append(gate.wait(5)))
    deliveries.give_back(busy)
    other = deliveries.lend()

    assert other is not busy
    gate.set()
    busy.close()
    other.close()


def test_only_some_are_kept() -> None:
    deliveries = CompletionThreads("test")
    *kept, last = [deliveries.lend() for _ in range(completion.IDLE + 1)]
    for each in kept:
        deliveries.give_back(each)
        done(each)
    deliveries.give_back(last)
    last.join()

    deliveries.close()
    for each in kept:
        each.join()


def test_one_that_comes_back_late_ends() -> None:
    deliveries = CompletionThreads("test")
    late = deliveries.lend()
    deliveries.close()
    deliveries.give_back(late)

    late.join()
