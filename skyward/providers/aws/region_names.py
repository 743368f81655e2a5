"""Is this the name of a region of Amazon, and which one was meant? Pure: no I/O.

Amazon has new regions before the SDK here knows of them, so a name that it does not know may be one if it has the form
that all names have.
"""

import difflib
import re
from collections.abc import Iterable

_FORM = re.compile(r"[a-z]{2,4}(-[a-z]+)*-(north|south|central|(north|south)?(east|west))-\d+")


def has_form(name: str) -> bool:
    """Whether this can be the name of a region, such as `eu-central-1`."""
    return _FORM.fullmatch(name) is not None


def none_set(ignored: str) -> str:
    """Return the error for no region; `ignored` is the value of `AWS_REGION`, which the SDK does not read."""
    others = "set the variable AWS_DEFAULT_REGION, or write it into ~/.aws/config (`aws configure`)"
    if ignored:
        return f"region=None: no region is set, as AWS_REGION={ignored} is not read; pass region={ignored!r}, {others}"
    return f"region=None: no region is set; pass region='eu-central-1', {others}; AWS_REGION is not read"


def meant(name: str, known: Iterable[str]) -> str:
    """Return the question which of the known regions was meant; nothing where none is like it."""
    word = name.strip().lower().replace("_", "-")
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.75)
    near.sort(key=lambda each: sorted(each) != sorted(word))  # first the one whose letters were only swapped
    return f"did you mean {' or '.join(map(repr, near[:2]))}?" if near else ""
