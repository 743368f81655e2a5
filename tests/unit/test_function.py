import contextvars
import datetime
import functools
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import pytest

from skyward.errors import InvalidArgument, NoCompute, NotPortable
from skyward.remote import context, function
from skyward.remote.call_options import DEFAULT, CallOptions
from skyward.remote.context import InstanceInfo
from skyward.remote.function import call_each, name_call, remote
from skyward.remote.future import Future
from skyward.remote.serialization import call_codec
from skyward.remote.serialization.packer import Packer


class Recorder:
    """A pool that runs nothing: it keeps what it was asked, and answers with its own name."""

    def __init__(self, name: str = "pool") -> None:
        self.name = name
        self.asked: list[tuple[CallOptions, tuple[Any, ...], dict[str, Any]]] = []
        self.error: BaseException | None = None
        self.last: Future[Any] | None = None

    def submit_under(
        self, terms: CallOptions, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        self.asked.append((terms, args, kwargs))
        self.last = Future(1, lambda _: None)
        if self.error is None:
            self.last.set_result(self.name)
        else:
            self.last.set_exception(self.error)
        return self.last

    def map_under(
        self,
        terms: CallOptions,
        fn: Callable[..., Any],
        iterables: Sequence[Iterable[Any]],
        timeout: float | None,
        chunksize: int,
    ) -> Iterator[Any]:
        self.asked.append((terms, tuple(iterables), {"timeout": timeout, "chunksize": chunksize}))
        return iter([self.name])


@remote
def where(*args: object, **kwargs: object) -> str:
    """Say where this runs."""
    return "here"


class Thing:
    @remote
    def name(self) -> str:
        return type(self).__name__


def entered(*names: str) -> tuple[Recorder, ...]:
    pools = tuple(map(Recorder, names))
    for pool in pools:
        function.enter(pool)
    return pools


def elsewhere[T](fn: Callable[[], T]) -> T:
    """What it returns in a thread that is started now."""
    with futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(fn).result(60)


# ---------------------------------------------------------------- which pool


def test_outside_any_block_it_runs_here() -> None:
    assert where() == "here"


def test_inside_a_block_it_runs_there() -> None:
    (pool,) = entered("there")
    try:
        assert where(1, key=2) == "there"
        assert pool.asked == [(DEFAULT, (1,), {"key": 2})]
    finally:
        function.leave(pool)
    assert where() == "here"


def test_of_nested_blocks_the_innermost_wins() -> None:
    outer, inner = entered("outer", "inner")
    assert where() == "inner"
    function.leave(inner)
    assert where() == "outer"
    function.leave(outer)


def test_blocks_may_end_in_any_order() -> None:
    outer, inner = entered("outer", "inner")
    function.leave(outer)
    assert where() == "inner"
    function.leave(inner)
    assert where() == "here"


def test_a_thread_started_inside_a_block_sees_it() -> None:
    (pool,) = entered("there")
    assert elsewhere(where) == "there"
    function.leave(pool)
    assert elsewhere(where) == "here"


def test_two_threads_with_a_block_each_keep_to_their_own() -> None:
    meet = threading.Barrier(2)

    def run(name: str) -> str:
        (pool,) = entered(name)
        meet.wait(60)
        try:
            return where()
        finally:
            meet.wait(60)
            function.leave(pool)

    with futures.ThreadPoolExecutor(2) as threads:
        assert list(threads.map(run, ["one", "two"])) == ["one", "two"]


def test_a_block_that_another_thread_has_left_is_not_used() -> None:
    (pool,) = entered("there")
    elsewhere(functools.partial(function.leave, pool))
    assert where() == "here"


def test_a_thread_without_a_block_sees_the_one_entered_last() -> None:
    first, second = entered("first", "second")
    assert elsewhere(where) == "second"
    function.leave(second)
    assert elsewhere(where) == "first"
    function.leave(first)


@pytest.mark.parametrize("ask", [where.remote, lambda: where.map([1])])
def test_outside_any_block_there_is_no_future(ask: Callable[[], object]) -> None:
    with pytest.raises(NoCompute, match=r"with sky\.Compute"):
        ask()


# ---------------------------------------------------------------- calls


def test_what_the_call_raises_is_raised_here() -> None:
    (pool,) = entered("there")
    pool.error = LookupError("k")
    try:
        with pytest.raises(LookupError, match="k"):
            where()
    finally:
        function.leave(pool)


def test_remote_gives_the_future() -> None:
    (pool,) = entered("there")
    future = where.remote(1)
    function.leave(pool)

    assert future is pool.last
    assert future.result(60) == "there"


def test_map_gives_the_results() -> None:
    (pool,) = entered("there")
    results = list(where.map([1, 2], chunksize=3, timeout=4))
    function.leave(pool)

    assert results == ["there"]
    assert pool.asked == [(DEFAULT, ([1, 2],), {"timeout": 4, "chunksize": 3})]


def test_a_method_can_be_remote() -> None:
    assert Thing().name() == "Thing"


def test_a_chunk_calls_with_each_set_of_arguments() -> None:
    assert call_each(divmod, [(7, 2), (9, 3)]) == [(3, 1), (3, 0)]


def test_it_keeps_name_and_documentation() -> None:
    assert (getattr(where, "__name__", None), where.__doc__) == ("where", "Say where this runs.")


def test_it_travels() -> None:
    packer = Packer(share=False)

    assert call_codec.open_outcome(*call_codec.execute(packer.pack(where, (), {}).payload)) == ("here", None)


# ---------------------------------------------------------------- terms


def test_options_reach_the_pool() -> None:
    (pool,) = entered("there")
    where.options(timeout=3, node=1, retries=0)()
    function.leave(pool)

    assert pool.asked[0][0] == CallOptions(timeout=3, node=1, retries=0)


def test_options_leave_the_function_as_it_was() -> None:
    (pool,) = entered("there")
    where.options(timeout=3)
    where()
    function.leave(pool)

    assert pool.asked[0][0] == DEFAULT


def test_options_add_up() -> None:
    (pool,) = entered("there")
    where.options(timeout=3).options(retries=7)()
    function.leave(pool)

    assert pool.asked[0][0] == CallOptions(timeout=3, retries=7)


def test_options_may_stand_at_the_decorator() -> None:
    @remote(timeout=5)
    def task() -> None: ...

    (pool,) = entered("there")
    task()
    function.leave(pool)

    assert pool.asked[0][0] == CallOptions(timeout=5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": "3"},
        {"timeout": datetime.timedelta(seconds=3)},
        {"node": -1},
        {"node": True},
        {"node": "0"},
        {"node": 1.0},
        {"retries": -1},
        {"retries": True},
        {"retries": 1.5},
        {"retries": 2**70},
    ],
)
def test_terms_that_cannot_be_meant_are_refused_by_name_and_value(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()

    with pytest.raises(InvalidArgument) as refused:
        where.options(**wrong)
    assert str(refused.value).startswith(f"{name}={value!r}: must be ")


def test_numbers_of_numpy_are_terms_too() -> None:
    terms = CallOptions(timeout=np.float32(2), node=np.int64(1), retries=np.int8(3))  # type: ignore[arg-type]

    assert (terms.timeout, terms.node, terms.retries) == (2.0, 1, 3)
    assert [type(value) for value in (terms.timeout, terms.node, terms.retries)] == [float, int, int]


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        (3, "write `@sky.remote` above a function"),
        (staticmethod(len), "write @sky.remote below @staticmethod"),
        (classmethod(len), "write @sky.remote below @classmethod"),  # type: ignore[arg-type]
        (coroutine, "calls asyncio.run"),
        (generator, "return a list"),
    ],
)
def test_what_cannot_run_on_a_slot_is_refused_when_it_is_decorated(wrong: Any, fix: str) -> None:
    with pytest.raises(InvalidArgument, match=fix):
        remote(wrong)


def test_a_term_that_is_misspelt_is_refused_at_once() -> None:
    with pytest.raises(InvalidArgument, match="did you mean 'timeout'"):
        remote(timout=3)  # type: ignore[call-overload]


def test_a_remote_function_of_a_module_survives_pickle() -> None:
    assert pickle.loads(pickle.dumps(where)) is where


def test_in_a_task_the_way_to_call_is_named() -> None:
    def ask() -> None:
        context.enter(InstanceInfo(node=0, slot=0, nodes=1, slots=1, host="here"))
        _ = where.remote()

    with pytest.raises(NoCompute, match="runs right here"):
        contextvars.copy_context().run(ask)


def test_a_forked_process_is_outside_of_the_block() -> None:
    (pool,) = entered("there")
    said, say = os.pipe()
    if not (child := os.fork()):
        os.write(say, where().encode())
        os._exit(0)
    os.waitpid(child, 0)
    function.leave(pool)

    assert os.read(said, 100) == b"here"
    os.close(said)
    os.close(say)


@pytest.mark.parametrize("right", [{"timeout": 0.1}, {"node": 0}, {"retries": 0}, {}])
def test_terms_at_their_bounds_are_taken(right: dict[str, Any]) -> None:
    where.options(**right)


def test_an_error_about_a_chunk_names_the_call_in_it() -> None:
    texts = [
        ("args[1][1][0].conn", "f(2) cannot be sent: args[0].conn", "args[0].conn"),
        ("result[0][3]", "f(1) cannot be sent: result[3]", "result[3]"),
        ("args[0]: global variable 'db'", "f cannot be sent: fn: global variable 'db'", "fn: global variable 'db'"),
        ("result", "f cannot be sent: result", "result"),
        ("", "f cannot be sent: ", ""),
    ]

    def f(x: int) -> None: ...

    for path, text, renamed in texts:
        error = NotPortable(f"call_each cannot be sent: {path}", path)
        name_call(error, f, [(1,), (2,)])
        assert (str(error), error.path) == (text, renamed)
