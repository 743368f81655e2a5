"""The lines of several streams, in one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from skyward.providers.streams import BUFFERED_LINES, merged_lines


def reading(lines: Sequence[bytes]) -> Callable[[], Awaitable[bytes]]:
    left = list(lines)

    async def read() -> bytes:
        await asyncio.sleep(0)
        return left.pop(0) if left else b""

    return read


def test_every_line_comes_with_the_name_of_its_stream_and_in_its_order() -> None:
    async def run() -> list[tuple[str, str]]:
        streams = {"stdout": reading([b"one\n", b"\n", b"t\xffo"]), "stderr": reading([b"bad\n"]), "none": reading([])}
        return [line async for line in merged_lines(streams)]

    lines = asyncio.run(run())
    assert [text for name, text in lines if name == "stdout"] == ["one", "", "t\ufffdo"]
    assert [line for line in lines if line[0] != "stdout"] == [("stderr", "bad")]


def test_who_does_not_take_lines_is_not_read_ahead_for_without_end() -> None:
    read = 0

    async def endless() -> bytes:
        nonlocal read
        read += 1
        return b"line\n"

    async def run() -> None:
        lines = merged_lines({"stdout": endless})
        assert await anext(lines) == ("stdout", "line")
        await lines.aclose()

    asyncio.run(run())
    assert BUFFERED_LINES <= read <= BUFFERED_LINES + 2


def test_who_has_seen_enough_leaves_no_task_behind() -> None:
    async def never() -> bytes:
        await asyncio.Event().wait()
        return b""

    async def run() -> int:
        lines = merged_lines({"stdout": reading([b"one\n"]), "stderr": never})
        assert await anext(lines) == ("stdout", "one")
        await lines.aclose()
        pumps = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(pumps)
        return sum(not each.cancelled() for each in pumps if not each.done())

    assert asyncio.run(run()) == 0
