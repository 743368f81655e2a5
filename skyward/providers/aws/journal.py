"""A journal of what is about to be created in a cloud: an entry is on the disk before the call is made."""

import asyncio
import datetime as dt
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skyward.telemetry.state_dir import state_dir

MAX_SIZE = 1 << 20
"""Size in bytes from which a journal is rotated; the previous file is kept."""


class Journal:
    """Lines of JSON in a file that is this user's alone. Several programs may write to one.

    Parameters
    ----------
    path
        The file.
    former
        Where the journal was before: it is read as well, and no longer written.
    """

    def __init__(self, path: Path, former: Path | None = None) -> None:
        self.path = path
        self._read = (former, path) if former not in (None, path) else (path,)

    async def note(self, event: str, **facts: object) -> None:
        """Write a line, and return once it is on the disk."""
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        await asyncio.to_thread(self._write, json.dumps({"at": now, "event": event, **facts}))

    def _write(self, line: str) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path.exists() and self.path.stat().st_size > MAX_SIZE:
            self.path.replace(self.path.with_suffix(".old"))
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, f"{line}\n".encode())
            os.fsync(fd)
        finally:
            os.close(fd)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the entries, the oldest first; skip a line that a power cut left incomplete."""
        for path in (each for newest in self._read for each in (newest.with_suffix(".old"), newest)):
            if not path.exists():
                continue
            for line in path.read_text(errors="replace").splitlines():
                try:
                    yield json.loads(line)
                except ValueError:
                    continue

    def unfinished(self) -> dict[str, str]:
        """Map every pool without a "gone" entry to its region."""
        found: dict[str, str] = {}
        for line in self.lines():
            if line["event"] == "gone":
                found.pop(line["pool"], None)
            elif "pool" in line and "region" in line:
                found[line["pool"]] = line["region"]
        return found


def usual() -> Journal:
    """Return the default journal.

    Raises
    ------
    InvalidArgument
        This user has no home folder.
    """
    path = state_dir("the journal") / "aws.jsonl"
    try:  # it did not follow XDG_STATE_HOME at first, and what it names may still run
        former = Path.home() / ".local" / "state" / "skyward" / "aws.jsonl"
    except RuntimeError:
        former = None
    return Journal(path, former)
