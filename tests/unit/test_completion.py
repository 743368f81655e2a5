"""Threads that answer calls are used again."""

import threading

from skyward.calls import completion
from skyward.calls.completion import CompletionThread, CompletionThreads


def done(thread: CompletionThread) -> None:
    """Wait until it has finished its work."""
    idle = threading.Event()
    thread.do(idle.set)
    assert idle.wait(60)


def test_one_that_was_released_is_used_again() -> None:
    threads = CompletionThreads("test")
    first, second = threads.acquire(), threads.acquire()
    assert first is not second
    threads.release(first)
    done(first)

    assert threads.acquire() is first
    first.close()
    second.close()


def test_one_that_is_busy_is_not_used_again() -> None:
    threads, gate, waited = CompletionThreads("test"), threading.Event(), list[bool]()
    busy = threads.acquire()
    busy.do(lambda: waited.append(gate.wait(60)))
    threads.release(busy)
    other = threads.acquire()

    assert other is not busy
    gate.set()
    busy.close()
    other.close()


def test_only_some_idle_ones_are_kept() -> None:
    threads = CompletionThreads("test")
    *kept, last = [threads.acquire() for _ in range(completion.MAX_IDLE_THREADS + 1)]
    for each in kept:
        threads.release(each)
        done(each)
    threads.release(last)
    last.join()

    threads.close()
    for each in kept:
        each.join()


def test_one_that_is_released_late_stops() -> None:
    threads = CompletionThreads("test")
    late = threads.acquire()
    threads.close()
    threads.release(late)

    late.join()
