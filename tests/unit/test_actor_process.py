"""What the actor process tells its parent."""

import asyncio
import os

import pytest

from skyward.remote.node import actor_process, interruption
from skyward.remote.node.agent import Agent


def test_the_lease_is_renewed_at_most_ten_times_a_second_and_never_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        times = iter([100.0, 100.05, 100.2])
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: next(times, 200.0))
        read, write = os.pipe()
        renew = actor_process._renewer(write)
        for _ in range(3):
            renew()
        assert os.read(read, 100) == b".."
        os.write(write, bytes(1 << 16))  # nobody reads it
        renew()
        assert len(os.read(read, 1 << 20)) == 1 << 16
        os.close(read)
        os.close(write)

    asyncio.run(run())


def test_a_notice_of_interruption_is_passed_to_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(interruption.NOTICE_SOURCES, "here", lambda: "terminate at noon")
    agent = Agent(renew=lambda: None, keep_result=lambda *_: None, drop_result=lambda _: None)

    asyncio.run(actor_process._watch("", agent))
    assert agent.notice == ""
    asyncio.run(actor_process._watch("here", agent))
    assert agent.notice == "terminate at noon"
