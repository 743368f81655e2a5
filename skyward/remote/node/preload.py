"""Has modules imported that calls need, once for all workers of a node, and holds calls back meanwhile.

A batch says which modules of installed packages it imports. The first one that goes to a worker which has run nothing
yet waits until the zygote has a process with these modules (see `fork_template`), and until a worker that is forked
from it is in the place of the unused one: importing them in each worker at the same time would take longer. A worker
that has run a batch is not replaced.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Protocol

from skyward.remote.module_bundles import IMPORTS_PREFIX
from skyward.remote.node.import_timer import public
from skyward.remote.protocol import Batch, Opening

IMPORT_TIMEOUT_S = 120.0
"""Seconds that importing the modules of one package may take; after that each worker imports them itself."""

START_TIMEOUT_S = 30.0
"""Seconds in which new workers start; after that the old ones stay."""

WORTHWHILE_S = 0.05
"""Seconds that an import takes at least before unused workers are replaced."""

NAMES_SIZE = 1 << 15
"""The most bytes of names that are imported together; more are those of generated modules."""


class PreloadExecutor(Protocol):
    """What a preloader needs of the executor."""

    def begin_import(self, names: bytes) -> int:
        """Have the zygote import modules; return the number of the order."""
        ...

    def end_import(self, number: int) -> None:
        """Have the zygote give up importing."""
        ...

    def replace_unused(self) -> Sequence[asyncio.Event]:
        """Start a new worker for each that is unused; each event is set when one has started or failed to."""
        ...

    def keep_unused(self) -> None:
        """Give up the new workers that have not started."""
        ...

    def give(self, slot: int, batches: Sequence[Batch], waited: Opening | None) -> None:
        """Hand batches to the slot's worker, the first of which has waited."""
        ...


class Preloader:
    """Knows which modules were imported, and which batches wait for that.

    Parameters
    ----------
    host
        The executor.
    lists
        The functions that the node was sent; the lists of modules are among them.
    """

    def __init__(self, host: PreloadExecutor, lists: Mapping[str, bytes]) -> None:
        self._host, self._lists = host, lists
        self._settled: set[str] = set()  # names of lists
        self._tried: set[str] = set()  # names of modules
        self._wanted: deque[str] = deque()
        self._held: dict[int, tuple[float, Sequence[Batch]]] = {}  # by slot, and since when
        self._took: dict[str, float] = {}  # seconds that importing each module took, of what is waited for
        self._replacing = False
        self._import: tuple[int, asyncio.Future[Mapping[str, float]]] | None = None
        self._task: asyncio.Task[None] | None = None

    def holds(self, slot: int, batches: Sequence[Batch]) -> bool:
        """Whether these batches, for an unused worker, wait here. They are handed to the slot's worker later."""
        lists = [name for batch in batches for name in batch.functions if name.startswith(IMPORTS_PREFIX)]
        wanted = [name for name in lists if name not in self._settled]
        if not wanted and not self._replacing:
            return False
        self._wanted.extend(wanted)
        self._held[slot] = asyncio.get_running_loop().time(), batches
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return True

    def take_back(self, slot: int, keep: int = 0) -> int:
        """Forget the batches that wait for a slot, but for the first `keep`; return how many those were."""
        since, batches = self._held.pop(slot, (0.0, ()))
        if kept := batches[:keep]:
            self._held[slot] = since, kept
        return len(batches) - len(kept)

    def release(self, slot: int) -> None:
        """Hand what waits for a slot to its worker."""
        since, batches = self._held.pop(slot, (0.0, ()))
        if batches:
            waited = asyncio.get_running_loop().time() - since
            total = sum(self._took.values())
            part = min(1.0, waited / total) if total else 0.0
            imports = {module: seconds * part for module, seconds in self._took.items()}
            self._host.give(slot, batches, Opening(waited, imports))

    def imported(self, number: int, took: Mapping[str, float]) -> None:
        """Note how long each module took that the zygote was told to import; nothing if that failed."""
        if self._import is not None and self._import[0] == number and not self._import[1].done():
            self._import[1].set_result(took)

    async def _run(self) -> None:
        try:
            while self._wanted:
                seconds = 0.0
                while self._wanted:
                    name = self._wanted.popleft()
                    for package in _packages(self._lists.get(name, b"")):
                        seconds += await self._import_once(package)
                    self._settled.add(name)
                if seconds >= WORTHWHILE_S:
                    await self._replace()
        finally:
            self._task = None
            for slot in tuple(self._held):
                self.release(slot)
            self._took.clear()

    async def _import_once(self, names: Sequence[str]) -> float:
        new = [name for name in names if name not in self._tried]
        self._tried.update(new)
        text = "\n".join(new).encode()
        if not 0 < len(text) <= NAMES_SIZE:
            return 0.0
        number = self._host.begin_import(text)
        self._import = number, asyncio.get_running_loop().create_future()
        try:
            took = await asyncio.wait_for(self._import[1], IMPORT_TIMEOUT_S)
        except TimeoutError:
            self._host.end_import(number)
            return 0.0
        for name, seconds in took.items():
            if name:
                self._took[public(name)] = self._took.get(public(name), 0.0) + seconds
        return sum(took.values())

    async def _replace(self) -> None:
        self._replacing = True
        started = self._host.replace_unused()
        try:
            await asyncio.wait_for(asyncio.gather(*(each.wait() for each in started)), START_TIMEOUT_S)
        except TimeoutError:
            self._host.keep_unused()
        finally:
            self._replacing = False


def _packages(names: bytes) -> list[list[str]]:
    """The modules of a list, by package."""
    return [list(found) for _, found in groupby(names.decode().split(), lambda name: name.partition(".")[0])]
