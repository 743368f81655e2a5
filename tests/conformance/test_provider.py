"""What holds for every provider: launch, reach, find, terminate.

A new provider adds its name to `PROVIDERS`. The one that needs real hosts runs the same tests in `tests/lab`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import skyward as sky
from skyward.providers.provider import Host, Instance, Order, Process, Provider, SupportsClear

PROVIDERS: dict[str, Callable[[Path], Provider]] = {
    "local": lambda folder: sky.Local(folder=folder),
}

ORDER = Order(pool="pool", name="pool-0-0")
OTHER = Order(pool="pool", name="pool-1-0")
STRANGER = Order(pool="someone-else", name="someone-else-0-0")


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Provider:
    return PROVIDERS[request.param](tmp_path)


def run[T](work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, with a deadline."""
    return asyncio.run(asyncio.wait_for(work, 100))


@contextlib.asynccontextmanager
async def machine(provider: Provider, order: Order = ORDER) -> AsyncIterator[tuple[Instance, Host]]:
    instance = await provider.launch(order)
    try:
        host = await provider.reach(instance)
        try:
            yield instance, host
        finally:
            await host.close()
    finally:
        await provider.terminate(instance)


async def output(process: Process) -> list[tuple[str, str]]:
    """All that it prints until it ends."""
    lines = [line async for line in process.lines()]
    await process.wait()
    return lines


# ---------------------------------------------------------------- launch, find, terminate


def test_an_instance_carries_the_tags_of_its_order(provider: Provider) -> None:
    instance = run(provider.launch(ORDER))

    assert (instance.pool, instance.name) == (ORDER.pool, ORDER.name)
    assert instance.id
    assert instance.host


def test_the_same_order_twice_gives_one_machine(provider: Provider) -> None:
    async def scenario() -> None:
        first, again = await provider.launch(ORDER), await provider.launch(ORDER)

        assert first == again
        assert list(await provider.find("pool")) == [first]

    run(scenario())


def test_two_orders_give_two_machines(provider: Provider) -> None:
    async def scenario() -> None:
        first, second = await asyncio.gather(provider.launch(ORDER), provider.launch(OTHER))

        assert first.id != second.id
        assert {each.id for each in await provider.find("pool")} == {first.id, second.id}

    run(scenario())


def test_find_gives_what_launch_gave(provider: Provider) -> None:
    async def scenario() -> None:
        launched = await provider.launch(ORDER)

        assert list(await provider.find("pool")) == [launched]

    run(scenario())


def test_find_gives_nothing_of_another_pool(provider: Provider) -> None:
    async def scenario() -> None:
        await provider.launch(STRANGER)

        assert list(await provider.find("pool")) == []

    run(scenario())


def test_what_is_terminated_is_not_found_any_more(provider: Provider) -> None:
    async def scenario() -> None:
        first, second = await provider.launch(ORDER), await provider.launch(OTHER)
        await provider.terminate(first)

        assert list(await provider.find("pool")) == [second]

    run(scenario())


def test_terminate_twice_is_terminate_once(provider: Provider) -> None:
    async def scenario() -> None:
        instance = await provider.launch(ORDER)
        await provider.terminate(instance)
        await provider.terminate(instance)

        assert list(await provider.find("pool")) == []

    run(scenario())


def test_terminate_of_what_never_was_is_no_error(provider: Provider) -> None:
    async def scenario() -> None:
        launched = await provider.launch(ORDER)
        await provider.terminate(Instance(launched.id.replace("pool-0-0", "pool-9-9"), "pool", "pool-9-9", "h"))

        assert list(await provider.find("pool")) == [launched]

    run(scenario())


def test_a_machine_may_be_launched_again_after_its_end(provider: Provider) -> None:
    async def scenario() -> None:
        await provider.terminate(await provider.launch(ORDER))
        again = await provider.launch(ORDER)

        assert list(await provider.find("pool")) == [again]

    run(scenario())


def test_nothing_is_left_of_a_pool_that_was_cleared(provider: Provider) -> None:
    async def scenario() -> None:
        for _ in range(2):
            await provider.terminate(await provider.launch(ORDER))
            for _ in range(2):
                assert not isinstance(provider, SupportsClear) or not await provider.clear("pool")

    run(scenario())


# ---------------------------------------------------------------- a machine that was reached


def test_a_command_runs_and_says_how_it_ended(provider: Provider) -> None:
    async def scenario() -> None:
        async with machine(provider) as (_, host):
            text = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
            process = await host.start([host.python, "-c", text])

            assert sorted(await output(process)) == [("stderr", "err"), ("stdout", "out")]
            assert await process.wait() == 7

    run(scenario())


def test_a_command_hears_that_the_driver_lets_go_of_it(provider: Provider) -> None:
    async def scenario() -> None:
        async with machine(provider) as (_, host):
            if not host.tethered:
                pytest.skip("the provider says that its commands hear nothing of that")
            text = "import sys; print('first', flush=True); sys.stdin.read(); print('last')"
            process = await host.start([host.python, "-c", text])
            lines = process.lines()
            first = await anext(lines)
            await host.close()

            assert [first, *[line async for line in lines]] == [("stdout", "first"), ("stdout", "last")]
            assert await process.wait() == 0

    run(scenario())


def test_a_line_without_end_and_one_that_is_very_long_come_whole_or_in_parts(provider: Provider) -> None:
    async def scenario() -> None:
        async with machine(provider) as (_, host):
            process = await host.start([host.python, "-c", "print('x' * 3_000_000); print('end', end='')"])
            lines = [text for _, text in await output(process)]

            assert "".join(lines) == "x" * 3_000_000 + "end"
            assert lines[-1] == "end"

    run(scenario())


def test_what_is_not_text_does_not_stop_the_lines(provider: Provider) -> None:
    async def scenario() -> None:
        async with machine(provider) as (_, host):
            text = r"import sys; sys.stdout.buffer.write(b'\xff\xfe\n'); print('after')"
            process = await host.start([host.python, "-c", text])

            assert (await output(process))[-1] == ("stdout", "after")

    run(scenario())


def test_files_are_written_into_the_folder_for_nobody_else(provider: Provider) -> None:
    async def scenario() -> None:
        async with machine(provider) as (_, host):
            await host.write({"key.pem": b"secret", "other": b"\0\xff"})
            await host.write({"key.pem": b"new"})
            text = (
                "import os, sys; os.chdir(sys.argv[1])\n"
                "for name in ('.', 'key.pem', 'other'): print(oct(os.stat(name).st_mode & 0o777))\n"
                "print(open('key.pem', 'rb').read(), open('other', 'rb').read())"
            )
            process = await host.start([host.python, "-c", text, host.folder])

            lines = [line for _, line in await output(process)]
            assert lines == ["0o700", "0o600", "0o600", r"b'new' b'\x00\xff'"]

    run(scenario())


def test_a_tunnel_leads_to_the_port(provider: Provider) -> None:
    async def scenario() -> None:
        async with machine(provider) as (_, host):
            text = (
                "import socket; server = socket.create_server(('127.0.0.1', 0))\n"
                "print(server.getsockname()[1], flush=True)\n"
                "line, _ = server.accept(); line.sendall(line.recv(100).upper()); line.close(); server.close()"
            )
            process = await host.start([host.python, "-c", text])
            lines = process.lines()
            _, port = await anext(lines)
            reader, writer = await asyncio.open_connection("127.0.0.1", await host.tunnel(int(port)))
            writer.write(b"hello")

            assert await reader.read() == b"HELLO"
            writer.close()
            await lines.aclose()  # type: ignore[attr-defined]
            await process.wait()

    run(scenario())


def test_what_runs_can_import_skyward(provider: Provider) -> None:
    async def scenario() -> None:
        if provider.bare:
            pytest.skip("the provider says that its machines are bare")
        async with machine(provider) as (_, host):
            process = await host.start([host.python, "-c", "import skyward.remote.node.parent_process; print('yes')"])

            assert await output(process) == [("stdout", "yes")]

    run(scenario())
