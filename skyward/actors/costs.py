"""The cost of machines, and whether the budget allows more. Pure: no I/O, no clock, no actor.

Times are seconds of a clock that also counts while this computer sleeps, as the machines cost money then, too. A
machine is charged for each second from its launch until its end is confirmed, and for a minute at least, as Amazon does
(https://aws.amazon.com/ec2/pricing/on-demand/). One whose price is not known counts as nothing.
"""

from dataclasses import dataclass, field, replace

from skyward.formatting import dollars
from skyward.providers.provider import Quote

MIN_CHARGED_S = 60.0
"""Seconds that are charged for a machine at least."""

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Charge:
    """A machine that costs `hourly` dollars an hour, from `since` on, and until `until` if it has ended."""

    hourly: float
    since: float
    until: float | None = None

    def cost(self, now: float) -> float:
        """Dollars until now."""
        return self.hourly * max(MIN_CHARGED_S, (now if self.until is None else self.until) - self.since) / HOUR


@dataclass(slots=True)
class Costs:
    """The money of one pool: `budget` dollars in all, `max_hourly` dollars an hour at most; None for no limit.

    `charges` are those of the machines that are there, by their ids; `past` is what the others have cost, and `known`
    are the ids of all that cost something: none of them begins twice.
    """

    budget: float | None = None
    max_hourly: float | None = None
    charges: dict[str, Charge] = field(default_factory=dict)
    past: float = 0.0
    known: set[str] = field(default_factory=set)

    @property
    def machines(self) -> int:
        """How many machines there were that cost something."""
        return len(self.known)

    @property
    def limited(self) -> bool:
        """Whether there is a limit of either kind."""
        return self.budget is not None or self.max_hourly is not None

    @property
    def hourly(self) -> float:
        """Dollars an hour of the machines that are there."""
        return sum(charge.hourly for charge in self.charges.values())

    def begin(self, machine: str, hourly: float | None, now: float) -> None:
        """A machine is there; it may be said again, also when it has ended meanwhile."""
        if hourly and machine not in self.known:
            self.charges[machine] = Charge(hourly, now)
            self.known.add(machine)

    def end(self, machine: str, now: float) -> None:
        """A machine is there no more."""
        if (charge := self.charges.pop(machine, None)) is not None:
            self.past += replace(charge, until=now).cost(now)

    def cost(self, now: float) -> float:
        """Dollars until now."""
        return self.past + sum(charge.cost(now) for charge in self.charges.values())

    def left(self, now: float) -> float | None:
        """Seconds after which the budget is used up by the machines that are there; None if that never happens.

        What is used up already was so many seconds ago: the number is negative.
        """
        if self.budget is None or not self.charges:
            return None
        at = now
        for end in sorted({charge.since + MIN_CHARGED_S for charge in self.charges.values()}):
            if self.cost(end) >= self.budget:
                break
            at = max(at, end)
        rate = sum(charge.hourly for charge in self.charges.values() if charge.since + MIN_CHARGED_S <= at)
        missing = self.budget - self.cost(at)
        if missing <= 0:
            return missing * HOUR / self.hourly
        return at - now + (missing * HOUR / rate if rate else 0.0)

    def refusal(self, quote: Quote, now: float) -> str | None:
        """Say why machines may not be launched; None if they may."""
        if not self.limited:
            return None
        if quote.hourly is None:
            limit = f"budget={self.budget}" if self.budget is not None else f"max_hourly={self.max_hourly}"
            return f"{limit}: what a {quote.machine} costs is not known ({quote.problem}), so no limit can be enforced"
        added = quote.hourly * quote.count
        if self.max_hourly is not None and self.hourly + added > self.max_hourly:
            return (
                f"max_hourly={self.max_hourly}: {quote.count} x {quote.machine} more would make it "
                f"{dollars(self.hourly + added)} an hour; ask for fewer or cheaper machines"
            )
        first = added * MIN_CHARGED_S / HOUR
        if self.budget is not None and self.cost(now) + first > self.budget:
            return (
                f"budget={self.budget}: {dollars(self.cost(now))} is spent, and {quote.count} x {quote.machine} cost "
                f"{dollars(first)} in their first minute; give a larger budget, or ask for fewer or cheaper machines"
            )
        return None


def line(quote: Quote) -> str:
    """Say in a line what machines are about to cost."""
    what = f"{quote.count} x {quote.machine} in {quote.zone}"
    if quote.hourly is None:
        return f"{what}: the price is not known ({quote.problem})"
    each, total = dollars(quote.hourly), quote.hourly * quote.count
    extras = f" with {quote.extras}" if quote.extras else ""
    return f"{what}: {each} an hour each{extras}, {dollars(total)} in all; ten minutes cost {dollars(total / 6)}"
