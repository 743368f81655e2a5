"""What a caller who waits for a pool is told."""

import asyncio
from types import SimpleNamespace

import pytest

import skyward as sky
from skyward.actors.call_table import CallTable
from skyward.actors.pool_status import PoolStatus
from tests.pending import Answers, pending

BUG = "invalid literal for int() with base 10: 'a bug'"


async def status(calls: CallTable | None = None) -> PoolStatus:
    """The status of a new pool."""
    return PoolStatus(calls or CallTable(None, 2, SimpleNamespace(put=lambda _: None)))  # type: ignore[arg-type]


def test_a_pool_opens_and_closes_once() -> None:
    async def main() -> None:
        pool = await status()
        pool.open()
        pool.fail(sky.NodeError("too late to say that it cannot open"))
        pool.open()
        pool.close(("i-1",))
        pool.close(())
        assert pool.opened.result(0) is None
        assert await pool.closed == ("i-1",)

    asyncio.run(main())


def test_a_pool_that_fails_before_it_opens_does_not_open() -> None:
    async def main() -> None:
        pool, error = await status(), sky.NodeError("broken")
        pool.fail(error)
        pool.open()
        assert pool.opened.exception(0) is error

    asyncio.run(main())


@pytest.mark.parametrize(("actor", "closed"), [("router", False), ("provisioner", True)])
def test_an_actor_that_raises_fails_the_pool_and_who_ends_machines_its_end(actor: str, closed: bool) -> None:
    async def main() -> None:
        answers = Answers()
        calls = CallTable(None, 2, SimpleNamespace(put=lambda _: None))  # type: ignore[arg-type]
        calls.add([pending(1, answers)], lambda _: None)
        pool = await status(calls)
        with pool.guard(actor):
            int("a bug")
        error = answers.by_number()[1]
        assert isinstance(error, sky.PoolFailed)
        assert (str(error), str(error.__cause__)) == (f"the {actor} failed: ValueError: {BUG}", BUG)
        assert pool.closed.done() is closed
        if closed:
            assert pool.closed.exception() is error

    asyncio.run(main())
