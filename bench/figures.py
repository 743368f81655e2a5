"""Pure: numbers out of numbers."""

from collections.abc import Mapping, Sequence
from math import ceil
from statistics import median

type Figures = Mapping[str, float]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed (nearest rank)."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def latency(seconds: Sequence[float]) -> Figures:
    """Calls in seconds as the figures of a latency scenario."""
    return {
        "p50_ms": percentile(seconds, 0.50) * 1e3,
        "p99_ms": percentile(seconds, 0.99) * 1e3,
        "max_ms": max(seconds) * 1e3,
    }


def summary(runs: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """The median of each figure over all runs, and when there is more than one run its least and greatest value."""
    names = list(dict.fromkeys(name for run in runs for name in run))
    series = {name: [run[name] for run in runs if name in run] for name in names}
    found = {"figures": {name: rounded(median(values)) for name, values in series.items()}}
    if len(runs) > 1:
        found["min"] = {name: rounded(min(values)) for name, values in series.items()}
        found["max"] = {name: rounded(max(values)) for name, values in series.items()}
    return found


def ratio(ours: Figures, theirs: Figures) -> dict[str, float]:
    """Ours over theirs, for each figure that both have and theirs is not zero."""
    return {name: rounded(value / theirs[name]) for name, value in ours.items() if theirs.get(name)}


def rounded(value: float) -> float:
    """Five significant digits: more than any of these numbers deserves."""
    return float(f"{value:.5g}")
