"""The supervisor's work beside its actor; its decisions are in `test_lifecycle`."""

import asyncio
from typing import NoReturn

from skyward.actors.supervisor import _Supervisor


def test_work_that_is_cancelled_before_it_begins_is_never_made() -> None:
    def reach() -> NoReturn:
        raise AssertionError("a coroutine made here would never be awaited")

    async def cancel_at_once() -> None:
        supervisor = object.__new__(_Supervisor)
        supervisor.tasks = set()
        supervisor.do("reach", reach)
        (task,) = supervisor.tasks
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    asyncio.run(cancel_at_once())
