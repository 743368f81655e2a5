"""The driver renews a lease for as long as it wants, whatever becomes of an attempt."""

import asyncio
from collections.abc import Sequence

import pytest

from skyward import renewal
from skyward.errors import Unreachable

LEASE_S = 300.0


class Machine:
    """What happens at each attempt to renew the lease of a machine."""

    def __init__(self, outcomes: Sequence[Exception | None]) -> None:
        self._outcomes = iter(outcomes)

    async def renew(self) -> None:
        if (outcome := next(self._outcomes)) is not None:
            raise outcome


def pauses_of(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between the attempts, until one raises an error that is none of a connection."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    with pytest.raises(LookupError):
        asyncio.run(renewal.keep_renewing(machine.renew, LEASE_S))
    return pauses


def test_a_lease_is_renewed_ten_times_in_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pauses_of(Machine([None, None, LookupError()]), monkeypatch) == [30.0, 30.0]


def test_a_renewal_that_does_not_arrive_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [Unreachable("down"), OSError("no descriptor"), None, LookupError()]
    assert len(pauses_of(Machine(outcomes), monkeypatch)) == 3
