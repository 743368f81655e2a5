"""The calls of all slots as a bounded number of cells that can be drawn. Pure: no I/O.

Times are whole ticks since the run began. A node reports several calls in one message, and how long each ran, but not
when: they are laid one after the other, so that the last one ends when the message came, or as much later as the
message before was late. Calls of one slot that ended alike and began in the same `grain` are one cell, and the grain
doubles whenever there are too many cells.
"""

from collections.abc import Iterable, Sequence

TICKS = 10_000
"""Ticks per second."""

MAX_CELLS = 40_000
"""Maximum number of cells."""

STATUSES = ("returned", "raised", "overdue", "killed", "died")
"""How a call ends; any other status counts as `died`."""

type Lane = tuple[int, int, int]
"""Number of the node, number of its slot, and index of the status."""

type Cell = list[int]
"""When its first call began and its last one ended, ticks in which they ran, calls, tasks, number of the first call,
index of the function that they ran (`SEVERAL`), and number of the first task in its `Parallel` call, if it has one."""

SEVERAL = -1
"""Stands for the functions of a cell whose calls ran several."""


class TimelineBins:
    """The cells of a run so far.

    Parameters
    ----------
    most
        Maximum number of cells.
    """

    def __init__(self, most: int = MAX_CELLS) -> None:
        self.grain = 10
        self._most = most
        self._size = 0
        self._lanes: dict[Lane, dict[int, Cell]] = {}
        self._ends: dict[tuple[int, int], int] = {}
        self._changed: dict[Lane, set[int]] = {}
        self._coarser = False

    def add(
        self,
        at: int,
        node: int,
        batches: Sequence[int],
        slots: Sequence[int],
        seconds: Sequence[float],
        statuses: Sequence[str],
        tasks: Sequence[int],
        functions: Sequence[int],
        firsts: Sequence[int],
        opening: Sequence[float] = (),
    ) -> None:
        """Lay the calls of one message that came `at` this tick; one that never began has slot -1 and is left out.

        Those with an `opening` were on their slots for so many seconds more, in which they did not run.
        """
        runs = [round(each * TICKS) for each in seconds]
        opens = [round(each * TICKS) for each in opening] or [0] * len(runs)
        total: dict[int, int] = {}
        for slot, ran, opened in zip(slots, runs, opens, strict=True):
            total[slot] = total.get(slot, 0) + opened + ran
        begins = {slot: max(0, at - taken, self._ends.get((node, slot), 0)) for slot, taken in total.items()}
        for batch, slot, ran, opened, status, held, function, first in zip(
            batches, slots, runs, opens, statuses, tasks, functions, firsts, strict=True
        ):
            if slot >= 0:
                begin = begins[slot]
                begins[slot] = begin + opened + ran
                lane = node, slot, _index(status)
                self._put(lane, [begin, begins[slot], ran, 1, held, batch, function, first])
        self._ends |= {(node, slot): end for slot, end in begins.items()}
        while self._size > self._most and self.grain < 1 << 40:
            self._coarsen()

    def _put(self, lane: Lane, cell: Cell) -> None:
        cells = self._lanes.setdefault(lane, {})
        index = cell[0] // self.grain
        if (there := cells.get(index)) is None:
            cells[index] = cell
            self._size += 1
        else:
            _join(there, cell)
        self._changed.setdefault(lane, set()).add(index)

    def _coarsen(self) -> None:
        self.grain *= 2
        self._coarser = True
        for lane, cells in self._lanes.items():
            merged: dict[int, Cell] = {}
            for cell in cells.values():
                index = cell[0] // self.grain
                if (there := merged.get(index)) is None:
                    merged[index] = cell
                else:
                    _join(there, cell)
            self._size -= len(cells) - len(merged)
            self._lanes[lane] = merged

    def all(self) -> list[list[object]]:
        """Return all cells, packed: of each lane its node, slot, status and numbers; see `packed`."""
        return [[*lane, packed(cells.values())] for lane, cells in sorted(self._lanes.items())]

    def news(self) -> list[list[object]] | None:
        """Return the cells that are new or changed since the last call; None if all are."""
        changed, coarser = self._changed, self._coarser
        self._changed, self._coarser = {}, False
        if coarser:
            return None
        return [
            [*lane, packed(self._lanes[lane][index] for index in sorted(indices))]
            for lane, indices in sorted(changed.items())
        ]


def packed(cells: Iterable[Cell]) -> list[int]:
    """Return cells as small numbers, eight for each.

    They are the begin (as its distance from that of the cell before), the length, how much of it was idle, calls,
    tasks, the number of the first call (as the begin), the index of the function, and the number of the first task.
    """
    flat: list[int] = []
    begun = named = 0
    for begin, end, ran, calls, tasks, batch, function, first in cells:
        flat += (begin - begun, end - begin, end - begin - ran, calls, tasks, batch - named, function, first)
        begun, named = begin, batch
    return flat


def _join(there: Cell, cell: Cell) -> None:
    """Merge a later cell into a cell."""
    there[1] = cell[1]
    there[2:5] = (a + b for a, b in zip(there[2:5], cell[2:5], strict=True))
    if there[6] != cell[6]:
        there[6] = SEVERAL


class Bins:
    """How much happened in each of at most `most` equal intervals of the run.

    Parameters
    ----------
    most
        Maximum number of intervals; their width doubles when there are more.
    """

    def __init__(self, most: int = 600) -> None:
        self.width = TICKS // 20
        self.amounts: list[int] = []
        self._most = most

    def add(self, at: int, amount: int) -> None:
        """Add an amount at a tick."""
        while at // self.width >= self._most:
            self.width *= 2
            pairs = [*self.amounts, 0] if len(self.amounts) % 2 else self.amounts
            self.amounts = [pairs[index] + pairs[index + 1] for index in range(0, len(pairs), 2)]
        index = at // self.width
        self.amounts += [0] * (index + 1 - len(self.amounts))
        self.amounts[index] += amount


class Usage:
    """How much of a node's processors and memory was in use, as at most `most` samples of the run.

    Each sample is a tick and the most percent of processors and of memory since. Their distance doubles when there are
    more.
    """

    def __init__(self, most: int = 240) -> None:
        self.samples: list[list[int]] = []
        self._most, self._every = most, 1

    def add(self, at: int, cpu: float, memory: float) -> None:
        """Add the shares in use at a tick."""
        sample = [at, round(100 * cpu), round(100 * memory)]
        if self.samples and at - self.samples[-1][0] < self._every:
            _raise(self.samples[-1], sample)
            return
        self.samples.append(sample)
        while len(self.samples) > self._most:
            self._every *= 2
            kept = self.samples[:1]
            for each in self.samples[1:]:
                if each[0] - kept[-1][0] < self._every:
                    _raise(kept[-1], each)
                else:
                    kept.append(each)
            self.samples = kept


def _raise(sample: list[int], other: list[int]) -> None:
    sample[1:] = map(max, sample[1:], other[1:])


def _index(status: str) -> int:
    return STATUSES.index(status) if status in STATUSES else len(STATUSES) - 1
