"""Calls as the actors of the driver have them, without a caller."""

from typing import Any

from skyward.calls.completion import Answer, Completions, GroupState, PendingCall
from skyward.remote.call_options import CallOptions
from skyward.remote.future import Future
from skyward.remote.protocol import Outcome
from skyward.remote.serialization.packer import Packed


class Answers:
    """Takes answers in the place of a thread that completes futures."""

    def __init__(self) -> None:
        self.opening = self.opened = 0.0
        self.ended: Completions = []

    def put(self, ended: Completions) -> None:
        """Keep the answers of these calls."""
        self.ended += ended

    def by_number(self) -> dict[int, Answer | BaseException]:
        """What each call was answered."""
        return {call.future.batch: answer for call, answer in self.ended}


def pending(number: int, answers: Answers, packed: Packed | None = None, **known: Any) -> PendingCall:
    """A call that waits for its answer."""
    group = GroupState(0, None, answers)  # type: ignore[arg-type]
    return PendingCall(Future(number, lambda _: None), packed or Packed(b"call", {}), CallOptions(), group, **known)


def outcome(number: int, status: str = "returned", payload: bytes = b"value", slot: int = 0) -> Outcome:
    """How a call of two seconds ended."""
    return Outcome(number, status, payload, 2.0, slot)
