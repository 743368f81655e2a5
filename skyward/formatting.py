"""Amounts, counts, durations and sizes as people read them. Pure: no I/O, no clock, no actor."""

import math


def counted(count: int, noun: str) -> str:
    """Return a number of things: `1 node`, `2,000 nodes`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def dollars(amount: float) -> str:
    """Return an amount with its significant digits: `$12.50`, `$0.50`, `$0.144`, `$0.0003`."""
    if amount >= 1 or not amount:
        return f"${amount:,.2f}"
    whole, _, cents = f"{amount:.{2 - math.floor(math.log10(amount))}f}".partition(".")
    return f"${whole}.{cents.rstrip('0').ljust(2, '0')}"


def clock(seconds: float) -> str:
    """Return a duration as a clock shows it: `0:07`, `12:40`, `1:02:03`."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def span(seconds: float) -> str:
    """Return a duration in its two largest units: `45s`, `12m 5s`, `3h 20m`, `2d 4h`."""
    left = max(0, int(seconds))
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        parts.append(f"{count}{unit}" if count else "")
    first = next((index for index, part in enumerate(parts) if part), 3)
    return " ".join(filter(None, parts[first : first + 2])) or "0s"


def in_seconds(seconds: float) -> str:
    """Return a short duration with its significant digits: `0.12 s`, `5.1 s`, `130 s`."""
    return f"{seconds:.{2 if seconds < 1 else 1 if seconds < 10 else 0}f} s"


def rate(per_second: float) -> str:
    """Return a rate per second, or per minute where that is low: `12,345/s`, `2.0/s`, `15.0/min`."""
    if per_second >= 100:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{60 * per_second:.1f}/min"


def size(count: int) -> str:
    """Return a number of bytes in the unit that fits: `80 MB`, `1.5 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def megabytes(count: int) -> str:
    """Return a number of bytes that may be few: `0.1 MB`, `1500.0 MB`."""
    return f"{count / 1e6:.1f} MB"
