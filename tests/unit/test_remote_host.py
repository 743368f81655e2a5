import asyncio
from typing import Any

import pytest

from skyward.providers.ssh.remote_host import DetachedProcess
from skyward.providers.ssh.target import Lost


class Dead:
    """The end of a connection that is lost, and says so at once, until others have had a turn."""

    def __init__(self) -> None:
        self.heard = False

    async def up(self, within: float) -> None:
        if self.heard:
            raise ConnectionError("others had a turn")

    async def start(self, command: object) -> None:
        raise Lost("it is gone")


def test_who_follows_output_over_a_lost_connection_lets_others_hear_of_the_loss() -> None:
    async def scenario() -> None:
        tunnel: Any = Dead()

        async def hear() -> None:
            tunnel.heard = True

        other = asyncio.create_task(hear())
        with pytest.raises(ConnectionError, match="others had a turn"):
            async for _ in DetachedProcess(tunnel, "/folder", 1, "token").lines():
                pass
        await other

    asyncio.run(scenario())
