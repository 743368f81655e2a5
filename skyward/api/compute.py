"""Compute: the pool that users work with. It connects provider, actors and plugins, and is an executor."""

import itertools
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, Self
from weakref import WeakSet

from skyward.actors.driver import Driver
from skyward.api.observers import Observers
from skyward.api.pool_executor import PoolExecutor
from skyward.calls.completion import CompletionThread, GroupState
from skyward.calls.iterable_length import length_of
from skyward.calls.task_groups import (
    FORKED,
    TaskGroup,
    check_function,
    make_entry,
    make_future,
    make_packer,
    results_in_order,
)
from skyward.config.spec import Image, Nodes, Options, Worker, check
from skyward.environment import preflight
from skyward.errors import InvalidArgument, Leaked, NoCompute
from skyward.events import Event, RunEnded
from skyward.plugins.joblib_watch import Watch
from skyward.plugins.plugin import Plugin
from skyward.providers.local import Local
from skyward.remote import fork_guard, function
from skyward.remote.call_options import DEFAULT, CallOptions, seconds, whole_number
from skyward.remote.future import Future, wait_for_all
from skyward.remote.serialization import call_codec
from skyward.remote.serialization.arrays import Mode
from skyward.telemetry import notebook_html
from skyward.telemetry.event_log import now
from skyward.telemetry.node import Node
from skyward.telemetry.report import Report
from skyward.telemetry.stacks import Stack

if TYPE_CHECKING:
    from skyward.providers.provider import Provider


class Compute(PoolExecutor):
    """A pool of machines for the length of a `with` block.

    Entering the block launches the nodes and returns once all of them are ready, or as many as `nodes=` asks for.
    Inside it, the pool is a standard `concurrent.futures` executor, and `@sky.remote` functions and plugins send their
    calls to it. Leaving it waits for the calls, or stops them if an exception leaves it; then it shuts the nodes down.

    Parameters
    ----------
    provider
        Provider of the machines. The default, `sky.Local()`, runs node processes on this machine.
    nodes
        Number of machines; `(2, 10)` for as many as there is work for, within these bounds; `sky.Nodes(count=10,
        min=8)` to begin when 8 of 10 are ready.
    worker
        How a node runs calls: how many at once, in processes or threads.
    image
        What a node needs: packages, modules to preload, environment variables.
    plugins
        Adapters such as `sky.plugins.joblib()`.
    options
        Timeouts and limits.

    Raises
    ------
    InvalidArgument
        An argument is invalid; the text names it, its value and the fix. Raised before anything starts.
    """

    def __init__(
        self,
        /,
        *unnamed: Never,
        provider: "Provider | None" = None,
        nodes: int | tuple[int, int] | list[int] | Nodes = 1,
        worker: Worker | None = None,
        image: Image | None = None,
        plugins: Sequence[Plugin] = (),
        options: Options | None = None,
        **unknown: Never,
    ) -> None:
        if unnamed:
            raise InvalidArgument("Compute takes keyword arguments only, for example provider=sky.Local()")
        given: dict[str, object] = {"nodes": nodes, "plugins": plugins, **unknown}
        given["provider"] = Local() if provider is None else provider
        given |= {k: v for k, v in (("worker", worker), ("image", image), ("options", options)) if v is not None}
        self._blueprint = check(given)
        preflight.check(self._blueprint.image, self._blueprint.provider)
        self._driver: Driver | None = None
        self._observers: Observers | None = None
        self._failed = ""
        self._plugins = ExitStack()
        self._groups: WeakSet[TaskGroup] = WeakSet()
        self._lock = threading.Lock()
        self._ready = self._ended = self._entered = False
        self._process = os.getpid()
        self._watch = Watch(lambda: self._driver is not None and self._driver.used)
        self._completion_thread: CompletionThread | None = None

    # ------------------------------------------------------------ the block

    def __enter__(self) -> Self:
        if self._entered:
            raise InvalidArgument("this Compute was entered before; create another: with sky.Compute(...) as compute")
        plugins: tuple[Plugin, ...] = self._blueprint.plugins
        image = self._blueprint.image
        for plugin in plugins:
            image = plugin.image(image)
            if not isinstance(image, Image):
                raise InvalidArgument(f"{type(plugin).__name__}.image returned {image!r}: it must return the image")
        preflight.prepare(image, self._blueprint.provider)
        self._entered = True
        hooks = call_codec.pack_hooks([plugin for plugin in plugins if plugin.has_node_hooks()])
        blueprint = self._blueprint.model_copy(update={"image": image})
        self._numbers = itertools.count(1)
        pool = f"{time.strftime('%m%d%H%M')}-{secrets.token_hex(4)}"
        self._observers = Observers(self._blueprint, pool)
        self._driver = Driver(blueprint, pool, hooks, self._numbers, self._observers.record)
        try:
            self._driver.start()
            self._ready = True
            self._completion_thread = self._driver.completion_threads.acquire()
            self._group = GroupState(next(self._numbers), None, self._completion_thread)
            self._packer = make_packer(self._driver, self._driver.blob_store.put, share=False)
            function.enter(self)
            self._watch.begin(plugins)
            for plugin in plugins:
                context: object = plugin.driver(self)
                if not isinstance(context, AbstractContextManager):
                    name = f"{type(plugin).__name__}.driver"
                    raise InvalidArgument(f"{name} returned {context!r}: return a context manager (@contextmanager)")
                self._plugins.enter_context(context)
        except BaseException as error:
            self._failed = f"{type(error).__name__}: {error}".removesuffix(": ")
            try:
                self._leave()
            except Leaked as leaked:
                error.add_note(str(leaked))
            finally:
                function.leave(self)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._failed = f"{kind.__name__}: {error}".removesuffix(": ")
            self.shutdown(wait=True, cancel_futures=kind is not None)
        except Leaked as leaked:
            if error is None:
                raise
            error.add_note(str(leaked))
        finally:
            function.leave(self)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the pool down: wait for its calls, or stop them with `cancel_futures`, then shut the nodes down.

        With `wait=False`, calls that have not finished are stopped as well, because nothing outlives a pool.

        Raises
        ------
        Leaked
            A machine could not be terminated; the text names it.
        """
        if self._driver is None or self._ended or self._process != os.getpid():
            return
        try:
            self._plugins.close()  # what they began makes no more calls
            while wait and not cancel_futures and (waiting := self._waiting()):
                wait_for_all(waiting)
        finally:
            self._leave()

    def _waiting(self) -> set[futures.Future[Any]]:
        """Return the futures of the calls that have not been answered, or not even been sent."""
        assert self._driver is not None
        with self._lock:
            groups = tuple(self._groups)
        return {*self._driver.waiting(), *(future for group in groups for future in group.pending)}

    def _leave(self) -> None:
        """Stop what has not ended, let the plugins go, end the nodes, and see every answer delivered."""
        driver, observers = self._driver, self._observers
        assert driver is not None
        assert observers is not None
        try:
            for future in self._waiting():
                future.cancel()
            self._plugins.close()
        finally:
            self._ended = True
            leaked = driver.stop()
            with self._lock:
                groups = tuple(self._groups)
            for group in groups:
                group.close()
            driver.completion_threads.close()
            if self._completion_thread is not None:
                self._completion_thread.close()
                self._completion_thread.join()
            report = driver.report() if self._ready else None
            ended = RunEnded(now(), self._failed, leaked, {} if report is None else report.as_dict())
            observers.record.put(ended)
            observers.close()
            self._watch.end(failed=bool(self._failed), cost=0.0 if report is None else report.cost)
        if leaked:
            raise Leaked("these machines could not be terminated: " + ", ".join(leaked), instances=leaked)

    # ------------------------------------------------------------ calls

    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn(*args, **kwargs)` on a slot and return its future, which can also be awaited.

        Raises
        ------
        NotPortable
            Something in the call cannot be pickled; the text names it.
        NoCompute
            The block is not open.
        """
        return self.submit_under(CallOptions(), fn, args, kwargs)

    def submit_under(
        self, terms: CallOptions, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """Run a call under terms; see `submit`."""
        driver = self._open()
        if terms.node is not None:
            driver.check_node(terms.node)
        entry = make_entry(self._group, self._packer, terms, make_future(driver), fn, args, kwargs)
        driver.send([entry])
        return entry.future

    def map[T](
        self, fn: Callable[..., T], /, *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Return an iterator over `fn(x, ...)` for the items of the iterables, in order.

        Parameters
        ----------
        timeout
            Seconds from now until all results must be there; then `TimeoutError`, and the other calls are stopped.
        chunksize
            Number of calls that are sent together. Larger chunks have less overhead per call.
        """
        return self.map_under(CallOptions(), fn, iterables, timeout, chunksize)

    def map_under[T](
        self,
        terms: CallOptions,
        fn: Callable[..., T],
        iterables: Sequence[Iterable[Any]],
        timeout: float | None,
        chunksize: int,
    ) -> Iterator[T]:
        """Map under terms; see `map`."""
        check_function(fn)
        chunksize = whole_number("chunksize", chunksize, 1, "give the number of calls that are sent together")
        end = None
        if timeout is not None:
            end = time.monotonic() + seconds("timeout", timeout, "leave it out for no limit")
        group = self.task_group(terms=terms, holds=lambda _, chunk: len(chunk))
        calls = zip(*iterables, strict=False)
        try:
            group.count(length_of(calls))
            chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
            results = [group.submit(function.call_each, fn, chunk) for chunk in chunks]
        except BaseException:
            group.cancel()
            raise
        finally:
            group.close()
        return results_in_order(group, results, timeout, end)

    def broadcast[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """Run `fn(*args, **kwargs)` once on every node at the same time, and return the results by node number.

        Waits for a node that is being replaced. Leaves out a node whose machine is about to be reclaimed, because
        another node takes its place.
        """
        waiting = [self.submit_under(CallOptions(node=node), fn, args, kwargs) for node in self._open().node_numbers()]
        try:
            wait_for_all(waiting, futures.FIRST_EXCEPTION)
            failed = [future for future in waiting if future.done() and future.exception() is not None]
            return [future.result() for future in failed or waiting]
        finally:
            for future in waiting:
                future.cancel()

    def task_group(
        self,
        *,
        limit: int | None = None,
        terms: CallOptions = DEFAULT,
        blob_threshold: float | None = None,
        holds: Callable[..., int] | None = None,
        keep_results: bool = True,
        blob_mode: Mode = "r",
    ) -> TaskGroup:
        """Return a group of calls with a common limit, which can be cancelled together; see `TaskGroup`."""
        group = TaskGroup(
            self._open(),
            limit=limit,
            terms=terms,
            blob_threshold=blob_threshold,
            holds=holds,
            keep_results=keep_results,
            blob_mode=blob_mode,
        )
        with self._lock:
            self._groups.add(group)
        return group

    # ------------------------------------------------------------ facts

    @property
    def slots(self) -> int:
        """Number of calls that can run at once: the slots of all nodes."""
        return self._open().slots()

    @property
    def depth(self) -> float:
        """Number of calls to keep in flight for each slot, so that no slot waits for its next call.

        Two (one running, one queued); more when calls are shorter than the round trip to a node.
        """
        return self._open().depth()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that are ready now, by number. A node that is being replaced is missing."""
        return self._open().nodes()

    def stacks(self, timeout: float = 5.0) -> tuple[Stack, ...]:
        """Return the Python stack of each running call, by node and slot, without interrupting the calls.

        Includes calls that hang in a library or wait for a lock: `print(*compute.stacks(), sep="\\n\\n")`.

        Parameters
        ----------
        timeout
            Seconds that a node has to answer; a node that does not is named.
        """
        return self._open().stacks(seconds("timeout", timeout, "give the seconds that a node has to answer"))

    def report(self) -> Report:
        """Return what the pool has done: tasks, attempts, use of each slot, and where its time went; see `Report`.

        Raises
        ------
        NoCompute
            The block was never entered.
        """
        if self._driver is None or self._observers is None or not self._ready:
            raise NoCompute("there is nothing to report: enter the block first, `with sky.Compute(...) as compute:`")
        return replace(self._driver.report(), _saving=self._observers.save)

    def events(self, *, follow: bool = False) -> Iterator[Event]:
        """Yield every event of the run so far, the oldest first; see `skyward.events`.

        Parameters
        ----------
        follow
            Also yield later events as they happen, until the pool is shut down: for a thread that watches the run.

        Raises
        ------
        NoCompute
            The block was never entered.
        """
        if self._observers is None:
            raise NoCompute("nothing has happened yet: enter the block first, `with sky.Compute(...) as compute:`")
        return self._observers.record.events(follow=follow)

    def __repr__(self) -> str:
        state = "shut down" if self._ended else "open" if self._driver is not None else "not entered"
        return f"<Compute {self._blueprint.provider.name}, nodes={self._blueprint.nodes.count}, {state}>"

    def _repr_html_(self) -> str:
        known = self._ready and self._process == os.getpid()
        nodes = self.nodes if known and not self._ended else ()
        return notebook_html.pool(repr(self), nodes, self.report() if known else None)

    def _open(self) -> Driver:
        if self._process != fork_guard.process():
            raise NoCompute(FORKED)
        if self._driver is None or self._ended:
            raise NoCompute("this Compute is not open: use it inside its block, `with sky.Compute(...) as compute:`")
        return self._driver
