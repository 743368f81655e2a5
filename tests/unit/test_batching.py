"""What is asked for at about the same time is done in one go."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from skyward.providers.batching import Attempts, RequestCoalescer, side_by_side, while_wanted


class Works:
    """Squares numbers, and keeps what it was asked in one go; refuses 13, and everything when it has 0."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = []
        self.gate: asyncio.Event | None = None
        self.begun = asyncio.Event()

    async def __call__(self, numbers: Sequence[int]) -> Mapping[int, int | Exception]:
        self.turns.append(list(numbers))
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        if 0 in numbers:
            raise LookupError("all of them")
        return {number: ValueError("thirteen") if number == 13 else number * number for number in numbers}


def test_those_who_ask_at_once_are_served_at_once() -> None:
    async def scenario() -> None:
        works = Works()
        together = RequestCoalescer(works)

        assert await asyncio.gather(*(together.do(number) for number in (1, 2, 3, 2))) == [1, 4, 9, 4]
        assert works.turns == [[1, 2, 3]]

    asyncio.run(scenario())


def test_it_is_idle_once_nothing_is_being_done_also_for_nobody() -> None:
    async def scenario() -> None:
        works = Works()
        works.gate = asyncio.Event()
        together = RequestCoalescer(works)
        await together.idle()
        asking = asyncio.create_task(together.do(3))
        await works.begun.wait()
        asking.cancel()
        idle = asyncio.create_task(together.idle())
        await asyncio.sleep(0)
        assert not idle.done()
        works.gate.set()
        await asyncio.wait_for(idle, 5)

    asyncio.run(scenario())


def test_those_who_ask_meanwhile_are_next() -> None:
    async def scenario() -> None:
        works = Works()
        works.gate = asyncio.Event()
        together = RequestCoalescer(works)
        first = asyncio.create_task(together.do(1))
        await works.begun.wait()
        others = [asyncio.create_task(together.do(number)) for number in (1, 2)]
        await asyncio.sleep(0)
        works.gate.set()

        assert [await each for each in (first, *others)] == [1, 1, 4]
        assert works.turns == [[1], [1, 2]]

    asyncio.run(scenario())


def test_what_fails_fails_for_whoever_asked_for_it() -> None:
    async def scenario() -> None:
        together = RequestCoalescer(Works())
        outcomes = await asyncio.gather(together.do(13), together.do(2), return_exceptions=True)
        assert isinstance(outcomes[0], ValueError)
        assert outcomes[1] == 4
        for each in (together.do(0), together.do(5)):
            with pytest.raises(LookupError):
                await asyncio.gather(each, together.do(0))

    asyncio.run(scenario())


def test_who_stops_waiting_takes_nothing_from_the_others() -> None:
    async def scenario() -> None:
        works = Works()
        works.gate = asyncio.Event()
        together = RequestCoalescer(works)
        gone, stays = (asyncio.create_task(together.do(7)) for _ in range(2))
        await works.begun.wait()
        gone.cancel()
        works.gate.set()

        assert await stays == 49

    asyncio.run(scenario())


def test_what_is_done_side_by_side_gives_what_each_gives() -> None:
    async def scenario() -> None:
        assert await side_by_side(asyncio.sleep(0, "one"), asyncio.sleep(0, 2)) == ("one", 2)

    asyncio.run(scenario())


def test_of_several_side_by_side_none_goes_on_after_an_error_of_one() -> None:
    ended = []

    async def goes_on() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # it has something to put away
            ended.append("the other")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError("one of them")

    async def scenario() -> None:
        with pytest.raises(LookupError, match="one of them"):
            await side_by_side(goes_on(), fails())
        assert ended == ["the other"]

    asyncio.run(scenario())


def test_what_is_wanted_gives_its_result_or_its_error() -> None:
    async def fails() -> None:
        raise LookupError("it")

    async def scenario() -> None:
        assert await while_wanted(asyncio.sleep(0, "one"), lambda: True) == "one"
        with pytest.raises(LookupError, match="it"):
            await while_wanted(fails(), lambda: True)

    asyncio.run(scenario())


def test_what_is_not_wanted_any_more_is_stopped() -> None:
    ended = []

    async def goes_on() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)
        return "never"

    async def scenario() -> None:
        assert await while_wanted(goes_on(), lambda: False) is None

    asyncio.run(scenario())
    assert ended


def test_an_attempt_waits_for_those_that_are_under_way() -> None:
    async def scenario() -> None:
        attempts, gate, ended = Attempts(), asyncio.Event(), list[str]()

        async def attempt(name: str, opened: asyncio.Event | None = None) -> None:
            with attempts.under_way():
                if opened is not None:
                    await opened.wait()
            await attempts.settle(60)
            ended.append(name)

        await attempts.settle(60)
        other, failed = asyncio.create_task(attempt("other", gate)), asyncio.create_task(attempt("failed"))
        await asyncio.sleep(0)
        assert not failed.done()
        gate.set()
        await asyncio.gather(failed, other)
        assert ended == ["other", "failed"]

    asyncio.run(scenario())


def test_an_attempt_waits_no_longer_than_it_wants_to() -> None:
    async def scenario() -> None:
        attempts = Attempts()

        async def stuck() -> None:
            with attempts.under_way():
                await asyncio.Event().wait()

        other = asyncio.create_task(stuck())
        await asyncio.sleep(0)
        await attempts.settle(0.001)
        assert not other.done()
        other.cancel()

    asyncio.run(scenario())
