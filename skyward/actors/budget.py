"""The cost of a pool's machines: `costs` decides, this notes costs and acts when the budget is spent."""

import asyncio
import logging
import time
from collections.abc import Callable

from skyward.actors.costs import Costs, line
from skyward.errors import BudgetExceeded
from skyward.events import Quoted, Spent
from skyward.formatting import dollars
from skyward.providers.provider import Quote
from skyward.telemetry.event_log import EventLog, now

log = logging.getLogger("skyward")

BUDGET_CHECK_INTERVAL_S = 1.0
"""Seconds between two looks at what has been spent."""

SPENT_INTERVAL_S = 10.0
"""Seconds after which it is told again what has been spent."""

SHUTDOWN_DELAY_S = 15.0
"""Seconds after the budget is spent when a machine that was not terminated shuts itself down."""


class BudgetGuard:
    """The money of one pool, on its event loop.

    Parameters
    ----------
    budget, max_hourly
        As in `Options`.
    record
        Where it is noted what machines cost.
    over
        Called once, with the error for the callers, when the budget is used up.
    """

    def __init__(
        self, budget: float | None, max_hourly: float | None, record: EventLog, over: Callable[[BudgetExceeded], None]
    ) -> None:
        self._spending = Costs(budget, max_hourly)
        self._record, self._over = record, over
        self._told = 0.0
        self._dry = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limited(self) -> bool:
        """Whether there is a limit of any kind."""
        return self._spending.limited

    def check(self, quote: Quote) -> None:
        """Say what machines are about to cost.

        Raises
        ------
        BudgetExceeded
            There is no money for them.
        """
        if (reason := self._spending.refusal(quote, time.time())) is not None:
            raise BudgetExceeded(reason)
        text = line(quote)
        log.info("%s", text)
        self._record.put(Quoted(now(), text, quote.machine, quote.count, (quote.hourly or 0.0) * quote.count))

    def left(self) -> float | None:
        """Return the seconds after which a machine is to end itself, as the money will have been used up before."""
        left = self._spending.left(time.time())
        return None if left is None else max(0.0, left + SHUTDOWN_DELAY_S)

    def begin(self, machine: str, hourly: float | None) -> None:
        """A machine is there; it may be said again, also when it has ended meanwhile."""
        self._spending.begin(machine, hourly, time.time())
        if machine in self._spending.charges:
            self._tell()
            if self._timer is None:
                self.look()

    def end(self, machine: str) -> None:
        """A machine is there no more."""
        if machine in self._spending.charges:
            self._spending.end(machine, time.time())
            self._tell()

    def look(self) -> None:
        """See whether there is money left; now, and again as long as something costs money."""
        spending, at = self._spending, time.time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not spending.charges:
            return
        cost = spending.cost(at)
        if spending.budget is not None and cost >= spending.budget and not self._dry:
            self._dry = True
            self._over(
                BudgetExceeded(
                    f"budget={spending.budget}: {dollars(cost)} has been spent; the machines are being terminated"
                )
            )
        if at - self._told >= SPENT_INTERVAL_S:
            self._tell()
        self._timer = asyncio.get_running_loop().call_later(BUDGET_CHECK_INTERVAL_S, self.look)

    @property
    def machines(self) -> int:
        """How many machines there were that cost something."""
        return self._spending.machines

    def cost(self) -> float:
        """Return the dollars so far."""
        return self._spending.cost(time.time())

    def close(self) -> None:
        """Look no more, and count no more: what could not be ended is named elsewhere."""
        if self._timer is not None:
            self._timer.cancel()
        for machine in tuple(self._spending.charges):
            self.end(machine)

    def _tell(self) -> None:
        self._told = time.time()
        self._record.put(Spent(now(), round(self.cost(), 6), round(self._spending.hourly, 6)))
