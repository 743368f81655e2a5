"""Dump the Python stacks of a process that is busy or stuck, with faulthandler at a signal.

`faulthandler` does that at once, even while a lock or a library blocks Python code.
"""

import faulthandler
import re
import signal

SIGNAL = signal.SIGRTMIN + 7
"""A signal that other libraries are unlikely to use."""

OURS = re.compile(r'/skyward/remote/(node/(zygote|executor)|serialization/call_codec)\.py", line')
"""Frames of Skyward, which call those of the user."""

_THREAD_HEADER = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)", re.MULTILINE)


def write_to(page: int) -> None:
    """Write the stacks of all threads of this process to a file descriptor at each signal."""
    faulthandler.register(SIGNAL, file=page, all_threads=True)


def threads(text: str) -> dict[int, str]:
    """Return the stack of each thread by its ident, the innermost frame first, from the dump.

    Skyward's frames at its outer end are left out, so a thread that runs no user code has none.
    """
    found: dict[int, str] = {}
    heads = list(_THREAD_HEADER.finditer(text))
    ends = [*(each.start() for each in heads[1:]), len(text)][: len(heads)]
    for head, end in zip(heads, ends, strict=True):
        frames = [line for line in text[head.end() : end].splitlines() if line.startswith("  File ")]
        ours = next((place for place, line in enumerate(frames) if OURS.search(line)), len(frames))
        found[int(head[1], 16)] = "\n".join(frames[:ours])
    return found
