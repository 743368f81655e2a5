"""Running something with a tunnel, on the loop that a driver has."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from skyward.providers.ssh.tunnel import Refused, Target, Tunnel


def within(scene: Callable[[], Coroutine[Any, Any, None]], seconds: float = 50.0) -> None:
    uvloop.run(asyncio.wait_for(scene(), seconds))


async def opened(to: Target, scene: Callable[[Tunnel], Awaitable[None]]) -> None:
    tunnel = await Tunnel(to).open()
    try:
        await scene(tunnel)
    finally:
        await tunnel.close()


async def refusal(to: Target) -> str:
    with pytest.raises(Refused) as refused:
        await opened(to, lambda _: asyncio.sleep(0))
    return str(refused.value)
