"""`Stack`: where a running call is, as `Compute.stacks()` returns it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stack:
    """The Python stack of the call that a slot runs.

    Attributes
    ----------
    node, slot
        Where it runs. The slot is -1 if a node did not answer; then `text` says so.
    call
        The call with its arguments, abbreviated.
    seconds
        Seconds since its slot was given the call. That is an upper bound, because very short calls are given to a slot
        several at a time.
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
