"""Where running calls are: what `Compute.stacks()` returns."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the call is that a slot runs.

    Attributes
    ----------
    node, slot
        Where it runs. The slot is -1 where a node did not answer, as `text` says then.
    call
        The call in short, with its arguments.
    seconds
        For how long its slot has had it, at most: calls of microseconds are given to a slot several at a time.
    text
        The Python stack of its thread as lines `File "...", line 7 in name`, the innermost frame first.
    """

    node: int
    slot: int
    call: str
    seconds: float
    text: str

    def __str__(self) -> str:
        if self.slot < 0:
            return f"node {self.node}: {self.text}"
        return f"node {self.node} slot {self.slot}, for {self.seconds:.1f} s: {self.call}\n{self.text}"
