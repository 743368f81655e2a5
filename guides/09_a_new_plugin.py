"""A plugin makes another library's API run on the pool: here `multiprocessing.Pool`, with its initializer."""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import as_completed
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import skyward as sky
from skyward.plugins import Plugin, Pool


class Result:  # what `apply_async` returns
    def __init__(self, future: sky.Future[Any]) -> None:
        self.get, self.ready = future.result, future.done


class CloudPool(AbstractContextManager["CloudPool"]):  # what `multiprocessing.Pool()` returns inside the block
    def __init__(self, pool: Pool, processes: int | None) -> None:
        self._group = pool.task_group(limit=processes)

    def __exit__(self, *error: object) -> None:
        self._group.cancel()
        self._group.close()

    def apply_async(self, fn: Callable[..., Any], args: Iterable[Any] = ()) -> Result:
        return Result(self._group.submit(fn, *args))

    def starmap(self, fn: Callable[..., Any], calls: Iterable[Iterable[Any]]) -> list[Any]:
        return [result.get() for result in [self.apply_async(fn, args) for args in calls]]

    def map(self, fn: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
        return self.starmap(fn, zip(items, strict=True))

    def imap_unordered(self, fn: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        return (future.result() for future in as_completed([self._group.submit(fn, item) for item in items]))


class Multiprocessing(Plugin):
    def __init__(self, initializer: Callable[[], None]) -> None:
        self.initializer = initializer

    def image(self, image: sky.Image, /) -> sky.Image:  # here, first: what the nodes need
        return image.with_preload("multiprocessing")

    def driver(self, pool: Pool, /) -> AbstractContextManager[object]:  # here, for the length of the block
        return patch.object(multiprocessing, "Pool", lambda processes=None: CloudPool(pool, processes))

    @contextmanager
    def worker(self, info: sky.InstanceInfo, /) -> Iterator[None]:  # in each process of a node, once
        self.initializer()
        yield

    @contextmanager
    def task(self, info: sky.InstanceInfo, /) -> Iterator[None]:  # there, around each call
        multiprocessing.current_process().name = f"node {info.node}, slot {info.slot}"
        yield


def greet() -> None:
    os.environ["GREETING"] = "hello from"


def where() -> str:
    return f"{os.environ['GREETING']} {multiprocessing.current_process().name}"


if __name__ == "__main__":
    with sky.Compute(nodes=2, plugins=[Multiprocessing(greet)]), multiprocessing.Pool(4) as pool:
        print("map:", pool.map(abs, range(-3, 3)))
        print("starmap:", pool.starmap(pow, [(2, 3), (3, 2)]))
        print("as they finish:", sorted(pool.imap_unordered(abs, range(-3, 3))))
        print("one, later:", pool.apply_async(where).get(timeout=60))

# map: [3, 2, 1, 0, 1, 2]
# starmap: [8, 9]
# as they finish: [0, 1, 1, 2, 2, 3]
# one, later: hello from node ..., slot ...
