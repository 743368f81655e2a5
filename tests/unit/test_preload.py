"""Which batches wait for modules to be imported, and until when."""

import asyncio
from collections.abc import Sequence

import pytest

from skyward.remote.node import preload
from skyward.remote.node.preload import Preloader
from skyward.remote.protocol import Batch, Opening

LISTS = {
    "imports:a": b"a\na.b\nc",
    "imports:b": b"a.b\nd",
    "imports:private": b"a._own",
    "imports:huge": b"x" * (preload.NAMES_SIZE + 1),
}


def batch(number: int, *lists: str) -> Batch:
    return Batch(number, b"", ("some function", *(f"imports:{name}" for name in lists)))


class Host:
    """Notes what it is told; `seconds` is how long imports take (None: they never end), `starts` whether workers do."""

    def __init__(self, seconds: float | None = 1.0, *, starts: bool = True) -> None:
        self.seconds, self.starts = seconds, starts
        self.imports: list[str] = []
        self.ended: list[int] = []
        self.replaced = self.kept = 0
        self.given: dict[int, list[int]] = {}
        self.waited: dict[int, Opening | None] = {}
        self.preloader = Preloader(self, LISTS)

    def begin_import(self, names: bytes) -> int:
        self.imports.append(names.decode())
        if self.seconds is not None:
            number, took = len(self.imports), dict.fromkeys(names.decode().split(), self.seconds)
            asyncio.get_running_loop().call_soon(lambda: self.preloader.imported(number, took))
        return len(self.imports)

    def end_import(self, number: int) -> None:
        self.ended.append(number)

    def replace_unused(self) -> Sequence[asyncio.Event]:
        self.replaced += 1
        started = asyncio.Event()
        if self.starts:
            started.set()
        return [started]

    def keep_unused(self) -> None:
        self.kept += 1

    def give(self, slot: int, batches: Sequence[Batch], waited: Opening | None) -> None:
        self.given[slot] = [batch.id for batch in batches]
        self.waited[slot] = waited

    async def until(self, slots: int) -> None:
        while len(self.given) < slots:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)


def test_the_modules_of_a_list_are_imported_by_package_and_each_once() -> None:
    async def run() -> None:
        host = Host()
        assert host.preloader.holds(0, [batch(1, "a")])
        assert host.preloader.holds(1, [batch(2, "b"), batch(3)])
        assert host.given == {}
        await host.until(2)
        assert host.imports == ["a\na.b", "c", "d"]
        assert host.given == {0: [1], 1: [2, 3]}
        assert host.replaced == 1
        assert not host.preloader.holds(0, [batch(4, "a", "b")])
        assert not host.preloader.holds(0, [batch(5)])

    asyncio.run(run())


def test_unused_workers_stay_when_an_import_takes_no_time_or_fails() -> None:
    async def run(seconds: float) -> None:
        host = Host(seconds)
        assert host.preloader.holds(0, [batch(1, "a")])
        await host.until(1)
        assert host.replaced == 0

    asyncio.run(run(preload.WORTHWHILE_S / 10))
    asyncio.run(run(0.0))


def test_a_list_that_is_too_long_or_not_there_is_left_to_the_workers() -> None:
    async def run() -> None:
        host = Host()
        assert host.preloader.holds(0, [batch(1, "huge", "missing")])
        await host.until(1)
        assert host.imports == []

    asyncio.run(run())


def test_an_import_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload, "IMPORT_TIMEOUT_S", 0)

    async def run() -> None:
        host = Host(None)
        assert host.preloader.holds(0, [batch(1, "b")])
        await host.until(1)
        assert host.ended == [1, 2]
        assert host.replaced == 0
        host.preloader.imported(2, {"d": 1.0})  # too late
        assert not host.preloader.holds(0, [batch(2, "b")])

    asyncio.run(run())


def test_workers_that_do_not_start_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preload, "START_TIMEOUT_S", 0)

    async def run() -> None:
        host = Host(starts=False)
        assert host.preloader.holds(0, [batch(1, "b")])
        await host.until(1)
        assert (host.replaced, host.kept) == (1, 1)
        assert host.given == {0: [1]}

    asyncio.run(run())


def test_what_waits_is_taken_back_or_handed_over_early() -> None:
    async def run() -> None:
        host = Host(None)
        for slot in range(3):
            assert host.preloader.holds(slot, [batch(slot, "a"), batch(10 + slot)])
        assert host.preloader.take_back(0, keep=1) == 1
        assert host.preloader.take_back(0) == 1
        assert host.preloader.take_back(0) == 0
        host.preloader.release(0)
        host.preloader.release(1)
        assert host.given == {1: [1, 11]}

    asyncio.run(run())


def test_a_batch_is_told_how_long_it_waited_and_what_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        clock = iter((100.0, 103.0, 106.0, 106.0))
        host = Host(4.0)
        monkeypatch.setattr(loop, "time", lambda: next(clock, 106.0))
        assert host.preloader.holds(0, [batch(1, "private")])
        assert host.preloader.holds(1, [batch(2, "private")])
        await host.until(2)
        assert host.waited == {0: Opening(6.0, {"a": 4.0}), 1: Opening(3.0, {"a": 3.0})}

    asyncio.run(run())
