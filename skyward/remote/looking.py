"""How the Python stacks of a process that is busy, or stuck, are had: at a signal the interpreter writes them down.

`faulthandler` does that at once, also while Python code does not run, as a lock or a library holds it up.
"""

import faulthandler
import re
import signal

SIGNAL = signal.SIGRTMIN + 7
"""One that nobody else is likely to use."""

OURS = re.compile(r'/skyward/remote/(zygote|wire|executor)\.py", line')
"""Frames of ours, which call those of the user."""

_HEAD = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)", re.MULTILINE)


def write_to(page: int) -> None:
    """Have the stacks of all threads of this process written to a file, by its descriptor, at each signal."""
    faulthandler.register(SIGNAL, file=page, all_threads=True)


def threads(text: str) -> dict[int, str]:
    """Return the stack of each thread by its ident, the innermost frame first, from what was written.

    Frames of ours at its outer end are left out; so a thread that runs nothing of the user's has none.
    """
    found: dict[int, str] = {}
    heads = list(_HEAD.finditer(text))
    ends = [*(each.start() for each in heads[1:]), len(text)][: len(heads)]
    for head, end in zip(heads, ends, strict=True):
        frames = [line for line in text[head.end() : end].splitlines() if line.startswith("  File ")]
        ours = next((place for place, line in enumerate(frames) if OURS.search(line)), len(frames))
        found[int(head[1], 16)] = "\n".join(frames[:ours])
    return found
